"""UA-MT: Mean Teacher that trusts the teacher only where the teacher is certain."""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from semiseg.losses import entropy, masked_mse
from semiseg.method import Paper, Progress

from .mean_teacher import MeanTeacher


class UncertaintyAwareMeanTeacher(MeanTeacher):
    """Consistency counts where the mean of several noisy teacher passes has low entropy.

    All passes form one batch (in the reference code: batches of two), each with noise and dropout of its own.
    The threshold rises from ¾ to the whole of ln C. The reference code keeps ln 2 and a factor 2 for any
    number of classes C, which never admits the least certain pixels and doubles the loss at C = 4.

    Weight, ramp and decay are the authors' own (yulequan/UA-MT: 6,000 steps of 2 + 2 volumes), which SSL4MIS kept.
    """

    title = "UA-MT"
    paper = Paper(
        "Uncertainty-aware Self-ensembling Model for Semi-supervised 3D Left Atrium Segmentation",
        "Yu, Wang, Li, Fu and Heng",
        "MICCAI 2019",
    )

    class Config(MeanTeacher.Config):
        starts_at: float = Field(0.0, ge=0, le=1)
        distance: Literal["mse"] = "mse"
        passes: int = Field(8, ge=1)  # stochastic teacher passes that measure the uncertainty

    def consistency(self, logits: Tensor, images: Tensor, progress: Progress) -> Tensor:
        target = self.target(images)
        passes = self.config.passes
        mean = self.target(torch.cat([images] * passes)).unflatten(0, (passes, -1)).mean(0)
        threshold = (0.75 + 0.25 * progress.ramp_up()) * math.log(self.task.classes)
        certain = (entropy(mean) < threshold).float()
        self.note("certain_fraction", certain.mean())
        return masked_mse(logits, target, certain)
