"""SS-Net: predictions that resist adversarial noise, and features of a class that lie close to its prototypes."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from semiseg.losses import dice_loss, in_full_precision, rows, supervised_loss
from semiseg.method import Batch, Method, Paper, Progress, predict

from .deep_co_training import running_statistics_kept


class SmoothnessAndSeparation(Method):
    """Smooth: the Dice loss between the predictions for an image and for it with the noise that changes them most.

    Separate: projected features (of the decoder's last map) of a class are drawn to vectors of that class, the best
    pixels of labelled images, weighted by learned attention on both sides. The mean over all pairs of w_i v_k (1 −
    q_i·m_k) with weights of mean 1 is one minus the product of two weighted means, which is what is computed.
    Labelled pixels count by their labels, others by the prediction. Both terms concern all images and share a ramp.

    The code (ycwu1997/SS-Net, c0a8bf6) measures the noise by its norm in an image: 6 at 256×256 (10 at 112×112×80),
    from a first guess of 10. Here it is the root mean square of a pixel, so that it does not depend on the size. It
    keeps the 32 vectors of a class that attention ranks lowest, because it sorts upwards; here those ranked highest, as
    its comment says. Its weights of these vectors are normalized over a single row and so are all 1; here they count.
    It never keeps the background, which has no prototypes here either, but counts as a class in the mean. Its loss of
    the labels is Dice alone, here ½ (cross-entropy + Dice) as for all methods; its attention has a batch norm, which
    needs two vectors. It projects labelled and unlabelled pixels apart, and those to keep in evaluation mode; here one
    pass in training mode serves all three. From the first step that shows a class all its labelled pixels can be kept,
    and stay until some are predicted rightly. Weight, ramp and noise are its own for ACDC; for the left atrium they are
    1, 6,000 of 15,000 steps, and 0.01 for noise and guess alike.
    """

    title = "SS-Net"
    paper = Paper(
        "Exploring Smoothness and Class-Separation for Semi-supervised Medical Image Segmentation",
        "Wu, Wu, Wu, Ge and Cai",
        "MICCAI 2022",
    )
    space: ClassVar = {"consistency": (0.1, 1.0, 5.0), "ramp_up": (0.4, 1.0), "magnitude": (0.01, 6 / 256)}

    class Config(Method.Config):
        consistency: float = Field(0.1, ge=0)  # weight of both terms at full ramp
        ramp_up: float = Field(1.0, ge=0, le=1)  # fraction of the training after which the weight is full
        magnitude: float = Field(6 / 256, gt=0)  # of the noise, per pixel; image range is 1
        guess: float = Field(10 / 256, gt=0)  # magnitude of the random noise whose gradient gives the direction
        separation: float = Field(0.1, ge=0)  # relative to the smoothness
        vectors: int = Field(32, ge=1)  # kept of each class
        width: int = Field(32, ge=1)  # of projected features

    memory: Tensor
    known: Tensor

    def build(self) -> None:
        task, width, kept = self.task, self.config.width, self.config.vectors
        self.segmenter = self.network()
        features = predict(self.segmenter, torch.zeros(1, task.channels, *task.size)).decoder[-1]
        self.projection, self.prediction = projector(features.shape[1], width), projector(width, width)
        foreground = range(task.classes - 1)
        self.attention = nn.ModuleList(attention(width) for _ in foreground)
        self.memory_attention = nn.ModuleList(attention(width) for _ in foreground)
        self.register_buffer("memory", torch.zeros(len(foreground), kept, width))
        self.register_buffer("known", torch.zeros(len(foreground), kept))

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        output = self.segmenter(batch.images())
        labeled, unlabeled = batch.split(output.logits)
        projected = self.projection(rows(output.decoder[-1]))
        said, predicted = (at_features(x.argmax(1), output.decoder[-1]) for x in (labeled, unlabeled))
        labels = at_features(batch.labels, output.decoder[-1])
        self.remember(projected[: len(labels)].detach().float(), labels, said == labels)
        queries = self.prediction(projected)
        separation = self.separation(queries[: len(labels)], labels) + self.separation(
            queries[len(labels) :], predicted
        )
        weight = self.config.consistency * progress.ramp_up(self.config.ramp_up)
        return {
            "supervised": supervised_loss(labeled, batch.labels),
            "smoothness": weight * self.roughness(batch.images(), output.logits.detach().softmax(1)),
            "separation": weight * self.config.separation * separation,
        }

    def roughness(self, images: Tensor, target: Tensor) -> Tensor:
        """The Dice loss of the prediction for the images with adversarial noise."""
        with running_statistics_kept(self.segmenter):
            noise = (self.config.guess * scaled(torch.rand_like(images) - 0.5)).requires_grad_()
            distance = dice_loss(self.segmenter(images + noise).logits.softmax(1), target)
            (gradient,) = torch.autograd.grad(distance, noise)
            noise = self.config.magnitude * scaled(gradient)
            return dice_loss(self.segmenter(images + noise).logits.softmax(1), target)

    @torch.no_grad()
    def remember(self, projected: Tensor, labels: Tensor, right: Tensor) -> None:
        """Keep the vectors of rightly predicted pixels that attention ranks highest; (N, width), (N,) and (N,)."""
        number = min(self.config.vectors, len(labels))
        for index, attention in enumerate(self.attention):
            rank = attention(projected)[:, 0].float()
            can = (labels == index + 1) & (right | (self.known[index].sum() == 0))
            values, places = rank.masked_fill(~can, -torch.inf).topk(number)
            new = values.isfinite().any()
            self.memory[index, :number] = torch.where(new, projected[places], self.memory[index, :number])
            self.known[index, :number] = torch.where(new, values.isfinite().float(), self.known[index, :number])

    def separation(self, queries: Tensor, labels: Tensor) -> Tensor:
        """The weighted mean of 1 − cos to the kept vectors of its class, (N, width) and (N,), over all classes."""
        losses = []
        for index, (own, of_memory) in enumerate(zip(self.attention, self.memory_attention, strict=True)):
            member = (labels == index + 1).float()
            kept = F.normalize(self.memory[index], dim=1)
            here = direction(queries, member * own(queries.detach())[:, 0].sigmoid())
            there = direction(kept, self.known[index] * of_memory(kept)[:, 0].sigmoid())
            losses.append((1 - here @ there) * (member.any() & self.known[index].any()))
        return torch.stack(losses).sum() / self.task.classes

    def predictors(self) -> dict[str, nn.Module]:
        return {"network": self.segmenter}


def projector(inputs: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width))


def attention(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(0.2), nn.Linear(width, 1))


def at_features(labels: Tensor, features: Tensor) -> Tensor:
    """(batch, *space) classes at the positions of a map, the nearest ones; flat."""
    return F.interpolate(labels[:, None].float(), features.shape[2:], mode="nearest").flatten().long()


def scaled(noise: Tensor) -> Tensor:
    """To a root mean square of 1, image by image."""
    return noise / noise.square().flatten(1).mean(1).sqrt().clamp(min=1e-12).view(-1, *[1] * (noise.ndim - 1))


@in_full_precision
def direction(values: Tensor, weights: Tensor) -> Tensor:
    """Σ w_i v_i / ‖v_i‖ over Σ w_i; (N, D) and (N,) to (D,)."""
    return (weights[:, None] * F.normalize(values, dim=1)).sum(0) / weights.sum().clamp(min=1e-8)
