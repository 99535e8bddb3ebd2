"""Training curves: few methods in one panel, many in a panel each beside the reference."""

from math import ceil
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from semiseg.labels import Labels, in_words
from semiseg.report.results import KEY, Entry, Results
from semiseg.report.style import GRAY, looks
from semiseg.report.wording import plot_heading

TOGETHER = 6  # methods in one panel; the curves of more cannot be told apart
PER_ROW = 6  # small panels side by side
FITTING = 24  # letters above a small panel; longer titles are smaller
PANEL = (1.45, 1.1)  # inches of a small panel with its surroundings; a layout engine takes minutes for fifty of them
LEFT, LINE, HEADING, STEPS = 0.75, 0.14, 0.16, 0.42  # inches: ticks, a line above all, a share of labels, its steps
Losses = dict[tuple[str, Labels], pd.Series]  # by method and amount of labels, the smoothed loss at each step


def training_curves(results: Results) -> Figure | None:
    """The supervised loss of every method for every amount of labels; None where nothing was logged."""
    losses = _losses(results)
    if not losses:
        return None
    entries = [entry for entry in results.entries if any(method == entry.name for method, _ in losses)]
    return (_together if len(entries) <= TOGETHER else _apart)(results, entries, losses)


def _together(results: Results, entries: list[Entry], losses: Losses) -> Figure:
    """One panel per amount of labels with the curves of all methods."""
    amounts, style = [labels for labels in results.amounts if labels in _amounts(losses)], looks(results.entries)
    figure = Figure(figsize=(2.4 + 2.4 * len(amounts), 3.4), layout="constrained")
    panels = figure.subplots(1, len(amounts), sharey=True, squeeze=False)[0]
    shown: dict[str, Any] = {}
    for axes, labels in zip(panels, amounts, strict=True):
        for entry in entries:
            if (loss := losses.get((entry.name, labels))) is not None:
                look = style[entry.name]
                shown[entry.title] = axes.plot(loss.index, loss, color=look.color, linestyle=look.dash)[0]
        axes.set(xlabel="Step", yscale="log")
        axes.set_title(f"{in_words(labels)} labelled", loc="left")
    panels[0].set_ylabel("Supervised loss")
    figure.legend(shown.values(), shown.keys(), loc="outside right upper")
    figure.suptitle(plot_heading(results), x=0.01, ha="left")
    return figure


def _apart(results: Results, entries: list[Entry], losses: Losses) -> Figure:
    """A block of panels per amount of labels, one for each method, in front of the lower bound's curve in gray."""
    reference = results.bound("lower bound") or results.entries[0]
    amounts = [labels for labels in results.compared if labels in _amounts(losses)]
    blocks = {
        labels: [
            (entry, own)
            for entry in entries
            for own in (1.0 if entry.role == "upper bound" else labels,)
            if entry != reference and (entry.name, own) in losses
        ]
        for labels in amounts
    }
    rows = sum(ceil(len(shown) / PER_ROW) for shown in blocks.values())
    about = plot_heading(results)
    margin = LINE * (len(about.splitlines()) + 1)
    width, height = LEFT + PANEL[0] * PER_ROW, margin + rows * PANEL[1] + len(blocks) * (HEADING + STEPS)
    figure, style, top = Figure(figsize=(width, height)), looks(results.entries), height - margin
    limits = _limits(
        [losses[entry.name, own] for shown in blocks.values() for entry, own in shown]
        + [losses[reference.name, labels] for labels in blocks if (reference.name, labels) in losses]
    )
    for labels, shown in blocks.items():
        heading = f"{in_words(labels)} labelled; grey: {reference.title}"
        figure.text(LEFT / width, (top - 0.1) / height, heading, va="top", fontweight="bold", fontsize=8)
        top -= HEADING
        for place, (entry, own) in enumerate(shown):
            row, column = divmod(place, PER_ROW)
            corner = (LEFT + column * PANEL[0], top - (row + 1) * PANEL[1])
            size = (PANEL[0] - 0.15, PANEL[1] - 0.28)  # the rest is for the method's name and space between panels
            axes = figure.add_axes((corner[0] / width, corner[1] / height, size[0] / width, size[1] / height))
            axes.set_yscale("log")
            axes.set(xlim=limits[0], ylim=limits[1])  # matplotlib's sharing takes quadratic time
            if (behind := losses.get((reference.name, labels))) is not None:
                axes.plot(behind.index, behind, color=GRAY, linewidth=2.4, alpha=0.4)
            loss = losses[entry.name, own]
            axes.plot(loss.index, loss, color=style[entry.name].color, linewidth=1.2)
            title = entry.title if own == labels else f"{entry.title}, {in_words(own)}"
            axes.set_title(title, loc="left", fontsize=7 * min(1, FITTING / len(title)), pad=3)
            axes.tick_params(
                labelsize=6, which="both", labelleft=column == 0, labelbottom=place + PER_ROW >= len(shown)
            )
            if column == 0:
                axes.set_ylabel("Loss", fontsize=7)
            if place + PER_ROW >= len(shown):
                axes.set_xlabel("Step", fontsize=7, labelpad=1)
        top -= ceil(len(shown) / PER_ROW) * PANEL[1] + STEPS
    figure.suptitle(about, x=0.01, y=1 - 0.06 / height, ha="left")
    return figure


def _limits(lines: list[pd.Series]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Limits of step and loss that suit all lines."""
    axes = Figure().add_subplot()
    axes.set_yscale("log")
    for line in lines:
        axes.plot(line.index, line)
    return axes.get_xlim(), axes.get_ylim()


def _amounts(losses: Losses) -> set[Labels]:
    return {labels for _, labels in losses}


def _losses(results: Results) -> Losses:
    """Mean over folds and seeds, smoothed over a twentieth of the training."""
    curves = _logged(results)
    if curves.empty:
        return {}
    out: Losses = {}
    groups: Any = curves.groupby(["method", "labels"])  # the stubs do not know what the keys are
    for key, curve in groups:
        loss = curve.groupby("step")["loss"].mean()
        out[key] = loss.rolling(max(1, len(loss) // 20), min_periods=1, center=True).mean()
    return out


def _logged(results: Results) -> pd.DataFrame:
    """Columns KEY, step, loss; several supervised losses of one method are averaged."""
    frames = []
    for run in results.finished:
        try:
            curve = pd.read_csv(run.folder / "curve.csv")
        except (OSError, ValueError):  # pandas' own errors are ValueErrors
            continue
        losses = [column for column in curve if str(column).startswith("supervised")]
        if losses and "step" in curve:
            frames.append(
                pd.DataFrame(
                    {
                        **dict(zip(KEY, run.key, strict=True)),
                        "step": curve["step"],
                        "loss": curve[losses].mean(axis=1),
                    }
                )
            )
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
