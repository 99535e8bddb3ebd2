"""ABD on BCP: two networks copy and paste in a view each, and both learn from mixtures that exchanged a patch."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from semiseg.displacement import exchanged
from semiseg.losses import dice_loss, one_hot, soft_supervised_loss
from semiseg.method import Batch, Paper, Progress, Stage

from .bcp import BidirectionalCopyPaste, Examples, halves


class DisplacedCopyPaste(BidirectionalCopyPaste):
    """After the pre-training of BCP, a second network begins with the first one's weights and sees the strong view.

    Each network learns from its own view's mixtures as in BCP, with pseudo-labels of the first one's moving average,
    and from the other's hard labels for the same mixtures. In every mixture the patch of a 4×4 grid (4×4×4 in 3D) of
    which a network is least sure is replaced by one of which the other is sure in its view: for half of the items the
    surest, for the others that of the four surest whose class distribution is nearest by KL. What comes of it, from
    either view, both networks label for each other. Agreement is the Dice loss, at full weight from the first step.

    These are the code's weights (chy-upc/ABD, 4efd525, `train_ACDC_BCP.py`, which computes a ramp and does not use it)
    for 10,000 + 30,000 steps of 12 + 12 images of 256×256. There, networks start from the checkpoint of the
    pre-training that was best on the validation list; a patch of the second view may come from a first one that has
    its new patch already; and each network's best checkpoint is chosen by itself. Here nothing is chosen, patches come
    from the mixtures as they were, and the first network is reported. For the departures in copying and pasting, see
    BCP.
    """

    title = "ABD (BCP)"
    paper = Paper(
        "Adaptive Bidirectional Displacement for Semi-Supervised Medical Image Segmentation",
        "Chi, Pang, Zhang and Liu",
        "CVPR 2024",
    )
    networks = 2
    views: Sequence[str] = ("plain", "strong")
    space: ClassVar = {"pretraining": (0.1, 0.25, 0.5), "pseudo": (0.25, 0.5, 1.0), "cross": (0.1, 0.5, 1.0)}

    class Config(BidirectionalCopyPaste.Config):
        cross: float = Field(1.0, ge=0)  # weight of the other network's labels
        parts: int = Field(4, ge=2)  # patches along every axis
        surest: int = Field(4, ge=1)  # patches among which the nearest is taken
        probability: float = Field(0.5, ge=0, le=1)  # with which it is the nearest of these, and not the surest

    def build(self) -> None:
        super().build()
        self.second = self.network()

    def stages(self) -> Sequence[Stage]:
        share = self.config.pretraining
        return [
            Stage(self.pretrain, "pretraining", share, trains=[self.student]),
            Stage(self.losses, share=1 - share, begin=self.follow),
        ]

    def follow(self) -> None:
        """The second network begins where the first has come to."""
        self.second.load_state_dict(self.student.state_dict())

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        mask, losses = self.mask(batch.labels), dict[str, Tensor]()
        inside, outside = 1 - mask, mask
        mixtures, logits = [], []
        for number, (network, view) in enumerate(zip((self.student, self.second), self.views, strict=True), start=1):
            first, last = self.mixed(batch, view, mask)  # labelled inside of the box, and outside
            x, y = network(first[0]).logits, network(last[0]).logits
            supervised = soft_supervised_loss(x, first[1], inside) + soft_supervised_loss(y, last[1], outside)
            pseudo = soft_supervised_loss(x, first[1], outside) + soft_supervised_loss(y, last[1], inside)
            losses |= {f"supervised_{number}": supervised, f"pseudo_{number}": self.config.pseudo * pseudo}
            mixtures.append(torch.cat([first[0], last[0]]))
            logits.append(torch.cat([x, y]))
        near = torch.rand(len(mixtures[0]), device=mixtures[0].device) < self.config.probability
        images = exchanged(mixtures, logits, self.config.parts, self.config.surest, near)
        displaced_logits = [network(images).logits for network in (self.student, self.second)]
        return losses | self.agreement("cross", logits) | self.agreement("cross_displaced", displaced_logits)

    def mixed(self, batch: Batch, view: str, mask: Tensor) -> tuple[Examples, Examples]:
        """Unlabelled images of a view with labelled boxes, and labelled ones with unlabelled boxes."""
        labeled = batch.labeled(view), one_hot(batch.labels, self.task.classes)
        unlabeled = batch.unlabeled(view), self.pseudo_labels(batch.unlabeled(view))
        number = max(len(batch.labels), len(batch.unlabeled()))
        (a, b), (p, q) = halves(labeled, number), halves(unlabeled, number)
        (u, s), (v, t) = ([mask * o + (1 - mask) * i for o, i in zip(*pair, strict=True)] for pair in ((p, a), (b, q)))
        return (u, s), (v, t)

    def agreement(self, name: str, logits: Sequence[Tensor]) -> dict[str, Tensor]:
        """The Dice losses between each network's probabilities and the other's labels."""
        targets = [one_hot(x.argmax(1), self.task.classes) for x in reversed(logits)]
        losses = [dice_loss(x.softmax(1), target) for x, target in zip(logits, targets, strict=True)]
        return {f"{name}_{number}": self.config.cross * loss for number, loss in enumerate(losses, start=1)}

    def predictors(self) -> dict[str, nn.Module]:
        return {"student": self.student, "second": self.second, "teacher": self.teacher}
