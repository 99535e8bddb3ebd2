"""AD-MT: two teachers follow one student in turns, and agree on its labels by their entropy."""

import math
from collections.abc import Sequence
from random import Random
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from semiseg.averages import MovingAverage
from semiseg.losses import dice_loss, entropy, in_full_precision, one_hot, supervised_loss
from semiseg.method import Batch, Method, Paper, Progress
from semiseg.seeding import derive_seed

from .unimatch import random_boxes


class AlternateDiverseMeanTeacher(Method):
    """In turns of random length, one teacher follows the student, which learns in that teacher's own way.

    In the first teacher's turns the student sees unlabelled images in the strong view, in the second's weak ones with
    boxes from one another (CutMix). The target is the mean of both teachers' probabilities on the weak view, weighted
    by e^−H with the entropy H in bits; where the teachers see different classes, and the student in its own weak view
    is surer of another one than they are together, the student's is taken. Pixels below the threshold take no part.
    A teacher's n-th update keeps min(1 − 1/n, decay) of it.

    Weight, ramp, threshold, decay and Dice are the authors' for ACDC (ZhenZHAO/AD-MT, 03ef84c); for LA they have
    cross-entropy, a threshold of 0.8 and a ramp over 40 %. Turns last up to half a pass over the unlabelled images, as
    theirs of 50 and 19 steps do. There, teachers are copies of the student in their turns of the first hundred steps,
    the one whose turn it is predicts in training mode and the other in evaluation mode; here both in training mode,
    like all moving averages. Boxes there hold 1 − β of an image, β ~ Beta(4, 4), and are cut off at borders; here
    they are UniMatch's. There, a target with boxes is compared with what the student says of images without; here
    boxes are pasted last. The student is reported, as in their test.
    """

    title = "AD-MT"
    paper = Paper(
        "Alternate Diverse Teaching for Semi-supervised Medical Image Segmentation",
        "Zhao, Wang, Wang, Yuan and Zhou",
        "ECCV 2024",
    )
    views: Sequence[str] = ("weak", "strong")
    brief: ClassVar = {"threshold": 0.4, "turn": 0.01}
    space: ClassVar = {"consistency": (0.5, 2.0), "threshold": (0.8, 0.95), "distance": ("dice", "cross_entropy")}

    class Config(Method.Config):
        ema_decay: float = Field(0.99, ge=0, lt=1)
        consistency: float = Field(2.0, ge=0)  # weight at full ramp
        ramp_up: float = Field(0.25, ge=0, le=1)  # fraction of the training after which the weight is full
        threshold: float = Field(0.95, ge=0, le=1)  # of the probability of a label
        turn: float = Field(0.5, gt=0)  # the longest, in passes over the unlabelled images
        distance: Literal["dice", "cross_entropy"] = "dice"
        cutmix: float = Field(1.0, ge=0, le=1)  # probability, in the second teacher's turns

    def build(self) -> None:
        self.student = self.network()
        self.turns = Turns(max(1, round(self.config.turn * self.task.unlabeled_steps)), self.task.seed)
        self.teachers = nn.ModuleList(
            TeacherInTurn(self.student, self.config.ema_decay, self.turns, who) for who in (0, 1)
        )

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        weak = batch.unlabeled("weak")
        if self.turns.owner(progress.step) == 0:
            altered, box = batch.unlabeled("strong"), torch.zeros_like(weak[:, :1], dtype=torch.bool)
        else:
            box = random_boxes(weak, self.config.cutmix)
            altered = pasted(weak, box)
        logits = self.student(torch.cat([batch.images("weak"), altered])).logits
        labeled, own, seen = logits.tensor_split([len(batch.labels), len(batch.images("weak"))])
        labels, confidence = (pasted(values, box) for values in self.target(weak, own))
        kept = (confidence >= self.config.threshold).float()
        self.note("confident_fraction", kept.mean())
        weight = self.config.consistency * progress.ramp_up(self.config.ramp_up)
        return {
            "supervised": supervised_loss(labeled, batch.labels),
            "consistency": weight * self.distance(seen, labels, kept),
        }

    @torch.no_grad()
    def target(self, images: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Labels and their probabilities, (U, 1, *space), by the teachers or the student's own logits."""
        first, second = (teacher(images).logits.softmax(1) for teacher in self.teachers)
        conflict = first.argmax(1, keepdim=True) != second.argmax(1, keepdim=True)
        self.note("conflict", conflict.float().mean())
        confidence, labels = weighted_by_entropy(first, second).max(1, keepdim=True)
        own_confidence, own_labels = own.softmax(1).max(1, keepdim=True)
        surer = conflict & (own_labels != labels) & (own_confidence > confidence)
        return torch.where(surer, own_labels, labels), torch.where(surer, own_confidence, confidence)

    def distance(self, logits: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
        """From hard labels (batch, 1, *space) where they are kept."""
        if self.config.distance == "dice":
            return dice_loss(logits.softmax(1), one_hot(labels[:, 0], self.task.classes), kept)
        return (kept[:, 0] * cross_entropy(logits, labels[:, 0], reduction="none")).sum() / kept.sum().clamp(min=1)

    def predictors(self) -> dict[str, nn.Module]:
        return {"student": self.student, "first_teacher": self.teachers[0], "second_teacher": self.teachers[1]}


class Turns:
    """Two owners in turns of 1 to `longest` steps, which follow from the seed: no checkpoint needs them."""

    def __init__(self, longest: int, seed: int) -> None:
        self.longest, self.random = longest, Random(derive_seed(seed, "turns"))
        self.owners, self.following = bytearray(), 0

    def owner(self, step: int) -> int:
        """0 or 1."""
        while len(self.owners) <= step:
            self.owners += bytes([self.following]) * self.random.randint(1, self.longest)
            self.following = 1 - self.following
        return self.owners[step]

    def taken(self, who: int, step: int) -> int:
        """How many steps it has owned with this one; 0 if this one is the other's."""
        return self.owners.count(who, 0, step + 1) if self.owner(step) == who else 0


class TeacherInTurn(MovingAverage):
    """A moving average that rests in the other's turns; its first update makes it a copy."""

    def __init__(self, network: nn.Module, decay: float, turns: Turns, who: int) -> None:
        super().__init__(network, decay)
        self.turns, self.who = turns, who

    def update(self, step: int) -> None:
        if number := self.turns.taken(self.who, step):
            self._keep(min(1 - 1 / number, self.decay))


@in_full_precision
def weighted_by_entropy(first: Tensor, second: Tensor) -> Tensor:
    """Σ_k e^{−H_k} p_k / Σ_k e^{−H_k} of two probabilities p_k, (batch, C, *space), with H in bits."""
    weight = ((entropy(second) - entropy(first)) / math.log(2)).sigmoid()
    return weight * first + (1 - weight) * second


def pasted(values: Tensor, box: Tensor) -> Tensor:
    """With the neighbour in the batch where the box is, (batch, 1, *space)."""
    return torch.where(box, values.roll(1, 0), values)
