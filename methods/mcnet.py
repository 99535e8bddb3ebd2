"""MC-Net+: decoders that upsample differently agree with each other's sharpened predictions."""

import copy
from collections.abc import Sequence
from itertools import pairwise, permutations
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from semiseg.losses import in_full_precision, supervised_loss
from semiseg.method import Batch, Method, Paper, Progress, predict
from semiseg.networks import unet, unet_3d
from semiseg.networks.alignment import crop_to
from semiseg.networks.layers import CONVOLUTION, LINEAR, TRANSPOSED

Upsampling = Literal["transposed", "linear", "nearest"]
BLOCKS = {2: unet.double_conv, 3: unet_3d.double_conv}


class MutualConsistency(Method):
    """One encoder, the network's own decoder, and one more for each further way of upsampling.

    Every prediction of every image, labelled or not, is pulled towards every other one, whose probabilities are
    sharpened; the gradient reaches both sides, as in the authors' code (ycwu1997/MC-Net, fee453c). Of its three ways,
    transposed convolutions, linear interpolation and the nearest neighbour, the network's own decoder has one of the
    first two, and the additional decoders have the others. They stand on any backbone: a U-Net's decoder that reads
    the encoder's maps. Where the network has dropout beyond its encoder, as in 3D, they have the same for the coarsest
    map and before the head. They rest in prediction; the network's own is reported.

    Sharpening and weights are the code's for ACDC: a temperature of 0.1, and a weight of 0.1 that rises over the
    training (LA: 1, over 6,000 of 15,000 steps, and half of the supervised loss). The code sharpens each of several
    classes against its complement, so that the result is no distribution (`sharpening: classes` is one); for two
    classes both are the same. It computes the cross-entropy and leaves it out of the loss; here the supervised loss is
    the suite's, ½ (cross-entropy + Dice). Both are sums, as there: over N decoders, each of which gets the full
    gradient of its labels, and over the N (N − 1) pairs of them.
    """

    title = "MC-Net+"
    paper = Paper(
        "Mutual consistency learning for semi-supervised medical image segmentation",
        "Wu, Ge, Zhang, Xu, Zhang, Xia and Cai",
        "MedIA 2022",
    )
    space: ClassVar = {"consistency": (0.1, 0.5, 1.0), "ramp_up": (0.4, 1.0), "temperature": (0.1, 0.5)}

    class Config(Method.Config):
        consistency: float = Field(0.1, ge=0)  # weight at full ramp
        ramp_up: float = Field(1.0, gt=0, le=1)  # fraction of the training after which the weight is full
        temperature: float = Field(0.1, gt=0, le=1)  # of the sharpening
        sharpening: Literal["complement", "classes"] = "complement"

    def build(self) -> None:
        task = self.task
        self.segmenter = self.network()
        levels = predict(self.segmenter, torch.zeros(1, task.channels, *task.size)).encoder
        transposes = any(isinstance(m, nn.ConvTranspose2d | nn.ConvTranspose3d) for m in self.segmenter.modules())
        kinds: list[Upsampling] = ["linear" if transposes else "transposed", "nearest"]
        beyond = (m for name, part in self.segmenter.named_children() if name != "encoder" for m in part.modules())
        dropout = next((m for m in beyond if isinstance(m, nn.Dropout | nn.Dropout2d | nn.Dropout3d)), nn.Identity())
        self.auxiliary = nn.ModuleList(Decoder(levels, task.classes, kind, dropout) for kind in kinds)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        output = self.segmenter(batch.images())
        size = batch.images().shape[2:]
        logits = [output.logits, *(decoder(output.encoder, size) for decoder in self.auxiliary)]
        supervised = torch.stack([supervised_loss(batch.split(each)[0], batch.labels) for each in logits]).sum()
        distance = mutual_consistency(torch.stack(logits), self.config.temperature, self.config.sharpening)
        pairs = len(logits) * (len(logits) - 1)
        weight = self.config.consistency * progress.ramp_up(self.config.ramp_up) * pairs
        return {"supervised": supervised, "consistency": weight * distance}

    def predictors(self) -> dict[str, nn.Module]:
        return {"main": self.segmenter}


class Decoder(nn.Module):
    """A U-Net's decoder for the maps of any encoder."""

    def __init__(self, levels: Sequence[Tensor], classes: int, upsampling: Upsampling, dropout: nn.Module) -> None:
        super().__init__()
        dims = levels[0].ndim - 2
        self.dropout = copy.deepcopy(dropout)
        self.linear = LINEAR[dims]
        up, blocks = [], []
        for coarse, fine in pairwise(reversed(levels)):
            width = fine.shape[1]
            scale = tuple(-(-f // c) for f, c in zip(fine.shape[2:], coarse.shape[2:], strict=True))
            if upsampling == "transposed":
                up.append(TRANSPOSED[dims](coarse.shape[1], width, scale, scale))
            else:
                reduce = CONVOLUTION[dims](coarse.shape[1], width, 1)
                mode = LINEAR[dims] if upsampling == "linear" else upsampling
                up.append(nn.Sequential(reduce, nn.Upsample(scale_factor=tuple(map(float, scale)), mode=mode)))
            blocks.append(BLOCKS[dims](2 * width, width))
        self.up, self.blocks = nn.ModuleList(up), nn.ModuleList(blocks)
        self.head = CONVOLUTION[dims](levels[0].shape[1], classes, 3, padding=1)

    def forward(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Maps as in `Output.encoder` to logits (batch, classes, *size) in float32."""
        *skips, x = features
        x = self.dropout(x)
        for up, block, skip in zip(self.up, self.blocks, reversed(skips), strict=True):
            x = block(torch.cat((skip, crop_to(up(x), skip)), dim=1))
        logits = self.head(self.dropout(x)).float()
        return logits if logits.shape[2:] == size else F.interpolate(logits, tuple(size), mode=self.linear)


@in_full_precision
def mutual_consistency(logits: Tensor, temperature: float, sharpening: str) -> Tensor:
    """Mean over ordered pairs i ≠ j of mean((p_i − s(p_j))²), p the softmax of (N, batch, C, *space) logits.

    s(p) = p^{1/T} / (p^{1/T} + r) for each class, where r is (1 − p)^{1/T} (`complement`), or the sum of the other
    classes' p^{1/T} (`classes`). Both are taken from logarithms, since a power of 10 may underflow.
    """
    log_p = logits.log_softmax(2)
    p = log_p.exp()
    if sharpening == "classes":
        sharp = (log_p / temperature).softmax(2)
    else:
        sharp = ((log_p - torch.log1p(-p.clamp(max=1 - 1e-6))) / temperature).sigmoid()
    return torch.stack([(p[i] - sharp[j]).square().mean() for i, j in permutations(range(len(p)), 2)]).mean()
