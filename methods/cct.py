"""CCT: decoders that read perturbed encoder features agree with the one that reads them clean."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from semiseg.losses import mse_consistency, supervised_loss
from semiseg.method import Batch, Method, Paper, Progress
from semiseg.perturbations import Perturbation, attention_dropout, channel_dropout, element_dropout, feature_noise

PERTURBATIONS: dict[str, Perturbation] = {
    "feature_noise": feature_noise,
    "element_dropout": partial(element_dropout, probability=0.3),
    "attention_dropout": attention_dropout,
    "channel_dropout": partial(channel_dropout, probability=0.3),
}


class CrossConsistencyTraining(Method):
    """One encoder, the main decoder, and an auxiliary decoder for each perturbation of the encoder's features.

    On unlabelled images the auxiliary decoders are pulled towards the main one, which gets no gradient from
    this and alone learns from labels, as in the paper. In SSL4MIS the gradient reaches both sides
    (`symmetric_gradient`), and all decoders learn from labels with equal weight, which leaves the main one a
    quarter of it (`supervise_auxiliary`). It draws the noise and the threshold of the attention dropout once for
    the whole batch; here every item has its own draw. The default perturbations are those of SSL4MIS, two of
    which are the paper's; its `channel_dropout` can be added. Auxiliary decoders rest in prediction. Memory grows
    with their number.

    The weight of 0.1 and its ramp are those of SSL4MIS, too; the authors' (yassouali/CCT) are 30, full after a tenth of
    the training.
    """

    title = "CCT"
    paper = Paper(
        "Semi-Supervised Semantic Segmentation with Cross-Consistency Training",
        "Ouali, Hudelot and Tami",
        "CVPR 2020",
    )

    class Config(Method.Config):
        consistency: float = Field(0.1, ge=0)  # weight at full ramp
        ramp_up: float = Field(1.0, gt=0, le=1)  # fraction of the training after which the weight is full
        perturbations: tuple[
            Literal["feature_noise", "element_dropout", "attention_dropout", "channel_dropout"], ...
        ] = Field(("feature_noise", "element_dropout", "attention_dropout"), min_length=1)  # a decoder for each
        symmetric_gradient: bool = False  # the main decoder moves towards the auxiliary ones, too
        supervise_auxiliary: bool = False  # all decoders share the labels' weight

    space: ClassVar = {"consistency": (0.1, 1.0, 5.0, 20.0), "ramp_up": (0.3, 1.0)}

    def build(self) -> None:
        self.segmenter = self.network()
        self.auxiliary = nn.ModuleList(self.decoder() for _ in self.config.perturbations)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        output = self.segmenter(batch.images())
        labeled, unlabeled = batch.split(output.logits)
        supervised = [supervised_loss(labeled, batch.labels)]
        if self.config.supervise_auxiliary:
            pairs = [batch.split(logits) for logits in self.perturbed(output.encoder, batch.images())]
            supervised += [supervised_loss(first, batch.labels) for first, _ in pairs]
            auxiliary = [second for _, second in pairs]
        else:
            auxiliary = self.perturbed([batch.split(m)[1] for m in output.encoder], batch.unlabeled())
        target = unlabeled.softmax(1)
        if not self.config.symmetric_gradient:
            target = target.detach()
        consistency = torch.stack([mse_consistency(logits, target) for logits in auxiliary]).mean()
        weight = self.config.consistency * progress.ramp_up(self.config.ramp_up)
        return {"supervised": torch.stack(supervised).mean(), "consistency": weight * consistency}

    def perturbed(self, features: Sequence[Tensor], images: Tensor) -> list[Tensor]:
        """Logits of every auxiliary decoder, whose perturbation (in training) meets each map independently."""
        logits = []
        for name, decoder in zip(self.config.perturbations, self.auxiliary, strict=True):
            maps = [PERTURBATIONS[name](m) for m in features] if self.training else features
            logits.append(decoder(maps, images))
        return logits

    def predictors(self) -> dict[str, nn.Module]:
        return {"main": self.segmenter}
