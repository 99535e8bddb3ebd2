"""The 3D U-Net of SSL4MIS: instance norm without weights, trilinear decoder."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semiseg.errors import UserError
from semiseg.networks.alignment import crop_to
from semiseg.networks.architecture import Architecture
from semiseg.networks.encoder_decoder import EncoderDecoder

WIDTHS = (16, 32, 64, 128, 256)
DROPOUT = 0.3


def unet_3d(channels: int, classes: int, size: Sequence[int], widths: Sequence[int] = WIDTHS) -> EncoderDecoder:
    """Five levels of two 3×3×3 convolutions each; 5,884,050 parameters for one channel and two classes.

    Initial weights are PyTorch's; those of SSL4MIS (3c2f98b) are Kaiming's, about 2.4 times as large, so that the same
    learning rate is a smaller one there. The attention U-Net differs likewise.
    """
    stride = 2 ** (len(widths) - 1)
    if max(size) <= stride:
        raise UserError(
            f"3D U-Net, patches of {'×'.join(map(str, size))} voxels: the coarsest level is a single position, which "
            f"instance norm sets to zero; use patches of more than {stride} voxels along some axis."
        )
    head = nn.Sequential(nn.Dropout(DROPOUT), nn.Conv3d(widths[0], classes, 1))
    return EncoderDecoder(Encoder(channels, widths), Decoder(widths), head)


def double_conv(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions, each normalized over the positions of one volume."""
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, padding=1),
        nn.InstanceNorm3d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv3d(outputs, outputs, 3, padding=1),
        nn.InstanceNorm3d(outputs),
        nn.ReLU(inplace=True),
    )


class Encoder(nn.Module):
    """Blocks with max-pooling between them."""

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(double_conv(i, o) for i, o in pairwise((channels, *widths)))
        # Rounding up keeps the last slice of an odd volume, and an axis of length one.
        self.pool = nn.MaxPool3d(2, ceil_mode=True)

    def forward(self, volumes: Tensor) -> tuple[Tensor, ...]:
        features = [self.blocks[0](volumes)]
        for block in self.blocks[1:]:
            features.append(block(self.pool(features[-1])))
        return tuple(features)


class Decoder(nn.Module):
    """Trilinear upsampling, skip connection, block; level by level from a dropped-out bottleneck."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.dropout = nn.Dropout(DROPOUT)
        self.blocks = nn.ModuleList(double_conv(coarse + fine, fine) for coarse, fine in pairwise(reversed(widths)))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        *skips, x = features
        x = self.dropout(x)
        decoded = []
        for block, skip in zip(self.blocks, reversed(skips), strict=True):
            x = F.interpolate(x, scale_factor=2, mode="trilinear")
            x = block(torch.cat((skip, crop_to(x, skip)), dim=1))
            decoded.append(x)
        return tuple(decoded)


ARCHITECTURES = {
    "unet_3d": Architecture((3,), unet_3d),
    "unet_3d_small": Architecture((3,), partial(unet_3d, widths=(8, 16, 32, 64, 96))),
}
