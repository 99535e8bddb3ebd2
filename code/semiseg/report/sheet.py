"""A sheet of pictures of a data set, with the outlines of what its masks show."""

from math import ceil
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from semiseg.data.store import Dataset
from semiseg.report.overlays import CLASS_COLORS

PICTURES, COLUMNS = 12, 4
WIDTH = 2.2  # inches of a picture
PIXELS = 400  # of its longer side at most; more would not be seen


def draw_sheet(dataset: Dataset, path: Path) -> None:
    """Write a sheet of cases of as many groups as possible, spread over the data set; of volumes one slice each."""
    cases = spread(dataset)
    columns = min(COLUMNS, len(cases))
    rows = ceil(len(cases) / columns)
    pictures = [_picture(dataset, case) for case in cases]
    ratio = max(image.shape[0] / image.shape[1] for image, _ in pictures)
    layout = ConstrainedLayoutEngine(h_pad=0.05, w_pad=0.03)
    figure = Figure(figsize=(WIDTH * columns, rows * (WIDTH * ratio + 0.2) + 0.3), layout=layout, dpi=150)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, case, (image, label) in zip(grid.flat, cases, pictures, strict=False):
        axes.imshow(image, interpolation="nearest")
        axes.set_title(case if len(case) <= 30 else f"…{case[-29:]}", fontsize=7)
        for index in range(1, len(dataset.info.classes)):
            inside = label == index
            if inside.any() and not inside.all():
                axes.contour(inside, levels=[0.5], colors=_color(index), linewidths=1.0)
    patches = [Patch(color=_color(index), label=name) for index, name in enumerate(dataset.info.classes) if index]
    figure.legend(handles=patches, loc="outside lower left", ncols=min(len(patches), 2 * columns), fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def spread(dataset: Dataset) -> list[str]:
    """Up to PICTURES cases in their order: one of every group first, evenly over the groups, then further ones."""
    rank: dict[str, int] = {}
    seen: dict[str, int] = {}
    for record in dataset.annotated.values():
        rank[record.id] = seen[record.group] = seen.get(record.group, -1) + 1
    chosen: list[str] = []
    for turn in sorted(set(rank.values())):
        cases, left = [case for case in rank if rank[case] == turn], PICTURES - len(chosen)
        if left >= len(cases):
            chosen += cases
        else:
            chosen += [cases[int(len(cases) * number / left)] for number in range(left)]
    return sorted(chosen)


def _picture(dataset: Dataset, case: str) -> tuple[np.ndarray, np.ndarray]:
    """The image (height, width, 3) within [0, 1] and the mask (height, width) of a case, thinned out."""
    image, label = dataset.image(case), dataset.label(case)
    if label.ndim == 3:  # the slice that shows most
        index = int((label > 0).sum((1, 2)).argmax())
        image, label = image[:, index], label[index]
    step = ceil(max(label.shape) / PIXELS)
    image, label = image[:, ::step, ::step], label[::step, ::step]
    shown = (image if len(image) == 3 else image[[0, 0, 0]]).transpose(1, 2, 0)
    return (shown / 255 if image.dtype == np.uint8 else shown), label


def _color(index: int) -> str:
    return CLASS_COLORS[(index - 1) % len(CLASS_COLORS)]
