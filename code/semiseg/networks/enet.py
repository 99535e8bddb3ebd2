"""ENet: a 2D network of thin bottlenecks that decodes by putting values back where pooling took them from."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semiseg.errors import UserError
from semiseg.networks.alignment import crop_to, pad_to_even
from semiseg.networks.architecture import Architecture
from semiseg.networks.encoder_decoder import EncoderDecoder

WIDTHS = (16, 64, 128)  # at strides 2, 4 and 8
RATIO = 4  # width of a bottleneck over the width inside it
EARLY_DROPOUT, DROPOUT = 0.01, 0.1  # at stride 4 of the encoder, and everywhere else


class Kernel(NamedTuple):
    """Of one convolution inside a bottleneck."""

    size: tuple[int, int] = (3, 3)
    dilation: int = 1


PLAIN = (Kernel(),)
ASYMMETRIC = (Kernel((5, 1)), Kernel((1, 5)))
DILATED = {dilation: (Kernel(dilation=dilation),) for dilation in (2, 4, 8, 16)}
CONTEXT = (PLAIN, DILATED[2], ASYMMETRIC, DILATED[4], PLAIN, DILATED[8], ASYMMETRIC, DILATED[16])


def enet(channels: int, classes: int, size: Sequence[int], widths: Sequence[int] = WIDTHS) -> EncoderDecoder:
    """Bottlenecks at strides 2, 4 and 8, and a head that doubles; 349,284 parameters for one channel, four classes."""
    if channels >= widths[0]:
        raise UserError(f"ENet, images of {channels} channels: its first block holds {widths[0]}; use another network.")
    head = nn.ConvTranspose2d(widths[0], classes, 3, stride=2, padding=1, output_padding=1, bias=False)
    return EncoderDecoder(Encoder(channels, widths), Decoder(widths), head)


conv = partial(nn.Conv2d, bias=False)  # batch norm follows every convolution but the head's


def branch(
    convolutions: Sequence[nn.Conv2d | nn.ConvTranspose2d], activation: type[nn.Module], dropout: float
) -> nn.Sequential:
    """The long way through a bottleneck; dropout takes whole channels."""
    layers: list[nn.Module] = []
    for convolution in convolutions:
        layers += [convolution, nn.BatchNorm2d(convolution.out_channels), activation()]
    return nn.Sequential(*layers, nn.Dropout2d(dropout))


class Stem(nn.Module):
    """A strided convolution beside max-pooling of the images."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.convolution = conv(channels, width - channels, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.finish = nn.Sequential(nn.BatchNorm2d(width), nn.PReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.finish(torch.cat((self.convolution(images), self.pool(images)), dim=1))


class Bottleneck(nn.Module):
    """Adds to its input what thin convolutions make of it."""

    def __init__(self, width: int, kernels: Sequence[Kernel], activation: type[nn.Module], dropout: float) -> None:
        super().__init__()
        inner = width // RATIO
        middle = [conv(inner, inner, size, padding="same", dilation=dilation) for size, dilation in kernels]
        self.branch = branch([conv(width, inner, 1), *middle, conv(inner, width, 1)], activation, dropout)
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x + self.branch(x))


class Down(nn.Module):
    """A bottleneck that halves the size; its short way is max-pooling, with zeros for the new channels."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        inner = inputs // RATIO
        convolutions = [conv(inputs, inner, 2, stride=2), conv(inner, inner, 3, padding=1), conv(inner, outputs, 1)]
        self.branch = branch(convolutions, nn.PReLU, dropout)
        self.new = outputs - inputs
        self.activation = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        short = F.pad(F.max_pool2d(x, 2, ceil_mode=True), (0, 0, 0, 0, 0, self.new))
        return self.activation(short + self.branch(pad_to_even(x)))


class Up(nn.Module):
    """A bottleneck that doubles the size; its short way puts values where the largest ones of a skip are."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        inner = inputs // RATIO
        up = nn.ConvTranspose2d(inner, inner, 2, stride=2, bias=False)
        self.short = nn.Sequential(conv(inputs, outputs, 1), nn.BatchNorm2d(outputs))
        self.branch = branch([conv(inputs, inner, 1), up, conv(inner, outputs, 1)], nn.ReLU, DROPOUT)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        # Pooling the skip once more costs little, and spares the encoder from handing out positions beside its maps.
        _, positions = F.max_pool2d(skip, 2, ceil_mode=True, return_indices=True)
        short = F.max_unpool2d(self.short(x), positions, [2, 2], output_size=skip.shape[2:])
        return self.activation(short + crop_to(self.branch(x), skip))


class Encoder(nn.Module):
    """Maps at strides 2, 4 and 8, each at the end of its stage, that is before the next pooling."""

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        fine, middle, coarse = widths
        early = (Bottleneck(middle, PLAIN, nn.PReLU, EARLY_DROPOUT) for _ in range(4))
        context = (Bottleneck(coarse, kernels, nn.PReLU, DROPOUT) for kernels in CONTEXT * 2)
        self.stages = nn.ModuleList(
            (
                Stem(channels, fine),
                nn.Sequential(Down(fine, middle, EARLY_DROPOUT), *early),
                nn.Sequential(Down(middle, coarse, DROPOUT), *context),
            )
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = [images]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return tuple(features[1:])


class Decoder(nn.Module):
    """Maps at strides 4 and 2; of the finer maps of the encoder only the positions of maxima matter."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.up = nn.ModuleList((Up(coarse, middle), Up(middle, fine)))
        self.blocks = nn.ModuleList(
            nn.Sequential(*(Bottleneck(width, PLAIN, nn.ReLU, DROPOUT) for _ in range(depth)))
            for width, depth in ((middle, 2), (fine, 1))
        )

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        *skips, x = features
        decoded = []
        for up, block, skip in zip(self.up, self.blocks, reversed(skips), strict=True):
            x = block(up(x, skip))
            decoded.append(x)
        return tuple(decoded)


ARCHITECTURES = {
    "enet": Architecture((2,), enet),
    "enet_small": Architecture((2,), partial(enet, widths=(8, 32, 64))),
}
