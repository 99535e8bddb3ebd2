"""A grid of test cases: image, reference, and what every method predicted."""

import zipfile
from math import ceil, isfinite
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from semiseg.labels import in_words
from semiseg.report.results import Results, Run
from semiseg.report.summary import primary_scores
from semiseg.report.wording import plot_heading
from semiseg.settings import NONE

CASES = 4
PER_ROW = 10  # methods side by side; more continue in further blocks below
WIDTH = 1.25  # inches of a picture
# Lines are light ones on broader dark ones, so that they show on any tissue. Predictions have a color and dashes for
# each class, and where they agree with the reference, they lie inside its line.
EDGE = "black"
REFERENCE: dict[str, Any] = {"color": "white", "linewidth": 1.5}
REFERENCE_EDGE: dict[str, Any] = {"color": EDGE, "linewidth": 2.3}
PREDICTION_EDGE: dict[str, Any] = {"color": EDGE, "linewidth": 1.0}
PREDICTION_WIDTH = 0.9
CLASS_COLORS = ("#F0E442", "#56B4E9", "#E69F00", "#CC79A7", "#7FD8BE")  # light ones, mostly of Okabe and Ito
CLASS_DASHES: tuple[Any, ...] = ((0, (4, 1.5)), (0, (1.2, 1.2)), (0, (7, 1.2, 1.2, 1.2)))
Examples = dict[str, np.ndarray]  # the arrays of examples.npz


def overlays(results: Results) -> Figure | None:
    """One row per test case with the fewest labels; None where no examples are at hand."""
    shown = _examples(results)
    if not shown:
        return None
    first = shown[0][2]
    chosen = _of_different_groups(results, [str(case) for case in first["ids"]])
    cases, ratio = len(chosen), first["labels"].shape[1] / first["labels"].shape[2]
    per_row = ceil(len(shown) / ceil(len(shown) / PER_ROW))
    blocks = [shown[start : start + per_row] for start in range(0, len(shown), per_row)]
    columns, height = 2 + per_row, 0.5 + len(blocks) * (0.3 + cases * (WIDTH * ratio + 0.13))
    figure = Figure(
        figsize=(WIDTH * columns, height),
        layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0),
    )
    grid = figure.subplots(len(blocks) * cases, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for number, block in enumerate(blocks):
        for place, case in enumerate(chosen):
            row = grid[number * cases + place]
            image, reference = _displayable(first["images"][case]), first["labels"][case]
            _draw(row[0], image)
            _draw(row[1], image, reference, reference, dashed=False)
            row[0].text(
                -0.04,
                0.5,
                str(first["ids"][case]),
                transform=row[0].transAxes,
                rotation=90,
                ha="right",
                va="center",
                fontsize=6,
            )
            for axes, (_, run, examples) in zip(row[2:], block, strict=False):
                _draw(axes, image, examples["predictions"][case], reference)
                _write_dice(axes, results, run, str(first["ids"][case]))
            if place == 0:
                for axes, title in zip(row, ["Image", "Reference", *(t for t, _, _ in block)], strict=False):
                    axes.set_title(_wrapped(title), fontsize=7)
    run = shown[0][1]
    training = f"fold {results.fold_name(run.fold)}, seed {run.seed}"
    figure.suptitle(
        f"{plot_heading(results)}, {in_words(results.fewest)} labelled, {training}",
        x=0.01,
        ha="left",
        fontsize=8,
    )
    drawn: list[Any] = [(Line2D([], [], **REFERENCE_EDGE), Line2D([], [], **REFERENCE))]
    drawn += [
        (Line2D([], [], **PREDICTION_EDGE), Line2D([], [], **_class_line(i + 1))) for i in range(len(results.classes))
    ]
    names = ["reference", *(f"predicted: {name}" for name in results.classes)]
    fitting = int(WIDTH * columns / (0.06 * max(map(len, names)) + 0.6))  # inches of a letter and of a line
    figure.legend(drawn, names, loc="outside lower left", ncols=max(1, fitting), fontsize=7, handlelength=4)
    return figure


def _examples(results: Results) -> list[tuple[str, Run, Examples]]:
    """Title, run and arrays of every method that kept the same cases, in the order of the tables."""
    fold = min(run.fold for run in results.finished)
    out: list[tuple[str, Run, Examples]] = []
    for entry in results.entries:
        amounts = results.amounts_of(entry.name)
        if results.fewest not in amounts and entry.role == "semi-supervised" and NONE not in amounts:
            continue  # has not been trained with as few labels as the others
        labels = results.fewest if results.fewest in amounts else amounts[0]  # a bound of all labels, or of none
        runs = [r for r in results.cells[entry.name, labels] if r.fold == fold]
        if not runs:
            continue
        run = min(runs, key=lambda r: r.seed)
        try:
            with np.load(run.folder / "examples.npz", allow_pickle=False) as file:
                examples = {name: file[name] for name in ("ids", "images", "labels", "predictions")}
        except (OSError, KeyError, ValueError, zipfile.BadZipFile):
            continue
        if not out or np.array_equal(examples["ids"], out[0][2]["ids"]):
            out.append((entry.title, run, examples))
    return out


def _of_different_groups(results: Results, ids: list[str]) -> list[int]:
    """Places of the first case of each group, up to CASES: pictures of one group look alike."""
    groups = dict(zip(results.cases.case, results.cases.group, strict=True))
    first = {groups.get(case, case): place for place, case in reversed(list(enumerate(ids)))}
    return sorted(first.values())[:CASES]


def _displayable(image: np.ndarray) -> np.ndarray:
    """(C, H, W) uint8 as (H, W, 3) in [0, 1]; unless there are three channels, the first in gray."""
    channels = image if len(image) == 3 else image[[0, 0, 0]]
    return channels.transpose(1, 2, 0) / 255


def _draw(
    axes: Axes,
    image: np.ndarray,
    colored: np.ndarray | None = None,
    reference: np.ndarray | None = None,
    dashed: bool = True,
) -> None:
    """An image (H, W, 3) with the outlines of class masks (H, W): white the reference's, above it those in color."""
    axes.imshow(image, interpolation="nearest")
    height, width = image.shape[:2]
    for mask, in_color in ((reference, False), (colored, True)):
        for index in np.unique(mask) if mask is not None else []:
            if not index:
                continue
            inside = np.pad(mask == index, 1)  # so that a structure at the edge of the image has a line there, too
            for style in (PREDICTION_EDGE, _class_line(index)) if in_color else (REFERENCE_EDGE, REFERENCE):
                axes.contour(
                    np.arange(-1, width + 1),
                    np.arange(-1, height + 1),
                    inside,
                    levels=[0.5],
                    colors=style["color"],
                    linewidths=style["linewidth"],
                    linestyles=[style.get("linestyle", "-") if dashed else "-"],
                )
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def _class_line(index: int) -> dict[str, Any]:
    """The line of a predicted class, above its dark edge."""
    return {
        "color": CLASS_COLORS[(index - 1) % len(CLASS_COLORS)],
        "linestyle": CLASS_DASHES[(index - 1) % len(CLASS_DASHES)],
        "linewidth": PREDICTION_WIDTH,
    }


def _write_dice(axes: Axes, results: Results, run: Run, case: str) -> None:
    cases = results.cases
    of_run = (cases[["method", "labels", "fold", "seed"]] == list(run.key)).all(axis=1)
    dice = primary_scores(cases)[of_run & (cases.case == case)].mean()
    if isfinite(dice):
        words = f"{100 * dice:.0f}"
        axes.text(0.5, -0.03, words, transform=axes.transAxes, ha="center", va="top", fontsize=6.5)


def _wrapped(title: str, width: int = 16) -> str:
    """Lines of at most `width` letters, broken between words."""
    lines = [""]
    for word in title.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
