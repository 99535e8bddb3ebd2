"""ABD: cross teaching on images whose least certain patches came from the other network's view, and back."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from semiseg.displacement import certainty, displaced, exchanged
from semiseg.losses import supervised_loss
from semiseg.method import Batch, Paper, Progress

from .cross_teaching import CrossTeaching


class AdaptiveBidirectionalDisplacement(CrossTeaching):
    """Two networks, each on its own view, and both on views that exchanged a patch of a 4×4 grid (4×4×4 in 3D).

    The first network sees images plainly, the second the strong view of the same. In an unlabelled image, the patch of
    which a network is least sure (by the mean of the largest probability) is replaced by one of the four of which
    the other is surest in its view: that whose class distribution, the softmax of mean logits, is nearest by KL. In
    half of the labelled ones the surest patch, with its labels, is replaced by that of which the other is least
    sure. Both networks learn from both displaced views: from each other's labels, and in the first two thirds of
    the training, at twice the weight, from the true ones. All this comes on top of cross teaching, which it leaves
    as it is.

    Weights are those of the code (chy-upc/ABD, 4efd525), for 30,000 steps of 8 + 8 images of 224×224. That walks
    through the unlabelled images by the number of labelled ones, so that further ones keep their patches, and a patch
    of the second view may come from a first one that has its new patch already; here all are displaced, from views as
    they were. It feeds labelled and unlabelled displaced images apart, here they form one batch. Half of its strong
    images have a box of noise, labelled as background; the suite's views share their labels. What the paper adds to
    BCP, the same displacement between the mixtures of two networks, is `abd_bcp`. The convolutional network is
    reported.
    """

    title = "ABD"
    paper = Paper(
        "Adaptive Bidirectional Displacement for Semi-Supervised Medical Image Segmentation",
        "Chi, Pang, Zhang and Liu",
        "CVPR 2024",
    )
    views: Sequence[str] = ("plain", "strong")
    divisible = False
    space: ClassVar = {**CrossTeaching.space, "displaced": (0.5, 2.0)}

    class Config(CrossTeaching.Config):
        parts: int = Field(4, ge=2)  # patches along every axis
        surest: int = Field(4, ge=1)  # patches among which one is taken
        displaced: float = Field(2.0, ge=0)  # weight of displaced labelled images
        until: float = Field(2 / 3, ge=0, le=1)  # fraction of the training with them
        probability: float = Field(0.5, ge=0, le=1)  # with which a labelled image is displaced

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        views = [batch.split(batch.images(view)) for view in self.views]
        first, second = self.first(batch.images("plain")).logits, self.second(batch.images("strong")).logits
        labeled, unlabeled = zip(batch.split(first), batch.split(second), strict=True)
        weight = self.config.cross * progress.ramp_up(self.config.ramp_up)
        losses = {
            "supervised_1": supervised_loss(labeled[0], batch.labels),
            "supervised_2": supervised_loss(labeled[1], batch.labels),
            "cross_1": weight * self.cross_loss(unlabeled[0], unlabeled[1].argmax(1)),
            "cross_2": weight * self.cross_loss(unlabeled[1], unlabeled[0].argmax(1)),
        }
        free = [u for _, u in views]
        always = torch.ones(len(free[0]), dtype=torch.bool, device=free[0].device)
        images = exchanged(free, unlabeled, self.config.parts, self.config.surest, always)
        labels = batch.labels[:0]
        if progress.fraction < self.config.until:
            examples, labels = self.displaced_labeled([x for x, _ in views], labeled, batch.labels)
            images = torch.cat([examples, images])
        outputs = [network(images).logits for network in (self.first, self.second)]
        pseudo = [x[len(labels) :].argmax(1) for x in outputs]
        for number, (x, other) in enumerate(zip(outputs, reversed(pseudo), strict=True), start=1):
            losses[f"cross_displaced_{number}"] = weight * self.cross_loss(x[len(labels) :], other)
            if len(labels):
                loss = supervised_loss(x[: len(labels)], labels)
                losses[f"supervised_displaced_{number}"] = self.config.displaced * loss
        return losses

    @torch.no_grad()
    def displaced_labeled(
        self, views: Sequence[Tensor], logits: Sequence[Tensor], labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both views of the labelled images and their labels, some with the patch that the other network doubts."""
        parts, sure = self.config.parts, [certainty(x, self.config.parts) for x in logits]
        chosen = torch.rand(len(labels), device=labels.device) < self.config.probability
        images, targets = [], []
        for own, other in ((0, 1), (1, 0)):
            place, source = sure[own].argmax(1), sure[other].argmin(1)
            images.append(displaced(views[own], place, views[other], source, parts, chosen))
            targets.append(displaced(labels[:, None], place, labels[:, None], source, parts, chosen)[:, 0])
        return torch.cat(images), torch.cat(targets)
