"""P-Net of DeepIGeoS: dilated convolutions at full size, with no pooling anywhere."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from semiseg.networks.architecture import Architecture
from semiseg.networks.encoder_decoder import EncoderDecoder
from semiseg.networks.layers import BATCH_NORM, CHANNEL_DROPOUT, CONVOLUTION

DILATIONS = (1, 2, 4, 8, 16)
DROPOUT = 0.3


def pnet(channels: int, classes: int, size: Sequence[int], filters: int = 64) -> EncoderDecoder:
    """Five blocks, all of which the decoder reads; 486,596 parameters for one 2D channel and four classes.

    SSL4MIS (3c2f98b) lets its logits pass a leaky ReLU, which these do not.
    """
    dims = len(size)
    convolution, dropout = CONVOLUTION[dims], CHANNEL_DROPOUT[dims]
    head = nn.Sequential(
        dropout(DROPOUT),
        convolution(2 * filters, filters, 1),
        nn.LeakyReLU(inplace=True),
        dropout(DROPOUT),
        convolution(filters, classes, 1),
    )
    return EncoderDecoder(Encoder(dims, channels, filters), Decoder(dims, filters), head)


def double_conv(dims: int, inputs: int, outputs: int, dilation: int) -> nn.Sequential:
    """Two convolutions of the same dilation, which keep the size."""
    layers: list[nn.Module] = []
    for i, o in pairwise((inputs, outputs, outputs)):
        convolution = CONVOLUTION[dims](i, o, 3, padding=dilation, dilation=dilation)
        layers += [convolution, BATCH_NORM[dims](o), nn.LeakyReLU(inplace=True)]
    return nn.Sequential(*layers)


class Encoder(nn.Module):
    """Blocks of growing reach, each on top of the one before; all their maps have the size of the images."""

    def __init__(self, dims: int, channels: int, filters: int) -> None:
        super().__init__()
        inputs = (channels, *[filters] * (len(DILATIONS) - 1))
        self.blocks = nn.ModuleList(double_conv(dims, i, filters, d) for i, d in zip(inputs, DILATIONS, strict=True))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = [images]
        for block in self.blocks:
            features.append(block(features[-1]))
        return tuple(features[1:])


class Decoder(nn.Module):
    """One map from all those of the encoder, by two 1×1 convolutions."""

    def __init__(self, dims: int, filters: int) -> None:
        super().__init__()
        inputs, convolution = len(DILATIONS) * filters, CONVOLUTION[dims]
        self.fuse = nn.Sequential(
            convolution(inputs, inputs, 1),
            nn.LeakyReLU(inplace=True),
            convolution(inputs, 2 * filters, 1),
            nn.LeakyReLU(inplace=True),
        )

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return (self.fuse(torch.cat(tuple(features), dim=1)),)


ARCHITECTURES = {
    "pnet": Architecture((2, 3), pnet),
    "pnet_small": Architecture((2, 3), partial(pnet, filters=16)),
}
