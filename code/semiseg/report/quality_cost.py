"""Dice against the seconds that a training takes."""

from math import isnan, nan
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from semiseg.labels import in_words
from semiseg.report.results import Results, Run
from semiseg.report.style import looks
from semiseg.report.summary import lookup, on_one_processor, score_statistics, training_seconds
from semiseg.report.wording import plot_heading


def quality_cost(results: Results) -> Figure | None:
    """Dice against seconds of training, one panel per amount of labels; None where no run recorded them.

    Seconds are those of the processor that carried out most runs.
    """
    device, timed = on_one_processor(results.own)
    where = f" ({device})" if len(timed) < len(results.own) else ""
    amounts = results.compared
    scores, style = score_statistics(results), looks(results.entries)
    points = {
        labels: [
            (entry, cost, 100 * found[0])
            for entry in results.entries
            if (found := lookup(scores, results.primary.name, entry.name, labels))
            and not isnan(cost := seconds([run for run in timed if (run.method, run.labels) == (entry.name, labels)]))
        ]
        for labels in amounts
    }
    if not any(points.values()):
        return None
    rows = len({entry.name for shown in points.values() for entry, *_ in shown})
    figure = Figure(figsize=(2.6 + max(3.9, 2.6 * len(amounts)), max(3.2, 0.9 + 0.19 * rows)), layout="constrained")
    panels = figure.subplots(1, len(amounts), sharex=True, sharey=True, squeeze=False)[0]
    shown: dict[str, Any] = {}
    for axes, labels in zip(panels, amounts, strict=True):
        for entry, cost, dice in points[labels]:
            look = style[entry.name]
            shown[entry.title] = axes.plot(cost, dice, color=look.color, marker=look.marker, linestyle="none")[0]
        if best := frontier([(cost, dice) for _, cost, dice in points[labels]]):
            axes.step(*np.transpose(best), where="post", color="#aaaaaa", linewidth=0.9, zorder=1)
        axes.set(xlabel=f"Seconds of training{where}", xscale="log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(_few_digits)
        axes.tick_params(axis="x", which="both", labelsize=7)
        axes.tick_params(axis="x", which="minor", pad=5)  # as low as those of the longer ticks
        axes.set_title(f"{in_words(labels)} labelled", loc="left")
    panels[0].set_ylabel(results.primary.percent)
    in_order = [entry.title for entry in results.entries if entry.title in shown]
    figure.legend([shown[title] for title in in_order], in_order, loc="outside right upper")
    figure.suptitle(plot_heading(results), x=0.01, ha="left")
    return figure


def seconds(runs: list[Run]) -> float:
    """The mean that a training took; NaN where no run tells."""
    known = [took for run in runs if (took := training_seconds(run.record)) is not None]
    return fmean(known) if known else nan


def frontier(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """What nothing cheaper equals, from the cheapest on."""
    best: list[tuple[float, float]] = []
    for cost, dice in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or dice > best[-1][1]:
            best.append((cost, dice))
    return best


def _few_digits(value: float, _: int) -> str:
    """Of the ticks between powers of ten only some have room for a number."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""
