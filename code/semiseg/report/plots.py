"""The plots of a report, as PNG and PDF, the same bytes for the same results."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from semiseg.labels import Labels, count_of, in_words
from semiseg.report.curves import training_curves
from semiseg.report.overlays import overlays
from semiseg.report.quality_cost import quality_cost
from semiseg.report.results import Entry, Results
from semiseg.report.style import RC, Look, looks
from semiseg.report.summary import lookup, score_statistics
from semiseg.report.wording import about, plot_heading, share_or_number

DPI = 160
SUFFIXES = (".png", ".pdf")


@dataclass(frozen=True)
class Plot:
    """A saved plot and what the page says below it."""

    name: str  # of its files
    title: str
    caption: str
    about: str = ""  # on what data and how much was trained, as below tables


def write_plots(results: Results, folder: Path) -> list[Plot]:
    """Draw and save everything these results can show; returns what lies in `folder`, in reading order."""
    folder.mkdir(parents=True, exist_ok=True)
    amount, score = share_or_number(results), results.primary.title
    bounded = any(entry.role == "upper bound" for entry in results.entries)
    over = results.repeated
    bars = f" over {over}, bars are ± one standard deviation" if over else ""
    plots: list[tuple[Plot, Callable[[Results], Figure | None]]] = [
        (
            Plot(
                "label_efficiency",
                "Label efficiency",
                f"{score} by {amount} of labelled training cases: mean{bars}."
                f"{' Grey line and band: trained with all labels.' if bounded else ''}",
            ),
            label_efficiency,
        ),
        (
            Plot(
                "quality_cost",
                "Quality against cost",
                f"{score} against seconds of training, with those of a pre-training that a run starts from: means over "
                "runs. Grey steps: what nothing cheaper equals. Seconds can be compared where runs had the same "
                "machine and as many of them shared it (tables/cost).",
            ),
            quality_cost,
        ),
        (
            Plot(
                "case_dice",
                f"{score} of every test case",
                "One dot per test case (mean over classes and trainings); boxes span the quartiles, whiskers 1.5 "
                "times their range.",
            ),
            case_dice,
        ),
        (
            Plot(
                "training_curves",
                "Supervised loss during training",
                "Mean over folds and seeds, smoothed over a twentieth of the training.",
            ),
            training_curves,
        ),
        (
            Plot(
                "overlays",
                "Predictions",
                f"The same test cases for every method, at the smallest {amount} of labels, first fold and seed. "
                "Dashed: prediction; white line with black edges: reference, whose own picture has the colours of its "
                f"classes; number: {score} of the case.",
            ),
            overlays,
        ),
    ]
    drawn = []
    for plot, draw in plots:
        with matplotlib.rc_context(RC):
            figure = draw(results)
            if figure is not None:
                save_figure(figure, folder / plot.name)
            elif draw is overlays:
                _keep(plot, results.path / "plots", folder)
                plot = replace(plot, caption=f"{plot.caption} Drawn by an earlier report: the examples are not here.")
            else:
                for suffix in SUFFIXES:
                    (folder / f"{plot.name}{suffix}").unlink(missing_ok=True)
        if (folder / f"{plot.name}.png").exists():
            drawn.append(replace(plot, about=about(results)))
    return drawn


def _keep(plot: Plot, earlier: Path, folder: Path) -> None:
    """Take over a picture from an earlier report: examples are too large for git, their picture is not."""
    for suffix in SUFFIXES:
        picture = earlier / f"{plot.name}{suffix}"
        if picture.exists() and folder.resolve() != earlier.resolve():
            shutil.copyfile(picture, folder / picture.name)


def label_efficiency(results: Results) -> Figure:
    """Dice against the amount of labels; with a single one, Dice per method."""
    scores = score_statistics(results)
    amounts = results.compared
    if len(amounts) == 1:
        return _one_amount(results, scores, amounts[0])
    figure = Figure(figsize=(7.5, max(4.2, 0.24 * len(results.entries) + 1)), layout="constrained")
    axes = figure.add_subplot()
    style, ends = looks(results.entries), []
    for index, entry in enumerate(results.entries):
        look = style[entry.name]
        if entry.role == "upper bound":
            mean, _ = _upper_bound(scores, entry, look, axes.axhspan, axes.axhline)
            ends.append((entry, look, len(amounts) - 0.75, mean))
            continue
        shift = 0.16 * (index / len(results.entries) - 0.5)  # so that error bars do not hide each other
        known = [
            (x + shift, *found) for x, labels in enumerate(amounts) if (found := _score(scores, entry.name, labels))
        ]
        if known:
            at, mean, deviation = np.transpose(known)
            axes.errorbar(at, mean, deviation, **look.line, elinewidth=0.8, capsize=1.5, zorder=3)
            ends.append((entry, look, at[-1] + 0.02, mean[-1]))
    axes.set(
        xticks=range(len(amounts)),
        xticklabels=map(in_words, amounts),
        ylabel=results.primary.percent,
        xlabel="Labelled training cases",
        xlim=(-0.25, len(amounts) - 0.75),
    )
    axes.set_title(plot_heading(results), loc="left")
    _label_ends(axes, figure.get_figheight(), ends)
    return figure


def case_dice(results: Results) -> Figure:
    """The distribution of Dice over test cases, one panel per amount of labels."""
    score = results.primary.name
    cases = results.cases.groupby(["method", "labels", "case"], as_index=False)[score].mean()
    cases[score] *= 100
    amounts = results.compared
    upper = [e.name for e in results.entries if e.role == "upper bound"]
    style, names = looks(results.entries), [e.name for e in results.entries]
    palette = {name: style[name].color for name in names}
    figure = Figure(figsize=(2.4 + 2.6 * len(amounts), 0.9 + 0.34 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(amounts), sharex=True, sharey=True, squeeze=False)[0]
    np.random.seed(0)  # seaborn jitters with the global generator, and the same results give the same bytes
    for axes, labels in zip(panels, amounts, strict=True):
        shown = cases[(cases.labels == labels) | cases.method.isin(upper)]
        rows = {"data": shown, "x": score, "y": "method", "order": names, "hue": "method", "palette": palette}
        seaborn.stripplot(**rows, size=2.2, alpha=0.35, jitter=0.22, ax=axes, legend=False, rasterized=True)
        seaborn.boxplot(**rows, fill=False, width=0.56, linewidth=1, showfliers=False, ax=axes, legend=False)
        axes.set(
            yticks=range(len(names)),
            yticklabels=[e.title for e in results.entries],
            xlabel=results.primary.percent,
            ylabel="",
        )
        axes.set_title(f"{in_words(labels)} labelled", loc="left")
    figure.suptitle(plot_heading(results), x=0.01, ha="left")
    return figure


def _one_amount(results: Results, scores: pd.DataFrame, labels: Labels) -> Figure:
    """Dice of every method, for benchmarks with one amount of labels."""
    entries = results.entries[::-1]
    figure = Figure(figsize=(6.5, 1.2 + 0.3 * len(entries)), layout="constrained")
    axes = figure.add_subplot()
    style = looks(results.entries)
    for height, entry in enumerate(entries):
        look = style[entry.name]
        if entry.role == "upper bound":
            found: tuple[float, float] | None = _upper_bound(scores, entry, look, axes.axvspan, axes.axvline)
        else:
            found = _score(scores, entry.name, labels)
        if found:
            mean, deviation = found
            axes.errorbar(mean, height, xerr=deviation, **look.line, capsize=2, zorder=3)
            axes.annotate(
                f"{mean:.1f}",
                (mean, height),
                (0, 5),
                textcoords="offset points",
                ha="center",
                fontsize=7,
                color=look.ink,
                bbox={"color": "white", "pad": 0.5},
            )
    axes.set(
        yticks=range(len(entries)),
        yticklabels=[e.title for e in entries],
        ylim=(-0.6, len(entries) - 0.3),
        xlabel=f"{results.primary.percent} with {in_words(labels)}"
        f"{'' if count_of(labels) else ' of the cases'} labelled",
    )
    axes.set_title(plot_heading(results), loc="left")
    return figure


def _score(scores: pd.DataFrame, method: str, labels: Labels) -> tuple[float, float] | None:
    """Mean and standard deviation in percent, the latter 0 for a single training."""
    found = lookup(scores, str(scores.columns[0][0]), method, labels)  # the first metric is the one to compare by
    return (100 * found[0], float(np.nan_to_num(100 * found[1]))) if found else None


def _upper_bound(
    scores: pd.DataFrame, entry: Entry, look: Look, band: Callable[..., Any], line: Callable[..., Any]
) -> tuple[float, float]:
    """Draw a line with a band across the axes; returns mean and standard deviation."""
    mean, deviation = _score(scores, entry.name, 1.0) or (float("nan"), 0.0)
    band(mean - deviation, mean + deviation, color=look.color, alpha=0.15, linewidth=0)
    line(mean, color=look.color, linewidth=1.2, linestyle=look.dash)
    return mean, deviation


def _label_ends(axes: Axes, height: float, ends: list[tuple[Entry, Look, float, float]]) -> None:
    """Each method's name right of its last point (x, y), moved apart where names would overlap."""
    low, high = axes.get_ylim()
    high = min(high, 101.0)
    gap = (high - low) * 0.15 / (height - 1)  # a line of text; titles and ticks take an inch
    ends = sorted(ends, key=lambda end: end[3])
    places = [y for *_, y in ends]
    for _ in range(300):  # push neighbors apart a little at a time until all have room
        for i in range(len(places) - 1):
            overlap = gap - (places[i + 1] - places[i])
            if overlap > 0:
                places[i] -= overlap / 2
                places[i + 1] += overlap / 2
    right = axes.get_xlim()[1]
    for (entry, look, x, y), place in zip(ends, places, strict=True):
        axes.annotate(
            entry.title,
            (x, y),
            (right + 0.06, place),
            va="center",
            fontsize=8,
            color=look.ink,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": look.color,
                "linewidth": 0.6,
                "shrinkA": 0,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )
    axes.set_ylim(low, high)


def save_figure(figure: Figure, stem: Path) -> None:
    """Both formats, without the date and the version that would make equal results differ."""
    FigureCanvasAgg(figure)
    figure.savefig(stem.with_suffix(".png"), dpi=DPI, metadata={"Software": None})
    figure.set_layout_engine("none")  # keep the layout just found, which took longer than drawing
    figure.savefig(
        stem.with_suffix(".pdf"), dpi=DPI, metadata={"CreationDate": None, "Creator": None, "Producer": None}
    )
