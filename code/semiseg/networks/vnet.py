"""The V-Net of UA-MT and SSL4MIS: strided convolutions, additive skips, no residuals inside a level."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from torch import Tensor, nn

from semiseg.networks.alignment import crop_to, pad_to_even
from semiseg.networks.architecture import Architecture, any_size
from semiseg.networks.encoder_decoder import EncoderDecoder

DEPTHS = (1, 2, 3, 3, 3)
DROPOUT = 0.5


def vnet(channels: int, classes: int, filters: int = 16) -> EncoderDecoder:
    """Five levels of one to three convolutions; 9,448,866 parameters for one channel and two classes."""
    widths = [filters * 2**k for k in range(len(DEPTHS))]
    head = nn.Sequential(nn.Dropout3d(DROPOUT), nn.Conv3d(filters, classes, 1))
    return EncoderDecoder(Encoder(channels, widths), Decoder(widths), head)


def normalized(convolution: nn.Conv3d | nn.ConvTranspose3d) -> nn.Sequential:
    """A convolution with batch norm and ReLU."""
    return nn.Sequential(convolution, nn.BatchNorm3d(convolution.out_channels), nn.ReLU(inplace=True))


def convolutions(inputs: int, width: int, depth: int) -> nn.Sequential:
    """`depth` convolutions of 3×3×3, the first of which sets the width."""
    widths = (inputs, *[width] * depth)
    return nn.Sequential(*(normalized(nn.Conv3d(i, o, 3, padding=1)) for i, o in pairwise(widths)))


class Encoder(nn.Module):
    """Levels with a strided convolution, which also doubles the width, between them."""

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            convolutions(width if k else channels, width, depth)
            for k, (width, depth) in enumerate(zip(widths, DEPTHS, strict=True))
        )
        self.down = nn.ModuleList(normalized(nn.Conv3d(i, o, 2, stride=2)) for i, o in pairwise(widths))

    def forward(self, volumes: Tensor) -> tuple[Tensor, ...]:
        features = [self.levels[0](volumes)]
        for down, level in zip(self.down, self.levels[1:], strict=True):
            features.append(level(down(pad_to_even(features[-1]))))
        return tuple(features)


class Decoder(nn.Module):
    """Transposed convolution, added skip, level; from a bottleneck that lost whole channels to dropout."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        steps = list(pairwise(reversed(widths)))
        self.dropout = nn.Dropout3d(DROPOUT)
        self.up = nn.ModuleList(normalized(nn.ConvTranspose3d(i, o, 2, stride=2)) for i, o in steps)
        self.levels = nn.ModuleList(
            convolutions(fine, fine, depth) for (_, fine), depth in zip(steps, reversed(DEPTHS[:-1]), strict=True)
        )

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        *skips, x = features
        x = self.dropout(x)
        decoded = []
        for up, level, skip in zip(self.up, self.levels, reversed(skips), strict=True):
            x = level(crop_to(up(x), skip) + skip)
            decoded.append(x)
        return tuple(decoded)


ARCHITECTURES = {
    "vnet": Architecture((3,), any_size(vnet)),
    "vnet_small": Architecture((3,), any_size(partial(vnet, filters=8))),
}
