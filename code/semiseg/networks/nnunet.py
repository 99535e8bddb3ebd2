"""The network of nnU-Net: a U-Net whose strides and kernels are planned for the size of the images."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from semiseg.errors import UserError
from semiseg.networks.alignment import crop_to
from semiseg.networks.architecture import Architecture
from semiseg.networks.encoder_decoder import EncoderDecoder
from semiseg.networks.layers import CONVOLUTION, TRANSPOSED

WIDEST = {2: 512, 3: 320}  # channels that no stage exceeds
SHORTEST = 4  # positions below which no axis is halved
POOLINGS = 6
SLOPE = 0.01  # of the leaky ReLU


class Plan(NamedTuple):
    """The shape of the network along each axis.

    Attributes:
        strides: 2 where a step to the next coarser stage halves an axis, else 1; one tuple for each step.
        kernels: sizes of the kernels, 1 or 3; one tuple for each stage, from the finest.
    """

    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]


def nnunet(
    channels: int,
    classes: int,
    size: Sequence[int],
    features: int = 32,
    widest: int | None = None,
    plan: Plan | None = None,
) -> EncoderDecoder:
    """Stages of two convolutions each, strided on the way down and transposed on the way up.

    Args:
        channels: channels of the images.
        classes: classes of the logits.
        size: of the training images; others work, too.
        features: channels of the finest stage; the further ones double.
        widest: channels that no stage exceeds; 512 in 2D and 320 in 3D by default.
        plan: in place of the one made for `size`.
    """
    dims = len(size)
    plan = plan or plan_for(size)
    if not plan.strides:
        raise UserError(
            f"nnunet: images of {' × '.join(map(str, size))} have no axis of {2 * SHORTEST} positions, which is the "
            "least that it halves; use larger ones."
        )
    widths = [min(features * 2**k, widest or WIDEST[dims]) for k in range(len(plan.kernels))]
    head = CONVOLUTION[dims](features, classes, 1, bias=False)
    network = EncoderDecoder(Encoder(dims, channels, widths, plan), Decoder(dims, widths, plan), head)
    for module in network.modules():
        if isinstance(module, _ConvNd):
            nn.init.kaiming_normal_(module.weight, a=SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


def plan_for(size: Sequence[int]) -> Plan:
    """Halve each axis while it keeps four positions, at most six times.

    nnU-Net compares the spacing of the axes. Only their lengths are known here, so an axis of a volume counts as
    coarse while another one is more than twice as long: it is neither halved nor looked along.
    """
    lengths = list(size)
    strides: list[tuple[int, ...]] = []
    kernels: list[tuple[int, ...]] = []
    while True:
        # In 2D the short side of a picture is no coarser than the long one.
        fine = [len(size) == 2 or 2 * length >= max(lengths) for length in lengths]
        kernels.append(tuple(3 if f else 1 for f in fine))
        stride = tuple(2 if f and length >= 2 * SHORTEST else 1 for f, length in zip(fine, lengths, strict=True))
        if max(stride) == 1 or len(strides) == POOLINGS:
            return Plan(tuple(strides), tuple(kernels))
        strides.append(stride)
        lengths = [-(-length // s) for length, s in zip(lengths, stride, strict=True)]


class InstanceNorm(nn.GroupNorm):
    """Instance norm in any dimension, which leaves its bias where a map has shrunk to a single position.

    Torch's own refuses such a map, and small images must not stop a prediction.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def double_conv(
    dims: int, inputs: int, outputs: int, kernel: tuple[int, ...], stride: tuple[int, ...] | int = 1
) -> nn.Sequential:
    """Two normalized convolutions; the first one changes the size, odd lengths rounded up."""
    padding = tuple(k // 2 for k in kernel)
    return nn.Sequential(
        CONVOLUTION[dims](inputs, outputs, kernel, stride, padding),
        InstanceNorm(outputs),
        nn.LeakyReLU(SLOPE, inplace=True),
        CONVOLUTION[dims](outputs, outputs, kernel, 1, padding),
        InstanceNorm(outputs),
        nn.LeakyReLU(SLOPE, inplace=True),
    )


class Encoder(nn.Module):
    """One block for each stage, the first one at full size."""

    def __init__(self, dims: int, channels: int, widths: Sequence[int], plan: Plan) -> None:
        super().__init__()
        stages = zip(pairwise((channels, *widths)), plan.kernels, ((1,) * dims, *plan.strides), strict=True)
        self.blocks = nn.ModuleList(double_conv(dims, i, o, kernel, stride) for (i, o), kernel, stride in stages)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = [self.blocks[0](images)]
        for block in self.blocks[1:]:
            features.append(block(features[-1]))
        return tuple(features)


class Decoder(nn.Module):
    """Transposed convolution, skip connection, block; a block has the kernel of the stage it comes from."""

    def __init__(self, dims: int, widths: Sequence[int], plan: Plan) -> None:
        super().__init__()
        steps = list(zip(pairwise(widths), plan.strides, plan.kernels[1:], strict=True))[::-1]
        self.up = nn.ModuleList(TRANSPOSED[dims](i, o, s, s, bias=False) for (o, i), s, _ in steps)
        self.blocks = nn.ModuleList(double_conv(dims, 2 * o, o, kernel) for (o, _), _, kernel in steps)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        *skips, x = features
        decoded = []
        for up, block, skip in zip(self.up, self.blocks, reversed(skips), strict=True):
            x = block(torch.cat((crop_to(up(x), skip), skip), dim=1))
            decoded.append(x)
        return tuple(decoded)


ARCHITECTURES = {
    "nnunet": Architecture((2, 3), nnunet),
    "nnunet_small": Architecture((2, 3), partial(nnunet, features=8, widest=96)),
}
