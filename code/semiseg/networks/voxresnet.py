"""The VoxResNet of SSL4MIS: pre-activated residual blocks of one width, instance norm without weights."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semiseg.errors import UserError
from semiseg.networks.architecture import Architecture
from semiseg.networks.encoder_decoder import EncoderDecoder
from semiseg.networks.layers import CONVOLUTION, INSTANCE_NORM, LINEAR, MAX_POOL

LEVELS = 3  # of two residual blocks each, at strides 2, 4 and 8
STRIDE = 2**LEVELS


def voxresnet(channels: int, classes: int, size: Sequence[int], filters: int = 64) -> EncoderDecoder:
    """Six residual blocks, two decoder steps; 1,992,578 parameters for one 3D channel and two classes."""
    if max(size) <= STRIDE:
        raise UserError(
            f"VoxResNet, patches of {'×'.join(map(str, size))} positions: the coarsest level is a single one, which "
            f"instance norm sets to zero; use patches of more than {STRIDE} positions along some axis."
        )
    dims = len(size)
    head = CONVOLUTION[dims](filters, classes, 1)
    return EncoderDecoder(Encoder(dims, channels, filters), Decoder(dims, filters), head)


def double_conv(dims: int, inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions, each of which receives normalized input."""
    return nn.Sequential(
        INSTANCE_NORM[dims](inputs),
        nn.ReLU(inplace=True),
        CONVOLUTION[dims](inputs, outputs, 3, padding=1, bias=False),
        INSTANCE_NORM[dims](outputs),
        nn.ReLU(inplace=True),
        CONVOLUTION[dims](outputs, outputs, 3, padding=1, bias=False),
    )


def enlarge(x: Tensor, reference: Tensor) -> Tensor:
    """Interpolate to the size of `reference`, corner on corner."""
    return F.interpolate(x, size=reference.shape[2:], mode=LINEAR[x.dim() - 2], align_corners=True)


class Residual(nn.Module):
    """Adds to its input what two convolutions make of it."""

    def __init__(self, dims: int, width: int) -> None:
        super().__init__()
        self.block = double_conv(dims, width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class Encoder(nn.Module):
    """A convolution at full size, then pooling and two residual blocks; level by level.

    The finer maps are taken before the residual blocks of their level, the coarsest one after them.
    """

    def __init__(self, dims: int, channels: int, filters: int) -> None:
        super().__init__()
        self.stem = CONVOLUTION[dims](channels, filters, 3, padding=1)
        self.levels = nn.ModuleList(
            nn.Sequential(Residual(dims, filters), Residual(dims, filters)) for _ in range(LEVELS)
        )
        # Rounding up keeps the last row of an odd image, and an axis of length one.
        self.pool = MAX_POOL[dims](2, ceil_mode=True)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(images)
        features = [x]
        for level in self.levels:
            features.append(self.pool(x))
            x = level(features[-1])
        return (*features[:-1], x)


class Decoder(nn.Module):
    """Interpolation, skip connection, block; down to stride 2, from where the last map is interpolated to full size.

    The encoder's finest map only tells that size.
    """

    def __init__(self, dims: int, filters: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(double_conv(dims, 2 * filters, filters) for _ in range(LEVELS - 1))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        finest, *skips, x = features
        decoded = []
        for block, skip in zip(self.blocks, reversed(skips), strict=True):
            x = block(torch.cat((skip, enlarge(x, skip)), dim=1))
            decoded.append(x)
        return (*decoded, enlarge(x, finest))


ARCHITECTURES = {
    "voxresnet": Architecture((2, 3), voxresnet),
    "voxresnet_small": Architecture((2, 3), partial(voxresnet, filters=16)),
}
