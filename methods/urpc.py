"""URPC: predictions from several decoder levels agree with their mean, where they already nearly do."""

import math
from functools import partial
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from semiseg.errors import UserError
from semiseg.losses import in_full_precision, supervised_loss
from semiseg.method import Batch, Method, Paper, Progress, predict
from semiseg.networks.auxiliary import AuxiliaryHeads, Upsampling, coarser_levels
from semiseg.perturbations import attention_dropout, channel_dropout, element_dropout, feature_noise

# Of what the auxiliary heads read, from the finest of the coarser levels down.
PERTURBATIONS = {
    2: (feature_noise, attention_dropout, element_dropout),
    3: tuple(partial(channel_dropout, probability=p) for p in (0.2, 0.3, 0.5)),
}


class UncertaintyRectifiedPyramidConsistency(Method):
    """One network with heads at up to four scales, each pulled towards the mean of all on unlabelled images.

    The divergence of a scale from the mean is its uncertainty: it down-weights pixels and is itself minimized.
    Training perturbs what the coarser heads read, also for labelled images since one pass serves both. The
    network's own head is not perturbed, and predicts.

    The heads stand on any backbone with a coarser decoder level. In 3D the channel dropout therefore comes before the
    heads; in the reference code it sits inside the decoder, also at the finest level, which here has only the
    backbone's own dropout. The reference code resizes coarse 2D logits to the nearest neighbour (`upsampling`), which
    makes the mean blocky; draws the noise and the threshold of the attention dropout once for the whole batch; and
    takes the logarithm of a softmax, which may underflow. Here every item has its own draw, and all is computed from
    log-softmax. The labels' loss is the mean over scales, as there, of which the network's own head has only its
    share. Weight and ramp are those of SSL4MIS, whose author is the paper's.
    """

    title = "URPC"
    paper = Paper(
        "Efficient Semi-supervised Gross Target Volume of Nasopharyngeal Carcinoma Segmentation via Uncertainty "
        "Rectified Pyramid Consistency",
        "Luo, Liao, Chen, Song, Chen, Zhang, Chen, Wang and Zhang",
        "MICCAI 2021",
    )

    class Config(Method.Config):
        consistency: float = Field(0.1, ge=0)  # weight at full ramp
        ramp_up: float = Field(1.0, gt=0, le=1)  # fraction of the training after which the weight is full
        upsampling: Upsampling = "linear"  # of the coarse logits

    space: ClassVar = {"consistency": (0.1, 0.5, 2.0), "ramp_up": (0.3, 1.0)}

    def build(self) -> None:
        task = self.task
        self.segmenter = self.network()
        self.perturbations = PERTURBATIONS[task.dims]
        levels = self.levels(predict(self.segmenter, torch.zeros(1, task.channels, *task.size)).decoder)
        if not levels:
            raise UserError(
                f"urpc, network {task.network!r}: its decoder has no level coarser than the last one, so there is no "
                "pyramid; choose a network that decodes in several steps, such as a U-Net."
            )
        self.heads = AuxiliaryHeads([m.shape[1] for m in levels], task.classes, task.dims, self.config.upsampling)

    def levels(self, decoder: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The maps that carry an auxiliary head."""
        return coarser_levels(decoder)[: len(self.perturbations)]

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        scales = [batch.split(logits) for logits in self.pyramid(batch.images())]
        supervised = torch.stack([supervised_loss(labeled, batch.labels) for labeled, _ in scales]).mean()
        distance, uncertainty = pyramid_consistency(torch.stack([unlabeled for _, unlabeled in scales]))
        self.note("uncertainty", uncertainty)
        weight = self.config.consistency * progress.ramp_up(self.config.ramp_up)
        return {"supervised": supervised, "consistency": weight * (distance + uncertainty)}

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Logits at the size of the images: the network's own, then those of the coarser levels."""
        output = self.segmenter(images)
        levels = self.levels(output.decoder)
        if self.training:
            levels = tuple(perturb(m) for perturb, m in zip(self.perturbations, levels, strict=False))
        return [output.logits, *self.heads(levels, images.shape[2:])]

    def predictors(self) -> dict[str, nn.Module]:
        return {"main": self.segmenter}


@in_full_precision
def pyramid_consistency(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Rectified distance of S predictions p_s from their mean p̄, and their uncertainty; both get a gradient.

    V_s = Σ_c p̄_c (ln p̄_c − ln p_s,c) and E_s = exp(−V_s) at every pixel. The distance is
    (1/S) Σ_s mean((p̄ − p_s)² E_s) / (mean(E_s) + 1e−8), the uncertainty (1/S) Σ_s mean(V_s); means run over
    items, pixels and, for the squares, classes. ln p̄ is a log-sum-exp over the scales.

    Args:
        logits: (S, batch, C, *space).
    """
    log_p = logits.log_softmax(2)
    log_mean = log_p.logsumexp(0) - math.log(len(logits))
    mean = log_mean.exp()
    divergence = (mean * (log_mean - log_p)).sum(2, keepdim=True)
    trust = (-divergence).exp()
    distance = ((mean - log_p.exp()).square() * trust).flatten(1).mean(1) / (trust.flatten(1).mean(1) + 1e-8)
    return distance.mean(), divergence.mean()
