"""A U-Net on the first three stages of Res2Net-50 (v1b, 26w × 4s), the backbone of Mutual Exemplar.

No paper states the decoder, so ours is as plain as can be: a 1×1 convolution, bilinear upsampling, the skip
connection, a residual block. The last stage of Res2Net (stride 32) has no place in a network whose coarsest
level has stride 16. Res2Net starts at stride 2; one convolution supplies the skip connection at full size.
The first batch norm absorbs the scale of the images, so ImageNet weights also serve images in [0, 1].
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semiseg.networks.architecture import Architecture, any_size
from semiseg.networks.encoder_decoder import EncoderDecoder
from semiseg.networks.layers import ResidualBlock, conv
from semiseg.networks.pretrained import load_encoder
from semiseg.networks.unet import Decoder

SCALE = 4  # groups of channels in a Res2Net block
EXPANSION = 4  # width of a stage over the planes of its blocks


def res2net_unet(
    channels: int,
    classes: int,
    depths: Sequence[int] = (3, 4, 6),
    planes: int = 64,
    base_width: int = 26,
    widths: Sequence[int] = (32, 64, 128, 256),
) -> EncoderDecoder:
    """Res2Net encoder, residual decoder.

    Args:
        channels: channels of the images.
        classes: classes of the logits.
        depths: blocks of each stage of Res2Net.
        planes: planes of the first stage; the further ones double.
        base_width: channels of one group of a block, for 64 planes.
        widths: channels of the decoder from the finest to the coarsest level.
    """
    encoder = Encoder(channels, widths[0] // 2, depths, planes, base_width)
    *skips, deepest = encoder.widths
    blocks = (ResidualBlock(s + w, w) for s, w in zip(reversed(skips), reversed(widths), strict=True))
    return EncoderDecoder(encoder, Decoder((deepest, *reversed(widths)), blocks), nn.Conv2d(widths[0], classes, 1))


def load_imagenet(network: EncoderDecoder, path: Path) -> None:
    """Start the encoder from a file with the names of `res2net50_v1b_26w_4s`; its classifier is left out."""
    load_encoder(network.encoder, path, stem="conv1.0.weight", new=("full.",), unused=("layer4.", "fc."))


class Res2NetBlock(nn.Module):
    """A bottleneck whose 3×3 convolution is split into groups, each fed by the one before it.

    Attribute names are those of the published weights.
    """

    def __init__(self, inputs: int, planes: int, base_width: int, stride: int, first: bool) -> None:
        super().__init__()
        width, outputs = planes * base_width // 64, planes * EXPANSION
        self.first = first
        self.conv1 = conv(inputs, width * SCALE, 1)
        self.bn1 = nn.BatchNorm2d(width * SCALE)
        self.convs = nn.ModuleList(conv(width, width, stride=stride) for _ in range(SCALE - 1))
        self.bns = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(SCALE - 1))
        self.conv3 = conv(width * SCALE, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.pool = nn.AvgPool2d(3, stride, padding=1) if first else nn.Identity()
        self.downsample = (
            nn.Sequential(
                nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False),
                conv(inputs, outputs, 1),
                nn.BatchNorm2d(outputs),
            )
            if first
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        *groups, last = F.relu(self.bn1(self.conv1(x)), inplace=True).chunk(SCALE, dim=1)
        outputs: list[Tensor] = []
        for group, convolution, norm in zip(groups, self.convs, self.bns, strict=True):
            # The first block of a stage changes the size, so its groups cannot be added to each other.
            joined = group if self.first or not outputs else group + outputs[-1]
            outputs.append(F.relu(norm(convolution(joined)), inplace=True))
        outputs.append(self.pool(last))
        return F.relu(self.bn3(self.conv3(torch.cat(outputs, dim=1))) + self.downsample(x), inplace=True)


class Encoder(nn.Module):
    """Full-size convolution, stem (stride 2) and stages (4, 8, 16); `widths` lists their channels."""

    def __init__(self, channels: int, full_width: int, depths: Sequence[int], planes: int, base_width: int) -> None:
        super().__init__()
        self.full = nn.Sequential(conv(channels, full_width), nn.BatchNorm2d(full_width), nn.ReLU(inplace=True))
        half = planes // 2
        self.conv1 = nn.Sequential(
            conv(channels, half, stride=2),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            conv(half, half),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            conv(half, planes),
        )
        self.bn1 = nn.BatchNorm2d(planes)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.widths = [full_width, planes]
        stages = []
        for number, depth in enumerate(depths):
            stage_planes = planes * 2**number
            blocks = [Res2NetBlock(self.widths[-1], stage_planes, base_width, 2 if number else 1, first=True)]
            self.widths.append(stage_planes * EXPANSION)
            for _ in range(depth - 1):
                blocks.append(Res2NetBlock(self.widths[-1], stage_planes, base_width, 1, first=False))
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = stages

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        stem = F.relu(self.bn1(self.conv1(images)), inplace=True)
        fine = self.layer1(self.maxpool(stem))
        middle = self.layer2(fine)
        return self.full(images), stem, fine, middle, self.layer3(middle)


ARCHITECTURES = {
    "res2net50_unet": Architecture((2,), any_size(res2net_unet), load_imagenet),
    "res2net50_unet_small": Architecture(
        (2,), any_size(partial(res2net_unet, depths=(1, 1, 2), planes=16, base_width=32, widths=(16, 16, 32, 64)))
    ),
}
