"""Entropy minimization: the network should be certain about images without labels."""

import math
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from semiseg.losses import in_full_precision, supervised_loss
from semiseg.method import Batch, Method, Paper, Progress


class EntropyMinimization(Method):
    """The entropy of every unlabelled pixel's prediction, as a fraction of its maximum ln C, joins the loss.

    There is no target and no threshold: the least certain pixels get almost no gradient, like the most certain
    ones, and an all-background answer would be a minimum as well, were it not for the labels. Where few labels make
    a network miss structures, it becomes certain of having missed nothing; a weight of 0.01 is better there.

    The SSL4MIS code takes the entropy of labelled images too (`entropy_on: all`), divides by a constant, ln 4 in
    2D and ln 2 in 3D, and adds 1e−6 inside the logarithm; here C is the number of classes, and the entropy is exact.
    Its weight of 0.1 and its ramp are the defaults; the authors' weight (valeoai/ADVENT) is 0.001 throughout.
    """

    title = "Entropy Minimization"
    paper = Paper(
        "ADVENT: Adversarial Entropy Minimization for Domain Adaptation in Semantic Segmentation",
        "Vu, Jain, Bucher, Cord and Pérez",
        "CVPR 2019",
    )
    divisible = True

    class Config(Method.Config):
        entropy: float = Field(0.1, ge=0)  # weight at full ramp
        ramp_up: float = Field(1.0, gt=0, le=1)  # fraction of the training after which the weight is full
        entropy_on: Literal["unlabeled", "all"] = "unlabeled"  # images whose entropy counts

    space: ClassVar = {"entropy": (0.01, 0.03, 0.1, 0.5), "ramp_up": (0.3, 1.0)}

    def build(self) -> None:
        self.model = self.network()

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        logits = self.model(batch.images()).logits
        labeled, unlabeled = batch.split(logits)
        entropy = normalized_entropy(logits if self.config.entropy_on == "all" else unlabeled)
        self.note("normalized_entropy", entropy)
        weight = self.config.entropy * progress.ramp_up(self.config.ramp_up)
        return {"supervised": supervised_loss(labeled, batch.labels), "entropy": weight * entropy}

    def predictors(self) -> dict[str, nn.Module]:
        return {"network": self.model}


@in_full_precision
def normalized_entropy(logits: Tensor) -> Tensor:
    """−Σ_c p_c ln p_c / ln C, from 0 (certain) to 1 (uniform), mean over items and pixels.

    p is the softmax of (batch, C, *space) logits.
    """
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1).mean() / math.log(logits.shape[1])
