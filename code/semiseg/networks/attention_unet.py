"""The 3D attention U-Net of SSL4MIS: coarser levels gate the skip connections, and every level has a head."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semiseg.networks.alignment import crop_to, pad_to_even
from semiseg.networks.architecture import Architecture
from semiseg.networks.encoder_decoder import EncoderDecoder
from semiseg.networks.unet_3d import WIDTHS, double_conv, unet_3d


def attention_unet(channels: int, classes: int, size: Sequence[int], widths: Sequence[int] = WIDTHS) -> EncoderDecoder:
    """The 3D U-Net with gates and deep heads; 6,469,328 parameters for one channel and two classes."""
    encoder = unet_3d(channels, classes, size, widths).encoder
    return EncoderDecoder(encoder, Decoder(classes, widths), nn.Conv3d((len(widths) - 1) * classes, classes, 1))


def enlarge(x: Tensor, reference: Tensor, factor: int = 2) -> Tensor:
    """Interpolate to the size of `reference`, a map whose stride is smaller by `factor`."""
    return crop_to(F.interpolate(x, scale_factor=factor, mode="trilinear"), reference)


class Gate(nn.Module):
    """Weights each position of a skip connection between 0 and 1, in agreement with the next coarser level.

    attention = sigmoid(psi(relu(theta(skip) + phi(signal)))), calculated at the positions of the signal.
    """

    def __init__(self, width: int, signal: int) -> None:
        super().__init__()
        self.theta = nn.Conv3d(width, width, 2, stride=2, bias=False)
        self.phi = nn.Conv3d(signal, width, 1)
        self.psi = nn.Conv3d(width, 1, 1)
        self.output = nn.Sequential(nn.Conv3d(width, width, 1), nn.BatchNorm3d(width))

    def forward(self, skip: Tensor, signal: Tensor) -> Tensor:
        agreement = F.relu(self.theta(pad_to_even(skip)) + self.phi(signal))
        attention = torch.sigmoid(self.psi(agreement))
        return self.output(enlarge(attention, skip) * skip)


class GatePair(nn.Module):
    """Two gates of the same skip connection, which may attend to different things."""

    def __init__(self, width: int, signal: int) -> None:
        super().__init__()
        self.gates = nn.ModuleList(Gate(width, signal) for _ in range(2))
        self.combine = nn.Sequential(nn.Conv3d(2 * width, width, 1), nn.BatchNorm3d(width), nn.ReLU(inplace=True))

    def forward(self, skip: Tensor, signal: Tensor) -> Tensor:
        return self.combine(torch.cat([gate(skip, signal) for gate in self.gates], dim=1))


class Decoder(nn.Module):
    """Gated skip connection, trilinear upsampling, block; level by level, with a head on each.

    The last map holds the logits of all these heads at full size, which the network's own head fuses. The finest
    skip connection has no gate.
    """

    def __init__(self, classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        *coarser, finest = pairwise(reversed(widths))
        self.signal = nn.Sequential(
            nn.Conv3d(widths[-1], widths[-1], 1), nn.InstanceNorm3d(widths[-1]), nn.ReLU(inplace=True)
        )
        self.gates = nn.ModuleList(GatePair(fine, coarse) for coarse, fine in coarser)
        self.blocks = nn.ModuleList(double_conv(coarse + fine, fine) for coarse, fine in coarser)
        self.finest = double_conv(sum(finest), finest[1])
        self.heads = nn.ModuleList(nn.Conv3d(width, classes, 1) for width in widths[:-1])

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        finest, *skips, x = features
        signal = self.signal(x)
        decoded = []
        for gate, block, skip in zip(self.gates, self.blocks, reversed(skips), strict=True):
            x = signal = block(torch.cat((gate(skip, signal), enlarge(x, skip)), dim=1))
            decoded.append(x)
        x = self.finest(torch.cat((finest, enlarge(x, finest)), dim=1))
        maps = zip(self.heads, (x, *reversed(decoded)), strict=True)
        logits = [enlarge(head(x), finest, 2**level) for level, (head, x) in enumerate(maps)]
        return (*decoded, torch.cat(logits, dim=1))


ARCHITECTURES = {
    "attention_unet": Architecture((3,), attention_unet),
    "attention_unet_small": Architecture((3,), partial(attention_unet, widths=(8, 16, 32, 64, 96))),
}
