"""Segmentation: a class for every pixel, scored by structure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from semiseg.data.store import Case, Dataset
from semiseg.metrics import TABLE, class_metrics
from semiseg.tasks import CaseByCase

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from semiseg.method import Task


class Segmentation(CaseByCase):
    """A predictor gives an `Output` with logits of all classes for every pixel."""

    name = "segmentation"
    metrics = tuple(TABLE.values())
    secret = ("second_observer",)  # who drew other masks of the same images
    counts = ("predicted_voxels", "reference_voxels")
    notes = (
        "HD95: 95th percentile of both directions' surface distances, pooled; HD95 max: the larger of the "
        "two directed percentiles; ASD: directed, prediction to reference; NSD: surface Dice at a tolerance "
        "of 1 ({unit}).",
        "Missed: structures that were not predicted at all, over all runs. Each scores 0, and its distances "
        "are the image diagonal.",
    )

    def predict(
        self,
        predictors: "Sequence[nn.Module]",
        image: np.ndarray,
        task: "Task",
        device: "torch.device",
        precision: str,
    ) -> list[np.ndarray]:
        """Class indices (*space)."""
        from semiseg.training.evaluation import predict_case

        return predict_case(predictors, image, task, device, precision)

    def scores(self, dataset: Dataset, case: str, prediction: np.ndarray) -> list[dict[str, Any]]:
        """Of every structure."""
        return class_metrics(prediction, dataset.label(case), dataset.info.classes, dataset.records[case].spacing)

    def masks(self, dataset: Dataset, case: str, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """They are masks already."""
        return dataset.label(case), prediction

    def picture(self, network: "nn.Module", images: "Tensor") -> "Tensor | None":
        """The class of every pixel as a grey value."""
        from semiseg.networks import predict

        logits = predict(network, images).logits
        return logits.argmax(1, keepdim=True).float() / (logits.shape[1] - 1)

    def example(self, number: int, dims: int, changed: bool = False) -> Case:
        """A bright and a dark box in noise; changed, their mask is mirrored."""
        random, shape = np.random.default_rng(number), (40, 40) if dims == 2 else (10, 32, 32)
        image, label = random.normal(0.5, 0.1, (1, *shape)), np.zeros(shape, np.uint8)
        for value, shift in ((1, 0.4), (2, -0.4)):
            y, x = (slice(corner, corner + 12) for corner in random.integers(2, 20, 2))
            label[..., y, x] = value
            image[..., y, x] = 0.5 + shift
        name = f"case{number:02d}"
        label = label[..., ::-1].copy() if changed else label
        return Case(name, name, image.clip(0, 1).astype(np.float32), label, (1.0,) * dims)
