"""Self-training: a teacher trained on the labels writes pseudo-labels, a student learns from both, and teaches next."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from semiseg.losses import confident_labels, one_hot, soft_supervised_loss, supervised_loss
from semiseg.method import Batch, Method, Paper, Progress, Stage, frozen_copy, predict


class SelfTraining(Method):
    """A network learns from the labels alone; in every round after that, a new one learns from its opinions, too.

    The teacher of a round is the last student, fixed. It labels plain views of the unlabelled images in evaluation
    mode; the student, with its dropout, sees their strong views, and begins again from its first weights, or goes on
    from the last ones (`restart: false`). Nothing is selected: a teacher is whatever its stage ended with.

    As in the paper, labelled and pseudo-labelled pixels count alike (in equal batches), there are several rounds, and
    the student is noisier than its teacher. Departures: pseudo-labels are hard and all pixels have one (`threshold`
    keeps those that the teacher is sure of; the paper's are soft, for images with a confidence of 0.3 or more),
    students are no larger than teachers, and images are not balanced over classes. ST++ (LiheYoung/ST-PlusPlus,
    f4e7a57) does the same for segmentation: one round, a new student, hard labels of all pixels; there the network that
    was best on the validation list teaches, here the last weights. Pseudo-labels are written anew for each augmented
    image, instead of once for a file, so that the teacher sees the geometry that the student sees. All stages have the
    same share of the steps, so that the training as a whole is as long as any other: more rounds are shorter ones.
    """

    title = "Self-Training"
    paper = Paper(
        "Self-training with Noisy Student improves ImageNet classification", "Xie, Luong, Hovy and Le", "CVPR 2020"
    )
    views: Sequence[str] = ("plain", "strong")
    brief: ClassVar = {"threshold": 0.4}
    space: ClassVar = {"rounds": (1, 2, 3), "restart": (True, False), "threshold": (0.0, 0.7, 0.9)}

    class Config(Method.Config):
        rounds: int = Field(2, ge=1)  # of students; the first teacher comes on top
        pseudo: float = Field(1.0, ge=0)  # weight of the pseudo-labelled images
        threshold: float = Field(0.0, ge=0, le=1)  # of the teacher's confidence in a pixel that counts
        restart: bool = True  # every student begins from the first weights

    def build(self) -> None:
        self.student = self.network()
        self.teacher = frozen_copy(self.student)
        self.first = frozen_copy(self.student)  # kept, so that a training that was interrupted restarts from it, too

    def stages(self) -> Sequence[Stage]:
        names = [f"round_{number}" for number in range(1, self.config.rounds + 1)]
        return [
            Stage(self.from_labels, "teacher", trains=[self.student]),
            *(Stage(self.losses, name, trains=[self.student], begin=self.succeed) for name in names),
        ]

    def succeed(self) -> None:
        """The student becomes the teacher, and a new one takes its place."""
        self.teacher.load_state_dict(self.student.state_dict())
        if self.config.restart:
            self.student.load_state_dict(self.first.state_dict())

    def from_labels(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """What the first teacher learns."""
        return {"supervised": supervised_loss(self.student(batch.labeled()).logits, batch.labels)}

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        images = torch.cat([batch.labeled(), batch.unlabeled("strong")])
        labeled, unlabeled = batch.split(self.student(images).logits)
        opinion = predict(self.teacher, batch.unlabeled()).logits
        labels, confident = confident_labels(opinion, self.config.threshold)
        self.note("confident_fraction", confident.mean())
        self.note("pseudo_foreground", (labels > 0).float().mean())
        pseudo = soft_supervised_loss(unlabeled, one_hot(labels[:, 0], self.task.classes), confident, "all")
        return {"supervised": supervised_loss(labeled, batch.labels), "pseudo": self.config.pseudo * pseudo}

    def predictors(self) -> dict[str, nn.Module]:
        return {"student": self.student, "teacher": self.teacher}
