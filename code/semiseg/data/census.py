"""Counts what a data set holds: of its cases from the list alone, of its classes from all masks."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median_low

import numpy as np

from semiseg.data.store import Dataset


@dataclass(frozen=True)
class Outline:
    """What is known of the cases without looking at a pixel or a label, and so may decide how they are trained on."""

    cases: int
    bare: int  # of these: images without a mask
    groups: int  # as many as there are cases where it is not known who belongs together
    channels: int
    sizes: tuple[tuple[int, int], ...]  # along each axis of space, the least and the largest number of pixels
    size: tuple[int, ...]  # the usual one
    spacing: tuple[float, ...] | None  # the usual one in mm, where the source tells it

    @classmethod
    def of(cls, dataset: Dataset) -> "Outline":
        """The outline of a data set."""
        records = list(dataset.records.values())
        lengths = list(zip(*(record.shape[1:] for record in records), strict=True))
        spacings = zip(*(record.spacing for record in records), strict=True)
        return cls(
            len(records),
            sum(record.is_bare for record in records),
            len({record.group for record in records}),
            dataset.channels,
            tuple((min(along), max(along)) for along in lengths),
            tuple(map(median_low, lengths)),
            tuple(map(median_low, spacings)) if dataset.info.unit == "mm" else None,
        )

    @property
    def masked(self) -> int:
        """The cases with a mask."""
        return self.cases - self.bare

    @property
    def is_volumetric(self) -> bool:
        """Whether the cases are volumes."""
        return len(self.size) == 3

    @property
    def kind(self) -> str:
        """What the cases are called."""
        return "volumes" if self.is_volumetric else "images"


@dataclass(frozen=True)
class ClassCount:
    """How much there is of a class."""

    name: str
    share: float  # of all pixels
    cases: int  # that show it
    share_where_shown: float  # of the pixels of the images, or slices, that show it


def count_classes(dataset: Dataset, cases: Iterable[str]) -> list[ClassCount]:
    """Every class but the background, from the masks of cases: to be shown to people, never to choose settings from."""
    classes = range(1, len(dataset.info.classes))
    pixels = 0
    counts, shown_by, shown_on = (np.zeros(len(classes), np.int64) for _ in range(3))
    for case in cases:
        label = dataset.label(case)
        slices = label.reshape(-1, label.shape[-2] * label.shape[-1])  # (1 or depth, pixels)
        pixels += label.size
        for index in classes:
            per_slice = (slices == index).sum(1)
            counts[index - 1] += per_slice.sum()
            shown_by[index - 1] += per_slice.any()
            shown_on[index - 1] += np.count_nonzero(per_slice) * slices.shape[1]
    return [
        ClassCount(name, float(count / pixels), int(shown), float(count / on) if on else 0.0)
        for name, count, shown, on in zip(dataset.info.classes[1:], counts, shown_by, shown_on, strict=True)
    ]
