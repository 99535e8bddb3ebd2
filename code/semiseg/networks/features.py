"""Choosing one of the feature maps that an encoder offers, and heads that read it."""

from itertools import pairwise
from math import log2
from typing import Literal, NamedTuple

import torch
from torch import nn

from semiseg.errors import UserError
from semiseg.networks.layers import CONVOLUTION


class FeatureLevel(NamedTuple):
    """A place in `Output.encoder` and the number of channels there."""

    position: int
    channels: int


def feature_level(
    network: nn.Module,
    channels: int,
    size: tuple[int, ...],
    wanted: Literal["auto", "first"] | int,
    positions: int,
) -> FeatureLevel:
    """Find a level by its stride, or the first one, or (auto) the deepest with at least `positions` positions."""
    training = network.training
    with torch.no_grad():
        maps = network.eval()(torch.zeros(1, channels, *size)).encoder
    network.train(training)
    strides = [2 ** round(log2(size[-1] / m.shape[-1])) for m in maps]  # sizes are rounded up
    if wanted == "auto":
        position = max((i for i, m in enumerate(maps) if m[0, 0].numel() >= positions), default=0)
    elif wanted == "first":
        position = 0
    elif wanted in strides:
        position = strides.index(wanted)
    else:
        raise UserError(f"feature_level {wanted} is none of the encoder's strides {strides}; choose one of them.")
    return FeatureLevel(position, maps[position].shape[1])


def pointwise_head(dims: int, *widths: int) -> nn.Sequential:
    """1×1 convolutions from the first width to the last, with ReLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [CONVOLUTION[dims](inputs, outputs, 1), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
