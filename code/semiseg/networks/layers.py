"""Layers by the number of axes of space, for networks that serve images and volumes alike."""

from collections.abc import Callable

from torch import nn

Layer = dict[int, Callable[..., nn.Module]]

CONVOLUTION: Layer = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: Layer = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM: Layer = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORM: Layer = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
CHANNEL_DROPOUT: Layer = {2: nn.Dropout2d, 3: nn.Dropout3d}
MAX_POOL: Layer = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
LINEAR = {2: "bilinear", 3: "trilinear"}  # interpolation along every axis
