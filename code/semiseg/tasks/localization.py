"""Localization: a point for every landmark, scored by its distance from where a reader put it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from semiseg.data.store import POINTS, Case, Dataset
from semiseg.errors import UserError
from semiseg.metrics import Metric
from semiseg.tasks import CaseByCase

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from semiseg.data.cropping import Crop
    from semiseg.method import Task
    from semiseg.views import Motion

WITHIN = (2.0, 2.5, 3.0, 4.0)  # in the unit of the spacing, which is mm in the literature
DISC = 0.012  # radius of a landmark in a picture, as a share of the longer side


class Localization(CaseByCase):
    """Class k is landmark k. A predictor gives an `Output` whose logits of class k are highest where landmark k is."""

    name = "localization"
    metrics = (
        *(Metric(f"within_{limit:g}".replace(".", "_"), f"Within {limit:g}", "higher") for limit in WITHIN),
        Metric("radial_error", "Radial error", "lower", distance=True),
    )
    notes = (
        "Within: the share of landmarks found no farther away than that ({unit}); radial error: the mean distance.",
    )
    dims = (2,)
    crops = ("centre",)  # points may lie outside of windows anywhere
    secret = (POINTS,)

    def predict(
        self,
        predictors: "Sequence[nn.Module]",
        image: np.ndarray,
        task: "Task",
        device: "torch.device",
        precision: str,
    ) -> list[np.ndarray]:
        """Positions in pixels, (landmarks, 2).

        Always in float32: of pixels that bfloat16 rounds to one value, the first would be the highest.
        """
        from semiseg.data.scale import absolute, as_trained
        from semiseg.networks import predict

        scaled, found = as_trained(image, task.size, task.crop, device), []
        for predictor in predictors:
            maps = predict(predictor, scaled).logits[0, 1:].float()
            found.append(absolute(peaks(maps), image.shape[1:], task.crop).cpu().numpy())
        return found

    def scores(self, dataset: Dataset, case: str, prediction: np.ndarray) -> list[dict[str, Any]]:
        """Of every landmark."""
        reference = points_of(dataset, case)
        away = (prediction - reference) * np.array(dataset.records[case].spacing)
        rows = []
        for index, error in enumerate(np.sqrt((away**2).sum(1)).tolist(), start=1):
            row: dict[str, Any] = {"class": index, "class_name": dataset.info.classes[index]}
            row |= {m.name: float(error <= limit) for m, limit in zip(self.metrics, WITHIN, strict=False)}
            rows.append(row | {"radial_error": float(f"{error:.6g}")})
        return rows

    def labels(
        self, dataset: Dataset, cases: Sequence[str], size: tuple[int, ...], crop: "Crop | None"
    ) -> "list[Tensor]":
        """Relative positions (1, 1, landmarks, 2) in the part of an image that is seen."""
        import torch

        from semiseg.data.scale import relative

        if dataset.is_volumetric:
            raise UserError(f"{dataset.info.name}: points are learned from images, not from slices of volumes.")
        found = []
        for case in cases:
            points = torch.as_tensor(points_of(dataset, case), dtype=torch.float32)
            found.append(relative(points, dataset.records[case].shape[1:], crop)[None, None])
        return found

    def moved(self, labels: "Tensor", motion: "Motion") -> "Tensor":
        """They follow the images."""
        return motion.points(labels)

    def masks(self, dataset: Dataset, case: str, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A disc for each landmark."""
        shape = dataset.records[case].shape[1:]
        return discs(points_of(dataset, case), shape), discs(prediction, shape)

    def example(self, number: int, dims: int, changed: bool = False) -> Case:
        """The middle of a bright and of a dark box in noise; changed, they are mirrored."""
        random, image = np.random.default_rng(number), np.full((1, 40, 40), 0.5)
        corners = random.integers(4, 24, (2, 2))
        for (y, x), value in zip(corners, (0.9, 0.1), strict=True):
            image[:, y : y + 9, x : x + 9] = value
        image = (image + random.normal(0, 0.05, image.shape)).clip(0, 1).astype(np.float32)
        points = (corners + 4.0).astype(np.float32)
        name = f"case{number:02d}"
        return Case(name, name, image, None, (1.0, 1.0), {POINTS: 39 - points if changed else points})


def points_of(dataset: Dataset, case: str) -> np.ndarray:
    """Where the landmarks of a case are, in pixels, (landmarks, axes)."""
    points = dataset.field(case, POINTS)
    if not isinstance(points, np.ndarray) or len(points) != len(dataset.info.classes) - 1:
        raise UserError(f"{dataset.info.name}: case {case!r} has not one point for every landmark; prepare it again.")
    return points


def peaks(maps: "Tensor") -> "Tensor":
    """Where maps (landmarks, height, width) are highest, (landmarks, 2), as relative positions.

    Between pixels, the parabola through the highest one and its two neighbours along an axis tells.
    """
    import torch
    from torch.nn import functional as F

    count, height, width = maps.shape
    best = maps.flatten(1).argmax(1)
    padded = F.pad(maps[None], (1, 1, 1, 1), mode="reflect")[0]
    found = []
    for axis, (place, length) in enumerate([(best // width, height), (best % width, width)]):
        y, x, each = best // width + 1, best % width + 1, torch.arange(count, device=maps.device)
        step = (1, 0) if axis == 0 else (0, 1)
        low, middle, high = (padded[each, y + k * step[0], x + k * step[1]] for k in (-1, 0, 1))
        curve = (low - 2 * middle + high).clamp(max=-1e-12)
        shift = ((low - high) / (2 * curve)).clamp(-0.5, 0.5)
        found.append(2 * (place + shift + 0.5) / length - 1)
    return torch.stack(found, 1)


def discs(points: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Class indices of an image with a disc round each point."""
    mask = np.zeros(shape, np.uint8)
    y, x = np.ogrid[: shape[0], : shape[1]]
    radius = max(1.0, DISC * max(shape))
    for index, (row, column) in enumerate(points, start=1):
        mask[(y - row) ** 2 + (x - column) ** 2 <= radius**2] = index
    return mask
