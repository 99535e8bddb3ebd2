"""BCP: boxes are copied from labelled to unlabelled images and back."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from semiseg.connected_components import largest_components
from semiseg.losses import one_hot, soft_supervised_loss
from semiseg.method import Batch, Method, Paper, Progress, Stage

Examples = tuple[Tensor, Tensor]  # images (pairs, channels, *space) and targets (pairs, C, *space)


class BidirectionalCopyPaste(Method):
    """Labelled and unlabelled images share one picture, true labels and pseudo-labels its target.

    With labelled images a, b, unlabelled ones p, q and a mask M that is 0 in a random box and 1 elsewhere, the
    student learns from the inward mixture M a + (1 − M) p and the outward one M q + (1 − M) b. Pseudo-labels are
    the largest component of every class in the prediction of a moving average. The loss is ½ (cross-entropy +
    Dice), inside and outside of the box apart; a pseudo-labelled region weighs α. In a stage before that, the student
    learns from mixtures of labelled images alone. α = ½ and boxes of ⅔ of every side are the paper's; there is no ramp.

    Pre-training takes 10 000 of 40 000 iterations on ACDC (the default), 2 000 of 17 000 on LA. The reference code
    (DeepMed-Lab-ECNU/BCP, 7879f98) then starts teacher and student from the checkpoint that was best on the
    validation list, on LA on the test list. Here they start from the last weights of the pre-training, since nothing
    is selected. Boxes touch all borders; the code's bounds exclude the last position.
    Where its ACDC and LA scripts differ, ACDC's are followed: the pre-training loss is the sum of both regions
    (LA: one loss of the mixture), Dice has squared denominators (LA: linear) and sums over the batch. The teacher
    labels all unlabelled images in one pass. The suite's geometry and learning rate take the place of the code's.

    The losses of both mixtures are added, as in the code: of an untrained network the gradient is 2.5 times that of
    Supervised's loss, so the learning rate of other methods is too high here.

    The student is reported, as in the code, and the teacher stands beside it. Take 12 + 12 images, as published, for
    small structures of several classes: from 4 labelled images, the two mixtures of a step seldom show them all.
    """

    title = "BCP"
    paper = Paper(
        "Bidirectional Copy-Paste for Semi-Supervised Medical Image Segmentation",
        "Bai, Chen, Li, Shen and Wang",
        "CVPR 2023",
    )

    class Config(Method.Config):
        ema_decay: float = Field(0.99, ge=0, lt=1)
        pretraining: float = Field(0.25, ge=0, le=1)  # fraction of the training with labelled images alone
        pseudo: float = Field(0.5, ge=0)  # α, the weight of pseudo-labelled regions
        box: float = Field(2 / 3, gt=0, lt=1)  # side of the box, relative to the image's

    space: ClassVar = {"pretraining": (0.1, 0.25, 0.5), "pseudo": (0.25, 0.5, 1.0), "box": (0.5, 2 / 3)}

    def build(self) -> None:
        self.student = self.network()
        self.teacher = self.moving_average(self.student, self.config.ema_decay)

    def stages(self) -> Sequence[Stage]:
        share = self.config.pretraining
        return [Stage(self.pretrain, "pretraining", share), Stage(self.losses, share=1 - share)]

    def pretrain(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Mixtures of labelled images."""
        outside, inside = self.pasted(*halves(self.labeled(batch), len(batch.labels)), self.mask(batch.labels))
        return {"supervised": outside + inside}

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        labeled, mask = self.labeled(batch), self.mask(batch.labels)
        unlabeled = batch.unlabeled(), self.pseudo_labels(batch.unlabeled())
        number = max(len(batch.labels), len(batch.unlabeled()))
        (a, b), (p, q) = halves(labeled, number), halves(unlabeled, number)
        supervised_in, pseudo_in = self.pasted(a, p, mask)
        pseudo_out, supervised_out = self.pasted(q, b, mask)
        return {
            "supervised": supervised_in + supervised_out,
            "pseudo": self.config.pseudo * (pseudo_in + pseudo_out),
        }

    def labeled(self, batch: Batch) -> Examples:
        """Labelled images with their targets."""
        return batch.labeled(), one_hot(batch.labels, self.task.classes)

    def mask(self, labels: Tensor) -> Tensor:
        """0 in a box at a random place, the same for all images of the step, and 1 elsewhere; (1, 1, *space)."""
        mask = torch.ones(1, 1, *labels.shape[1:], device=labels.device)
        lengths = [max(1, int(side * self.config.box)) for side in labels.shape[1:]]
        # The host draws the corner, and so need not ask the device for it.
        starts = [int(torch.randint(side - n + 1, ())) for side, n in zip(labels.shape[1:], lengths, strict=True)]
        mask[:, :, *(slice(start, start + n) for start, n in zip(starts, lengths, strict=True))] = 0
        return mask

    def pasted(self, outer: Examples, inner: Examples, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The student's losses outside and inside of the box, for outer images with inner ones' boxes."""
        images, targets = (mask * o + (1 - mask) * i for o, i in zip(outer, inner, strict=True))
        logits = self.student(images).logits
        mask = mask.expand_as(images[:, :1])
        return soft_supervised_loss(logits, targets, mask), soft_supervised_loss(logits, targets, 1 - mask)

    @torch.no_grad()
    def pseudo_labels(self, images: Tensor) -> Tensor:
        """The largest component of every class that the teacher sees, (U, C, *space) zeros and ones."""
        labels = self.teacher(images).logits.argmax(1)
        largest = largest_components(labels, self.task.classes)
        self.note("pseudo_foreground", (largest > 0).float().mean())
        self.note("beyond_largest_component", (largest != labels).float().mean())
        return one_hot(largest, self.task.classes)

    def predictors(self) -> dict[str, nn.Module]:
        return {"student": self.student, "teacher": self.teacher}


def halves(examples: Examples, number: int) -> tuple[Examples, Examples]:
    """The first ⌈number / 2⌉ examples and as many counted from the last; too few are repeated."""
    half = (len(examples[0]) + 1) // 2
    order = torch.arange((number + 1) // 2, device=examples[0].device) % half
    first, second = [[values[o] for values in examples] for o in (order, -1 - order)]
    return (first[0], first[1]), (second[0], second[1])
