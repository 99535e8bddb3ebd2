"""MONA: relations to earlier images are distilled first; then pixels, neighbours and deformations teach a student."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from semiseg.deformation import deform, diffeomorphism, similarity_and_spline
from semiseg.losses import entropy, neighbour_loss, prototype_loss, rows, supervised_loss, weighted_kl
from semiseg.memory import Memory, pick
from semiseg.method import Batch, Method, Paper, Progress, Stage, predict
from semiseg.networks import Output
from semiseg.networks.features import DenseFeatures
from semiseg.perturbations import half_boxes
from semiseg.relations import Description, Earlier, Guess, projection

GRID = 8  # of what is kept of an image's features


class Mona(Method):
    """Two stages on one student and the moving average of it that teaches.

    Relational distillation: the student, who sees images plainly, relates each image and each window of its
    prediction to earlier ones as the teacher does, who sees a moderate view; labels teach as well, as in the code.
    Then labels, and pseudo-labels of the weak view on cut and mixed strong ones (an image counts by its share of sure
    pixels); pixels of a class gather and flee from a memory of confusable pixels of others; an image resembles its
    nearest neighbours among earlier ones; predictions follow deformations.

    The public code has no gradient in the neighbours' term, keeps no negative key where teacher and pseudo-label
    agree, shifts classes when one is absent, warps images but not their labels, and cuts windows across images; here
    each term does what the paper says (methods/README.md). As there, the teacher normalizes by the batch and keeps its
    dropout (with averaged statistics it was sure of the background in short trainings), and deformed images count for
    the student's running statistics like all others. Mixed images are deformed in every step, there in half of them.
    Features end at the second finest map, and what is remembered of an image is its mean in 8 × 8 cells: in full they
    take gigabytes. In 3D windows are halves instead of quarters of an axis, and deformations stay in plane. Labels
    count by cross-entropy + Dice, as in the code: twice what most methods have, so their learning rate is too high.
    """

    title = "MONA"
    paper = Paper(
        "Mine yOur owN Anatomy: Revisiting Medical Image Segmentation with Extremely Limited Labels",
        "You, Dai, Liu, Min, Dvornek, Li, Clifton, Staib and Duncan",
        "IEEE TPAMI 2024",
    )
    views = ("plain", "moderate", "strong")
    space: ClassVar = {"pretraining": (0.2, 0.5), "unsupervised": (0.1, 1.0), "contrast": (0.01, 0.1)}
    brief: ClassVar = {"sure": 0.0, "equivariant_from": 0.0, "anchor_from": 0.0, "sure_key": 1.1}

    class Config(Method.Config):
        pretraining: float = Field(0.5, ge=0, le=1)  # fraction of the training, as 30,000 of 60,000 steps
        latent: float = Field(1.0, ge=0)  # weights of the first stage
        windows: float = Field(1.0, ge=0)
        unsupervised: float = Field(1.0, ge=0)  # weights of the second
        contrast: float = Field(0.01, ge=0)
        neighbours: float = Field(1.0, ge=0)
        equivariance: float = Field(1.0, ge=0)
        ema_decay: float = Field(0.99, ge=0, lt=1)
        sure: float = Field(0.97, ge=0, le=1)  # of a pseudo-label that counts
        equivariant_from: float = Field(0.7, ge=0, le=1)  # confidence
        anchor_from: float = Field(0.3, ge=0, le=1)  # the teacher's probability of the class
        sure_key: float = 0.97  # a pixel of more than this probability is no negative key
        unreliable: float = Field(0.2, ge=0, le=0.5)  # share of pixels, which falls to 0
        confusable: int = Field(3, ge=1)  # of so many most likely classes
        relations: int = Field(36, ge=2)  # earlier images that others are related to
        relation_temperature: float = Field(0.1, gt=0)
        bank: int = Field(2000, ge=1)  # pixels remembered for each class; published: 30,000
        keys: int = Field(64, ge=1)  # new ones of a step
        anchors: int = Field(64, ge=1)  # for each class; published: 256
        negatives: int = Field(64, ge=1)  # for each anchor; published: 512
        temperature: float = Field(0.5, gt=0)
        nearest: int = Field(5, ge=1)
        statistics: Literal["batch", "averaged"] = "batch"  # by which the teacher normalizes in training

    def build(self) -> None:
        task, config = self.task, self.config
        self.student = self.network()
        self.teacher = self.moving_average(self.student, config.ema_decay)
        trial = predict(self.student, torch.zeros(1, task.channels, *task.size))
        shape = (task.dims, trial.encoder[-1].shape[1], task.classes)
        self.description, self.guess = Description(*shape), Guess(*shape)
        self.slow_description = self.moving_average(self.description, config.ema_decay)
        with torch.no_grad():
            self.earlier = Earlier(config.relations, self.description(trial))
        self.dense = DenseFeatures(task.dims, [m.shape[1] for m in levels(trial)])
        self.slow_dense = self.moving_average(self.dense, config.ema_decay)
        channels = self.dense.channels
        self.representation = projection(task.dims, channels, channels, channels, bias=False)
        self.banks = nn.ModuleList(Memory(config.bank, channels) for _ in range(task.classes))
        self.images = Memory(config.relations, channels * GRID**task.dims, random=True)

    def stages(self) -> Sequence[Stage]:
        share = self.config.pretraining
        heads = [self.description, self.guess]
        return [
            Stage(self.relate, "relations", share, [self.student, *heads]),
            Stage(self.losses, share=1 - share, trains=[self.student, self.dense, self.representation]),
        ]

    def relate(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """The first stage."""
        config, output = self.config, self.student(batch.images("plain"))
        key = self.slow_description.network(self.taught(batch.images("moderate")))
        latent, windows = self.earlier.losses(self.guess(self.description(output)), key, config.relation_temperature)
        self.earlier.push(key)
        return {
            "supervised": 2 * supervised_loss(batch.split(output.logits)[0], batch.labels),
            "latent": config.latent * latent,
            "windows": config.windows * windows,
        }

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        config, labeled = self.config, batch.labeled("plain")
        mixed, pseudo, sure = self.pseudo_labeled(batch)
        images, labels = torch.cat([labeled, mixed]), torch.cat([batch.labels, pseudo])
        output, said = self.student(images), self.taught(images)
        dense = self.representation(self.dense(levels(output))).float()
        keys = self.slow_dense.network(levels(said)).float()
        own, free = batch.split(output.logits)
        counted = (sure >= config.sure).float().flatten(1).mean(1)
        self.note("sure", counted.mean())
        wrong = F.cross_entropy(free, pseudo, reduction="none").flatten(1).mean(1)
        vectors, latest = cells(batch.split(dense)[1]), cells(batch.split(keys)[1])
        grid = similarity_and_spline(images, mirror=self.task.turns)
        certain = torch.cat([torch.ones_like(labeled[:, :1]), sure]) >= config.equivariant_from
        weight = deform((certain & (labels[:, None] > 0)).float(), grid)
        follows = weighted_kl(self.student(deform(images, grid)).logits, deform(output.logits.detach(), grid), weight)
        losses = {
            "supervised": 2 * supervised_loss(own, batch.labels),
            "unsupervised": config.unsupervised * (counted * wrong).mean(),
            "contrast": config.contrast * self.contrast(dense, keys, labels, said, output, progress, len(labeled)),
            "neighbours": config.neighbours * neighbour_loss(vectors, latest, self.images.rows, config.nearest),
            "equivariance": config.equivariance * follows,
        }
        self.images.push(latest[: config.relations])
        return losses

    @torch.no_grad()
    def taught(self, images: Tensor) -> Output:
        """What the teacher says of images."""
        if self.config.statistics == "averaged":
            return predict(self.teacher, images)
        output: Output = self.teacher(images)
        return output

    @torch.no_grad()
    def pseudo_labeled(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Strong views, cut, mixed and deformed, with the teacher's labels of the plain ones and its confidence."""
        sure, labels = self.taught(batch.unlabeled("plain")).logits.softmax(1).max(1, keepdim=True)
        images = batch.unlabeled("strong")
        inside, grid = half_boxes(images), diffeomorphism(images)
        images, labels, sure = (torch.where(inside, v.roll(1, 0), v) for v in (images, labels, sure))
        return deform(images, grid), deform(labels.float(), grid, "nearest").long()[:, 0], deform(sure, grid)

    def contrast(
        self, dense: Tensor, keys: Tensor, labels: Tensor, said: Output, own: Output, progress: Progress, labeled: int
    ) -> Tensor:
        """Pixels of a class against its mean and a memory of confusable pixels; mean over the classes present."""
        config, size = self.config, tuple(dense.shape[2:])
        y = F.interpolate(labels[:, None].float(), size).long().flatten()
        p = rows(F.interpolate(said.logits.softmax(1), size))
        doubt = rows(F.interpolate(entropy(own.logits.detach().softmax(1)), size))[:, 0]
        first = labeled * len(y) // len(labels)  # pixels with a label that was given
        given = torch.arange(len(y), device=y.device) < first
        part = config.unreliable * (1 - progress.fraction)
        low = given | (doubt <= doubt[first:].quantile(part))
        high = doubt >= doubt[first:].quantile(1 - part)
        few, g, k = min(config.confusable, self.task.classes - 1), rows(dense), rows(keys)
        losses, present = [], []
        for c, bank in enumerate(self.banks):
            assert isinstance(bank, Memory)
            member, rank = (y == c) & low, (p > p[:, c : c + 1]).sum(1)
            other = torch.where(given, (y != c) & (rank < few), high & (rank >= few)) & (p[:, c] < config.sure_key)
            bank.push(k[pick(other, config.keys)], other.any())
            anchors = member & (p[:, c] > config.anchor_from)
            mean = (k * member[:, None]).sum(0) / member.sum().clamp(min=1)
            chosen = g[pick(anchors, config.anchors)]
            drawn = bank.draw(config.anchors, config.negatives)
            loss = prototype_loss(chosen, mean, bank.rows, drawn, config.temperature)
            losses.append(loss * (anchors.any() & (bank.count > 0)))
            present.append((y == c).any())
        number = torch.stack(present).sum()
        return torch.stack(losses).sum() / number.clamp(min=1) * (number > 1)

    def predictors(self) -> dict[str, nn.Module]:
        return {"student": self.student, "teacher": self.teacher}


def levels(output: Output) -> tuple[Tensor, ...]:
    """The maps that dense features are made of, from the coarsest on."""
    return (output.encoder[-1], *output.decoder[:-1])


def cells(features: Tensor) -> Tensor:
    """A unit vector for every image: the means of its features in a grid of cells."""
    pool = nn.AdaptiveAvgPool2d if features.ndim == 4 else nn.AdaptiveAvgPool3d
    return F.normalize(pool(GRID)(features).flatten(1), dim=1)
