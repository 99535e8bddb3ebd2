"""The 2D U-Net of SSL4MIS: batch norm, leaky ReLU, and dropout that grows with depth."""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semiseg.networks.architecture import Architecture, any_size
from semiseg.networks.encoder_decoder import EncoderDecoder

WIDTHS = (16, 32, 64, 128, 256)
DROPOUT = (0.05, 0.1, 0.2, 0.3, 0.5)


def unet(
    channels: int, classes: int, widths: Sequence[int] = WIDTHS, dropout: Sequence[float] = DROPOUT
) -> EncoderDecoder:
    """Five levels of two 3×3 convolutions each; 1,813,764 parameters for one channel and four classes."""
    head = nn.Conv2d(widths[0], classes, 3, padding=1)
    blocks = (double_conv(2 * width, width) for width in reversed(widths[:-1]))
    return EncoderDecoder(Encoder(channels, widths, dropout), Decoder(reversed(widths), blocks), head)


def double_conv(inputs: int, outputs: int, dropout: float = 0.0) -> nn.Sequential:
    """Two convolutions; dropout, where there is any, sits between them."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(inplace=True),
        nn.Dropout(dropout) if dropout else nn.Identity(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(inplace=True),
    )


class Encoder(nn.Module):
    """Blocks with max-pooling between them."""

    def __init__(self, channels: int, widths: Sequence[int], dropout: Sequence[float]) -> None:
        super().__init__()
        levels = zip(pairwise((channels, *widths)), dropout, strict=True)
        self.blocks = nn.ModuleList(double_conv(i, o, p) for (i, o), p in levels)
        # Rounding up keeps the last row of an odd image, and an axis of length one.
        self.pool = nn.MaxPool2d(2, ceil_mode=True)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = [self.blocks[0](images)]
        for block in self.blocks[1:]:
            features.append(block(self.pool(features[-1])))
        return tuple(features)


class Decoder(nn.Module):
    """1×1 convolution, bilinear upsampling, skip connection, block; level by level.

    Args:
        widths: channels from the deepest encoder level up to the finest decoder level.
        blocks: one for each level of the decoder, from the coarsest; takes the skip connection's channels first.
    """

    def __init__(self, widths: Iterable[int], blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for coarse, fine in pairwise(widths))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        *skips, x = features
        decoded = []
        for reduce, block, skip in zip(self.reduce, self.blocks, reversed(skips), strict=True):
            x = F.interpolate(reduce(x), size=skip.shape[2:], mode="bilinear", align_corners=True)
            x = block(torch.cat((skip, x), dim=1))
            decoded.append(x)
        return tuple(decoded)


ARCHITECTURES = {
    "unet": Architecture((2,), any_size(unet)),
    "unet_small": Architecture(
        (2,), any_size(partial(unet, widths=(8, 16, 32, 64, 96), dropout=(0, 0, 0.2, 0.3, 0.5)))
    ),
}
