"""Whole-case prediction, and the per-case numbers of a finished method."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from semiseg.data.cropping import region
from semiseg.data.scale import from_training, to_training
from semiseg.data.store import Dataset
from semiseg.method import Ensemble, Method, Task, predict
from semiseg.metrics import class_metrics
from semiseg.training.precision import autocast

SLICES_AT_ONCE = 64
PIXELS = 192  # of an example's longer side at most


@dataclass
class Evaluation:
    """Rows of `cases.csv` and `predictors.csv`, and a small picture of every case to look at."""

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
    for case in cases:
        image, label = dataset.image(case), dataset.label(case)
        for index, (name, predictor) in enumerate(method.predictors().items()):
            prediction = predict_case(predictor, image, method.task, device, precision)
            rows = _scores(dataset, case, prediction, label)
            if index:
                networks = len(predictor) if isinstance(predictor, Ensemble) else 1
                result.predictors += [{"predictor": name, "networks": networks, **row} for row in rows]
                continue
            result.cases += rows
            _add_example(result.examples, case, image, label, prediction)
    return result


def evaluate_selected(
    method: Method,
    selected: dict[str, dict[str, Tensor]],
    dataset: Dataset,
    cases: Sequence[str],
    device: torch.device,
    precision: str,
) -> list[dict[str, Any]]:
    """Rows of `predictors.csv` of the reported network with weights that rules have chosen, which it keeps."""
    network, rows = next(iter(method.predictors().values())), []
    for rule, weights in selected.items():
        network.load_state_dict(weights)
        for case in cases:
            prediction = predict_case(network, dataset.image(case), method.task, device, precision)
            scores = _scores(dataset, case, prediction, dataset.label(case))
            rows += [{"predictor": f"selected on {rule}", "networks": 1, **row} for row in scores]
    return rows


def _scores(dataset: Dataset, case: str, prediction: np.ndarray, label: np.ndarray) -> list[dict[str, Any]]:
    record = dataset.records[case]
    rows = class_metrics(prediction, label, dataset.info.classes, record.spacing)
    return [{"case": case, "group": record.group, **row} for row in rows]


@torch.no_grad()
def predict_case(network: nn.Module, image: np.ndarray, task: Task, device: torch.device, precision: str) -> np.ndarray:
    """Class indices (*space) of a (channels, *space) image at its own resolution.

    2D: the image, or every slice of a volume, is resized to the training size and the probabilities are
    resized back. 3D, and 2D with windows that lie anywhere: sliding windows of the training size that overlap by half,
    weighted by a Gaussian; with a `stride` of the task so many voxels apart and weighted alike. What a central window
    leaves out is background.
    """
    seen = region(task.crop, image.shape)
    values = torch.tensor(image[seen], device=device)
    values = values.float() / 255 if values.dtype == torch.uint8 else values.float()

    def probabilities(batch: Tensor) -> Tensor:
        with autocast(precision, device, task.dims):
            return predict(network, batch).logits.float().softmax(1)

    def slide(images: Tensor, at_once: int) -> Tensor:
        if task.stride:  # half a voxel less than what overlaps, since MONAI rounds the distance down
            overlap = [1 - (step + 0.5) / side for step, side in zip(task.stride, task.size, strict=True)]
            predicted = sliding_window_inference(images, task.size, at_once, probabilities, overlap, mode="constant")
        else:
            predicted = sliding_window_inference(images, task.size, at_once, probabilities, 0.5, mode="gaussian")
        assert isinstance(predicted, Tensor)
        return predicted

    labels = np.zeros(image.shape[1:], np.uint8)
    if task.dims == 3:
        labels[seen] = slide(values[None], 4)[0].argmax(0).to(torch.uint8).cpu().numpy()
        return labels
    slices = values[None] if values.ndim == 3 else values.transpose(0, 1)
    predicted = []
    for chunk in slices.split(SLICES_AT_ONCE):
        scaled = to_training(chunk, task.size, task.crop)
        small = probabilities(scaled) if tuple(scaled.shape[2:]) == tuple(task.size) else slide(scaled, SLICES_AT_ONCE)
        predicted.append(from_training(small, chunk.shape[2:], task.size, task.crop).argmax(1))
    found = torch.cat(predicted).to(torch.uint8).cpu().numpy()
    labels[seen] = found[0] if values.ndim == 3 else found
    return labels


def _add_example(
    examples: dict[str, list[Any]], case: str, image: np.ndarray, label: np.ndarray, prediction: np.ndarray
) -> None:
    """Keep an image, or the slice of a volume that shows most of the reference, thinned out."""
    if label.ndim == 3:
        index = int((label > 0).sum((1, 2)).argmax())
        image, label, prediction = image[:, index], label[index], prediction[index]
    step = ceil(max(label.shape) / PIXELS)
    image, label, prediction = image[:, ::step, ::step], label[::step, ::step], prediction[::step, ::step]
    pixels = image if image.dtype == np.uint8 else (255 * image).round().astype(np.uint8)
    for key, value in zip(examples, (case, pixels, label, prediction), strict=True):
        examples[key].append(value)
