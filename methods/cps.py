"""CPS: two networks, each learning from the other's hard labels."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from semiseg.losses import one_hot, supervised_loss
from semiseg.method import Batch, Method, Paper, Progress, jointly


class CrossPseudoSupervision(Method):
    """What one network predicts for an unlabelled image is the label for the other.

    The networks differ by their random initial weights, drawn from PyTorch's distributions like every other method's.
    SSL4MIS draws one by Kaiming's rule and the other by Xavier's in 3D; in 2D it defines both and calls neither. Before
    batch normalization such larger weights only learn more slowly. The first network is reported, which is fixed
    beforehand; the second and their mean stand beside it.

    The weight of 0.1 and its ramp are those of SSL4MIS, for 30,000 steps. The authors' weight is 1.5 (Pascal VOC) or 6
    (Cityscapes) from the first step on (`ramp_up: 0`), and labelled images join the cross supervision.
    """

    title = "CPS"
    paper = Paper(
        "Semi-Supervised Semantic Segmentation with Cross Pseudo Supervision",
        "Chen, Yuan, Zeng and Wang",
        "CVPR 2021",
    )
    networks = 2
    divisible = True
    space: ClassVar = {"cross": (0.1, 0.5, 1.5, 6.0), "ramp_up": (0.0, 0.2, 0.4, 1.0)}

    class Config(Method.Config):
        cross: float = Field(0.1, ge=0)  # weight of the cross supervision at full ramp
        ramp_up: float = Field(1.0, ge=0, le=1)  # fraction of the training after which the weight is full

    def build(self) -> None:
        self.first = self.network()
        self.second = self.network()

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        outputs = [network(batch.images()).logits for network in (self.first, self.second)]
        (labeled_1, unlabeled_1), (labeled_2, unlabeled_2) = map(batch.split, outputs)
        pseudo_1, pseudo_2 = unlabeled_1.argmax(1), unlabeled_2.argmax(1)  # no gradient passes an argmax
        self.note("disagreement", (pseudo_1 != pseudo_2).float().mean())
        self.note("pseudo_foreground", (torch.stack([pseudo_1, pseudo_2]) > 0).float().mean())
        for number, pseudo in enumerate((pseudo_1, pseudo_2), start=1):
            present = one_hot(pseudo, self.task.classes).flatten(2).amax((0, 2))
            self.note(f"absent_classes_{number}", (present == 0).sum())
        weight = self.config.cross * progress.ramp_up(self.config.ramp_up)
        return {
            "supervised_1": supervised_loss(labeled_1, batch.labels),
            "supervised_2": supervised_loss(labeled_2, batch.labels),
            "cross_1": weight * self.cross_loss(unlabeled_1, pseudo_2),
            "cross_2": weight * self.cross_loss(unlabeled_2, pseudo_1),
        }

    def cross_loss(self, logits: Tensor, pseudo: Tensor) -> Tensor:
        """How far one network is from the other's hard labels."""
        return cross_entropy(logits, pseudo)

    def predictors(self) -> dict[str, nn.Module]:
        return jointly([self.first, self.second])
