"""Choosing one of the feature maps that an encoder offers, and heads that read it."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import log2
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from semiseg.errors import UserError
from semiseg.networks.alignment import enlarge_to
from semiseg.networks.encoder_decoder import predict
from semiseg.networks.layers import CONVOLUTION, LINEAR


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
    maps = predict(network, torch.zeros(1, channels, *size)).encoder
    axis = max(range(len(size)), key=lambda k: size[k])  # a short one is not halved as often, or less exactly
    strides = [2 ** round(log2(size[axis] / m.shape[2 + axis])) for m in maps]  # sizes are rounded up
    if wanted == "auto":
        position = max((i for i, m in enumerate(maps) if m[0, 0].numel() >= positions), default=0)
    elif wanted == "first":
        position = 0
    elif wanted in strides:
        position = strides.index(wanted)
    else:
        raise UserError(f"feature_level {wanted} is none of the encoder's strides {strides}; choose one of them.")
    return FeatureLevel(position, maps[position].shape[1])


class DenseFeatures(nn.Module):
    """All feature maps at once, at the size of the finest: 1×1 convolutions, each added to what it reads, but the last.

    Args:
        dims: 2 or 3.
        widths: channels of the maps, from the coarsest to the finest.
    """

    def __init__(self, dims: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.channels, self.mode = sum(widths), LINEAR[dims]
        self.convolutions = nn.ModuleList(CONVOLUTION[dims](n, n, 1, bias=False) for n in accumulate(widths))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """(batch, width, *space) each to (batch, sum of widths, *space of the finest)."""
        x = maps[0]
        for convolution, finer in zip(self.convolutions[:-1], maps[1:], strict=True):
            x = enlarge_to(convolution(x) + x, finer.shape[2:], self.mode)
            x = torch.cat([x, finer], 1)
        features: Tensor = self.convolutions[-1](x)
        return features


def pointwise_head(dims: int, *widths: int) -> nn.Sequential:
    """1×1 convolutions from the first width to the last, with ReLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [CONVOLUTION[dims](inputs, outputs, 1), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
