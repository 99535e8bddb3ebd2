"""Layers that several networks share, some of them by the number of axes of space."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd

Layer = dict[int, Callable[..., nn.Module]]

CONVOLUTION: Layer = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: Layer = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM: Layer = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORM: Layer = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
CHANNEL_DROPOUT: Layer = {2: nn.Dropout2d, 3: nn.Dropout3d}
ADAPTIVE_POOL: Layer = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
MAX_POOL: Layer = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
LINEAR = {2: "bilinear", 3: "trilinear"}  # interpolation along every axis


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution of pictures whose bias is left to the batch norm that follows it."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a 1×1 shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            conv(inputs, outputs),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            conv(outputs, outputs),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential(conv(inputs, outputs, 1), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.main(x) + self.shortcut(x), inplace=True)


class DropPath(_DropoutNd):
    """Dropout of everything at once, for some items of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        keep = 1 - self.p
        return x * x.new_empty(len(x), *[1] * (x.dim() - 1)).bernoulli_(keep).div_(keep)
