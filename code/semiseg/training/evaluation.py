"""Whole-case prediction, and the per-case numbers of a finished method."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn
from torch.nn import functional as F

from semiseg.data.sampling import resize
from semiseg.data.store import Dataset
from semiseg.method import Ensemble, Method, Task, predict
from semiseg.metrics import class_metrics
from semiseg.training.precision import autocast

SLICES_AT_ONCE = 64
EXAMPLES = 4


@dataclass
class Evaluation:
    """Rows of `cases.csv` and `predictors.csv`, and a few predictions to look at."""

    cases: list[dict[str, Any]] = field(default_factory=list)
    predictors: list[dict[str, Any]] = field(default_factory=list)
    examples: dict[str, list[Any]] = field(
        default_factory=lambda: {"ids": [], "images": [], "labels": [], "predictions": []}
    )


def evaluate(
    method: Method, dataset: Dataset, cases: Iterable[str], device: torch.device, precision: str
) -> Evaluation:
    """Predict every case with every predictor of the method; the first predictor is the reported one."""
    result = Evaluation()
    shown: set[str] = set()
    for case in cases:
        record, image, label = dataset.records[case], dataset.image(case), dataset.label(case)
        for index, (name, predictor) in enumerate(method.predictors().items()):
            prediction = predict_case(predictor, image, method.task, device, precision)
            rows = class_metrics(prediction, label, dataset.info.classes, record.spacing)
            rows = [{"case": case, "group": record.group, **row} for row in rows]
            if index:
                networks = len(predictor) if isinstance(predictor, Ensemble) else 1
                result.predictors += [{"predictor": name, "networks": networks, **row} for row in rows]
                continue
            result.cases += rows
            if record.group not in shown and len(shown) < EXAMPLES:  # pictures of one group look alike
                shown.add(record.group)
                _add_example(result.examples, case, image, label, prediction)
    return result


@torch.no_grad()
def predict_case(network: nn.Module, image: np.ndarray, task: Task, device: torch.device, precision: str) -> np.ndarray:
    """Class indices (*space) of a (channels, *space) image at its own resolution.

    2D: the image, or every slice of a volume, is resized to the training size and the probabilities are
    resized back. 3D: sliding windows of the training size that overlap by half, weighted by a Gaussian.
    """
    values = torch.tensor(image, device=device)
    values = values.float() / 255 if values.dtype == torch.uint8 else values.float()

    def probabilities(batch: Tensor) -> Tensor:
        with autocast(precision, device, task.dims):
            return predict(network, batch).logits.float().softmax(1)

    if task.dims == 3:
        window = sliding_window_inference(values[None], task.size, 4, probabilities, 0.5, mode="gaussian")
        assert isinstance(window, Tensor)
        return window[0].argmax(0).to(torch.uint8).cpu().numpy()
    slices = values[None] if values.ndim == 3 else values.transpose(0, 1)
    predicted = []
    for chunk in slices.split(SLICES_AT_ONCE):
        small = probabilities(resize(chunk, task.size))
        predicted.append(F.interpolate(small, chunk.shape[2:], mode="bilinear").argmax(1))
    labels = torch.cat(predicted).to(torch.uint8).cpu().numpy()
    return labels[0] if values.ndim == 3 else labels


def _add_example(
    examples: dict[str, list[Any]], case: str, image: np.ndarray, label: np.ndarray, prediction: np.ndarray
) -> None:
    """Keep an image, or the slice of a volume that shows most of the reference."""
    if label.ndim == 3:
        index = int((label > 0).sum((1, 2)).argmax())
        image, label, prediction = image[:, index], label[index], prediction[index]
    pixels = image if image.dtype == np.uint8 else (255 * image).round().astype(np.uint8)
    for key, value in zip(examples, (case, pixels, label, prediction), strict=True):
        examples[key].append(value)
