"""FixMatch: confident predictions on weak views are labels for strong views."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from semiseg.ctaugment import CTAugment
from semiseg.losses import confident_labels, entropy, one_hot, soft_supervised_loss, supervised_loss
from semiseg.method import Batch, Method, Paper, Progress, predict


class FixMatch(Method):
    """Where the most probable class of a weak view reaches the threshold, it is the label of the strong view.

    Labelled, weak and strong images form one batch. Other pixels take no part in the cross-entropy or the Dice
    loss, but count in the cross-entropy's mean. SSL4MIS keeps a class by comparison with the least probable one,
    which lets uncertain pixels pass, and trains those that remain as background; with CTAugment it keeps all pixels.
    Weight, ramp, threshold and decay are SSL4MIS's, for 30,000 steps; the paper has a weight of 1 without a ramp, a
    threshold of 0.95 and a decay of 0.999.

    CTAugment (`augmentation: cta`) is probed on labelled images alone, in evaluation mode of the teacher, where
    SSL4MIS updates its rates by the training loss. The teacher's averaged statistics lag for some 200 steps, in which
    the rates learn little. Where a batch is halved for want of memory, each half probes. Every item draws its own
    policies. One geometric draw moves an image and its label, and translations are fractions of the size; no batch is
    rejected for its foreground. The suite's geometry comes before CTAugment's. Both losses are ½ (cross-entropy +
    Dice), in SSL4MIS without the ½.
    """

    title = "FixMatch"
    paper = Paper(
        "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence",
        "Sohn, Berthelot, Li, Zhang, Carlini, Cubuk, Kurakin, Zhang and Raffel",
        "NeurIPS 2020",
    )
    views: Sequence[str] = ("weak", "strong")
    divisible = True
    brief: ClassVar = {"threshold": 0.4}
    space: ClassVar[dict[str, tuple[Any, ...]]] = {
        "consistency": (0.1, 0.5, 1.0, 5.0),
        "ramp_up": (0.2, 0.4, 1.0),
        "threshold": (0.8, 0.9, 0.95),
    }

    class Config(Method.Config):
        ema_decay: float = Field(0.99, ge=0, lt=1)
        consistency: float = Field(0.1, ge=0)  # weight at full ramp
        ramp_up: float = Field(1.0, gt=0, le=1)  # fraction of the training after which the weight is full
        threshold: float = Field(0.8, ge=0)  # a pixel is confident from this probability on
        mean_over: Literal["all", "kept"] = "all"  # pixels that the cross-entropy is divided by
        pseudo_source: Literal["student", "teacher"] = "student"
        negative: float = Field(0.0, ge=0)  # relative weight of learning which class a pixel is not
        augmentation: Literal["standard", "cta"] = "standard"
        probe_every: int = Field(1, ge=1)  # steps between two probes of CTAugment

    def build(self) -> None:
        self.student = self.network()
        self.teacher = self.moving_average(self.student, self.config.ema_decay)
        if self.config.augmentation == "cta":
            self.views = ("plain",)
            self.augment = CTAugment()

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        weak, strong, labels = self.augmented(batch, progress)
        logits = self.student(torch.cat([weak, strong])).logits
        labeled, unlabeled, strong_logits = logits.tensor_split([len(labels), len(weak)])
        if self.config.pseudo_source == "teacher":
            unlabeled = self.teacher(weak[len(labels) :]).logits
        pseudo, confident = confident_labels(unlabeled, self.config.threshold)
        self.note("confident_fraction", confident.mean())
        target = one_hot(pseudo[:, 0], self.task.classes)
        consistency = soft_supervised_loss(strong_logits, target, confident, self.config.mean_over)
        weight = self.config.consistency * progress.ramp_up(self.config.ramp_up)
        losses = {"supervised": supervised_loss(labeled, labels), "consistency": weight * consistency}
        if self.config.negative:
            negative = negative_learning(strong_logits, unlabeled.detach().softmax(1))
            losses["negative"] = weight * self.config.negative * negative
        return losses

    def augmented(self, batch: Batch, progress: Progress) -> tuple[Tensor, Tensor, Tensor]:
        """Weak views of all images, strong ones of the unlabelled, and the labels."""
        if self.config.augmentation == "standard":
            return batch.images("weak"), batch.unlabeled("strong"), batch.labels
        if progress.every(self.config.probe_every):
            self.augment.probe(lambda images: predict(self.teacher, images).logits, batch.labeled(), batch.labels)
        weak, labels = self.augment.weak(batch.images(), batch.labels)
        return weak, self.augment.strong(batch.split(weak)[1]), labels

    def predictors(self) -> dict[str, nn.Module]:
        return {"teacher": self.teacher, "student": self.student}


def negative_learning(logits: Tensor, probabilities: Tensor) -> Tensor:
    """a · mean −ln(1 − p_k + 1e−6) at the class k that is least probable by the given probabilities q.

    a = mean (1 − H(q) / ln C) says how certain q is. SSL4MIS measures a spatial entropy, applies a twice, with
    gradient, and takes 1 − p for logits, which confines the loss to a narrow range.

    Args:
        logits: of p, (batch, C, *space).
        probabilities: q, the same shape, without gradient.
    """
    certainty = (1 - entropy(probabilities) / math.log(probabilities.shape[1])).mean()
    unlikely = logits.float().softmax(1).gather(1, probabilities.argmin(1, keepdim=True))
    return certainty * -(1 - unlikely + 1e-6).log().mean()
