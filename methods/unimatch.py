"""UniMatch: what is certain on a weak view holds for two strong views and for perturbed features."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from semiseg.losses import confident_labels, dice_loss, one_hot, supervised_loss
from semiseg.method import Batch, Method, Paper, Progress
from semiseg.perturbations import channel_dropout


class UniMatch(Method):
    """Two independent strong views, with boxes of each other's neighbours, and a stream of perturbed features.

    The unlabelled images are cut into each other within a batch, with the predictions of the same pass; the
    published code predicts another batch for this in evaluation mode. The published loss for medical images is the
    Dice loss on confident pixels, that for natural ones their cross-entropy (`distance`). The sum of the supervised
    loss and of two losses with weights of ½ is divided by the sum of the weights, as in the paper, so the supervised
    gradient is half of what most methods have; without that, one learning rate would not suit both.

    Where few labels make a network miss structures, confident background is what it learns from most.
    """

    title = "UniMatch"
    paper = Paper(
        "Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation",
        "Yang, Qi, Feng, Zhang and Shi",
        "CVPR 2023",
    )
    views = ("weak", "strong", "strong-2")
    brief: ClassVar = {"threshold": 0.4}
    space: ClassVar[dict[str, tuple[Any, ...]]] = {
        "threshold": (0.7, 0.8, 0.9, 0.95),
        "cutmix": (0.5, 1.0),
        "distance": ("dice", "cross_entropy"),
    }

    class Config(Method.Config):
        threshold: float = Field(0.95, ge=0, le=1)  # a pixel is confident from this probability on
        images: float = Field(0.5, ge=0)  # weight of the mean of both strong views
        features: float = Field(0.5, ge=0)  # weight of the perturbed features
        dropout: float = Field(0.5, ge=0, lt=1)  # probability with which a channel of the features is dropped
        perturbed: Literal["unlabeled", "all"] = "unlabeled"  # all: labelled ones move batch statistics, as published
        cutmix: float = Field(0.5, ge=0, le=1)  # probability with which a strong view gets a box of another one
        distance: Literal["dice", "cross_entropy"] = "dice"

    def build(self) -> None:
        self.model = self.network()

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        labeled, weak, perturbed = self.weak_and_perturbed(batch)
        pseudo, confident = confident_labels(weak, self.config.threshold)
        self.note("confident_fraction", confident.mean())
        streams = [self.cut_and_paste(batch.unlabeled(view), pseudo, confident) for view in self.views[1:]]
        strong = self.model(torch.cat([images for images, _, _ in streams])).logits.chunk(2)
        pairs = zip(strong, streams, strict=True)
        image_loss = torch.stack([self.distance(x, target, mask) for x, (_, target, mask) in pairs]).mean()
        images, features = self.config.images, self.config.features
        losses = {
            "supervised": supervised_loss(labeled, batch.labels),
            "images": images * image_loss,
            "features": features * self.distance(perturbed, pseudo, confident),
        }
        return {name: loss / (1 + images + features) for name, loss in losses.items()}

    def weak_and_perturbed(self, batch: Batch) -> tuple[Tensor, ...]:
        """Logits of labelled and unlabelled weak views, and of the latter from features that lost channels."""
        images, count = batch.images("weak"), len(batch.labels)
        features = self.model.encoder(images)
        first = 0 if self.config.perturbed == "all" else count
        both = [torch.cat([level, channel_dropout(level[first:], self.config.dropout)]) for level in features]
        labeled, weak, perturbed = self.model.decode(both, images).logits.tensor_split([count, len(images)])
        return labeled, weak, perturbed[count - first :]

    def cut_and_paste(self, images: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        """Replace a box of every image, and of what belongs to it, by that of its neighbour in the batch."""
        box = random_boxes(images, self.config.cutmix)
        return tuple(torch.where(box, v.roll(1, 0), v) for v in (images, *values))

    def distance(self, logits: Tensor, pseudo: Tensor, confident: Tensor) -> Tensor:
        """Loss against hard labels (batch, 1, *space) where they are confident."""
        if self.config.distance == "dice":
            return dice_loss(logits.softmax(1), one_hot(pseudo[:, 0], self.task.classes), confident)
        return (confident[:, 0] * cross_entropy(logits, pseudo[:, 0], reduction="none")).mean()

    def predictors(self) -> dict[str, nn.Module]:
        return {"network": self.model}


def random_boxes(images: Tensor, probability: float) -> Tensor:
    """True inside one box for each item with the given probability, (batch, 1, *space).

    A box holds 2 to 40 % of the image, at an aspect ratio of 0.3 to 1/0.3 in plane where it fits.
    """
    shape, axes = images.shape[2:], images.ndim - 2

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(len(images), *[1] * (axes + 1), device=images.device).uniform_(low, high)

    side = uniform(0.02, 0.4) ** (1 / axes)
    stretch = uniform(0.3, 1 / 0.3).sqrt()
    inside = uniform(0, 1) < probability
    for axis, length in enumerate(shape):
        factor = {axes - 2: stretch, axes - 1: 1 / stretch}.get(axis, 1)
        extent = (side * factor).clamp(max=1) * length
        start = uniform(0, 1) * (length - extent)
        position = torch.arange(length, device=images.device).view([-1 if a == axis else 1 for a in range(axes)]) + 0.5
        inside = inside & (position >= start) & (position < start + extent)
    return inside
