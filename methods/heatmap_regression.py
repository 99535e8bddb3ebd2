"""Heatmap Regression: a network learns from labelled images alone where each landmark is."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from semiseg.losses import in_full_precision
from semiseg.method import Batch, Method, Paper, Progress


class HeatmapRegression(Method):
    """The lower bound of localization: for every landmark a distribution over all pixels, a Gaussian around its place.

    The paper regresses the Gaussian's values by their squared error; with a few images, and one pixel in ten thousand
    that is not nearly zero, cross-entropy of the distributions has a gradient from the first step on.
    """

    title = "Heatmap Regression"
    paper = Paper(
        "Integrating Spatial Configuration into Heatmap Regression Based CNNs for Landmark Localization",
        "Payer, Stern, Bischof and Urschler",
        "MedIA 2019",
    )
    learns = "localization"
    uses_unlabeled = False
    space: ClassVar = {"sigma": (1.0, 2.0, 4.0)}

    class Config(Method.Config):
        sigma: float = Field(2.0, gt=0)  # of the Gaussian, in pixels of a training image

    def build(self) -> None:
        self.model = self.network()

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        logits = self.model(batch.labeled()).logits[:, 1:]
        return {"supervised": heatmap_loss(logits, batch.labels, self.config.sigma)}

    def predictors(self) -> dict[str, nn.Module]:
        return {"model": self.model}


@in_full_precision
def heatmap_loss(logits: Tensor, points: Tensor, sigma: float) -> Tensor:
    """Cross-entropy −Σ_p g(p) ln softmax_p(logits), g a Gaussian around the point that sums to 1, mean over landmarks.

    A point that was moved out of the image counts for nothing.

    Args:
        logits: (batch, landmarks, height, width).
        points: (batch, landmarks, 2), relative positions (y, x).
        sigma: in pixels.
    """
    axes = []
    for axis, length in enumerate(logits.shape[2:]):
        pixels = (points[..., axis, None] + 1) * length / 2 - 0.5
        away = torch.arange(length, device=logits.device) - pixels
        axes.append((-0.5 * (away / sigma).square()).softmax(-1))
    target = axes[0][..., :, None] * axes[1][..., None, :]
    cross = -(target * logits.flatten(2).log_softmax(2).view_as(logits)).sum((2, 3))
    inside = (points.abs() <= 1).all(-1).float()
    return (cross * inside).sum() / inside.sum().clamp(min=1)
