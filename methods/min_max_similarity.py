"""Min-Max Similarity: two networks agree on unlabelled images and keep labelled images apart."""

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from semiseg.losses import (
    at_positions,
    attraction_loss,
    one_hot,
    one_vs_rest,
    repulsion_loss,
    sample_positions,
    similarities,
    structure_loss,
)
from semiseg.method import Batch, Method, Paper, Progress, jointly
from semiseg.networks.layers import BATCH_NORM, CONVOLUTION, MAX_POOL

Loss = Callable[[Tensor], Tensor]


class MinMaxSimilarity(Method):
    """Each network learns from its own half of the labels; consistency and contrast tie them together.

    Beside supervision there are mutual consistency on unlabelled images (shown in the strong view alone), similarity
    of the two networks' features at the same position (maximized) and of features of different labelled images
    (minimized). In the reference code the consistency has no gradient, the heads are not trained and only the
    first network receives contrastive gradients; here all of them learn, and features have unit L2 norm.
    Classes are treated one against the rest, which for two classes is the paper's binary task.

    The published IoU between two soft maps is not least where they agree and makes structures grow
    (`consistency_form: product`); `agreement` is, and rises along a ramp, without which it holds networks that predict
    nothing where they are. The paper weighs all four terms by ¼, which Adam does not feel and SGD turns into a rate
    of a quarter: here each network gets the full gradient of its labels, and the others weigh 1 in proportion to it.
    The first network is reported, which is fixed beforehand; the second and their mean stand beside it.

    Heads halve their maps three times, so images need 8 positions along every axis, in 3D too.

    The suite's geometry, strong view and SGD take the place of the paper's own and of Adam. The window of the
    structure loss, 31 pixels of 512 × 288, grows and shrinks with the image: 31 pixels of 64 × 64 would weight all of a
    small structure instead of its boundary. The paper's frames all show a tool; an image without the structure, such
    as a slice beyond an organ, adds no overlap term here, which would drive the network to predict nothing at all.
    """

    title = "Min-Max Similarity"
    paper = Paper(
        "Min-Max Similarity: A Contrastive Semi-Supervised Deep Learning Network for Surgical Tools Segmentation",
        "Lou, Tawfik, Yao, Liu and Noble",
        "IEEE TMI 2023",
    )
    networks = 2
    views = ("plain", "strong")
    labeled_parts = 2
    space: ClassVar = {"consistency": (0.1, 0.3, 1.0), "ramp_up": (0.0, 0.4, 1.0), "minimize": (0.0, 1.0)}

    class Config(Method.Config):
        consistency: float = Field(1.0, ge=0)  # weight at full ramp, in proportion to supervision
        consistency_form: Literal["agreement", "product"] = "agreement"  # of the IoU between two predictions
        ramp_up: float = Field(0.4, ge=0, le=1)  # fraction of the training after which the consistency counts in full
        maximize: float = Field(1.0, ge=0)  # weight of similarity at the same position
        minimize: float = Field(1.0, ge=0)  # weight of similarity between different images
        temperature: float = Field(0.07, gt=0)
        positions: int = Field(1024, ge=2)  # sampled per image
        window: float = Field(31 / math.sqrt(512 * 288), gt=0, le=1)  # of the structure loss, relative to the image

    def build(self) -> None:
        side = math.prod(self.task.size) ** (1 / self.task.dims)
        self.window = max(3, 2 * round((self.config.window * side - 1) / 2) + 1)  # odd
        self.segmenters = nn.ModuleList(self.network() for _ in range(2))
        self.projectors = nn.ModuleList(self.head(8, 16, out=16) for _ in range(2))
        self.classifiers = nn.ModuleList(self.head(8, 16, 32, out=32) for _ in range(2))

    def head(self, *widths: int, out: int) -> nn.Sequential:
        """Convolutions that read logit maps, each halving the resolution, then a linear map to `out`."""
        dims = self.task.dims
        layers: list[nn.Module] = []
        previous = self.task.classes - 1
        for width in widths:
            layers += [CONVOLUTION[dims](previous, width, 3, padding=1), BATCH_NORM[dims](width)]
            layers += [nn.ReLU(), MAX_POOL[dims](2)]
            previous = width
        return nn.Sequential(*layers, CONVOLUTION[dims](previous, out, 1))

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        halves = zip(batch.labeled().chunk(2), one_hot(batch.labels, self.task.classes)[:, 1:].chunk(2), strict=True)
        unlabeled = batch.unlabeled("strong")
        supervised, labeled_maps, unlabeled_maps = [], [], []
        for segmenter, (images, labels) in zip(self.segmenters, halves, strict=True):
            maps = one_vs_rest(segmenter(torch.cat([images, unlabeled])).logits)
            labeled_maps.append(maps[: len(images)])
            unlabeled_maps.append(maps[len(images) :])
            supervised.append(structure_loss(labeled_maps[-1], labels, self.window))
        config = self.config
        return {
            "supervised": torch.stack(supervised).sum(),  # of different networks: neither gets less than its own
            "consistency": config.consistency * progress.ramp_up(config.ramp_up) * self.consistency(*unlabeled_maps),
            "maximize": config.maximize * self.contrast(self.projectors, unlabeled_maps, attraction_loss),
            "minimize": config.minimize * self.contrast(self.classifiers, labeled_maps, repulsion_loss),
        }

    def consistency(self, first: Tensor, second: Tensor) -> Tensor:
        """How far each network's maps are from the other's, which get no gradient."""
        pairs = ((first, second), (second, first))
        losses = [structure_loss(a, b.detach().sigmoid(), self.window, self.config.consistency_form) for a, b in pairs]
        return torch.stack(losses).sum()

    def contrast(self, heads: nn.ModuleList, maps: list[Tensor], loss: Loss) -> Tensor:
        """A contrastive loss between the networks' features, mean of both directions; keys get no gradient."""
        a, b = (head(logits) for head, logits in zip(heads, maps, strict=True))
        positions = sample_positions(a, self.config.positions)
        a, b = at_positions(a, positions), at_positions(b, positions)
        temperature = self.config.temperature
        return 0.5 * (loss(similarities(a, b.detach(), temperature)) + loss(similarities(b, a.detach(), temperature)))

    def predictors(self) -> dict[str, nn.Module]:
        return jointly(list(self.segmenters))
