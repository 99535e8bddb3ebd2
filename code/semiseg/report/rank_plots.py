"""Plots of ranks over several data sets: a dot for each, and a critical-difference diagram where there are enough."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from semiseg.report.ranks import Ranks, cliques, critical_difference
from semiseg.report.results import Entry
from semiseg.report.style import looks

LINE = 0.14  # inches of a line of the heading


def rank_plot(ranks: Ranks, entries: list[Entry], names: dict[str, str], told: list[str], metric: str) -> Figure:
    """A row per method, the best on top: its rank in every data set and their mean.

    `names` are the data sets', `told` is what each benchmark was, for the heading, and `metric` what ranks are by.
    """
    average, style = ranks.average, looks(entries)
    titles = {entry.name: entry.title for entry in entries}
    figure = Figure(figsize=(6.6, 1.5 + 0.27 * len(average) + LINE * len(told)), layout="constrained")
    axes = figure.add_subplot()
    markers = "osD^vPXp*h"
    for index, (data, row) in enumerate(ranks.data_sets.iterrows()):
        axes.plot(
            row[average.index],
            range(len(average)),
            linestyle="none",
            marker=markers[index % len(markers)],
            markersize=4.5,
            color="#888888",
            fillstyle="none",
            label=names[str(data)],
        )
    for height, (method, rank) in enumerate(average.items()):
        axes.plot(rank, height, marker="|", markersize=13, markeredgewidth=2.5, color=style[str(method)].color)
    axes.set(
        yticks=range(len(average)),
        yticklabels=[f"{titles[str(method)]}  {rank:.1f}" for method, rank in average.items()],
        ylim=(len(average) - 0.5, -0.5),
        xlabel=f"Rank by {metric} (1 is the best); bar: mean over data sets",
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower left", ncols=2)
    _head(figure, told)
    return figure


def critical_difference_diagram(data_sets: pd.DataFrame, entries: list[Entry], told: list[str]) -> Figure:
    """Average ranks over data sets on a line; bars join methods that do not differ at the 5 % level."""
    ranks = data_sets.rank(axis=1).mean().sort_values(kind="stable")
    titles, style = {entry.name: entry.title for entry in entries}, looks(entries)
    count, width = len(ranks), critical_difference(len(ranks), len(data_sets))
    half = (count + 1) // 2
    bars = cliques(ranks.to_numpy(), width)
    top, step = 0.5 + 0.22 * len(bars), 0.32
    figure = Figure(figsize=(7.2, 1.2 + 0.28 * (half + len(bars)) + LINE * len(told)), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(1 - 0.42 * count, count + 0.42 * count), ylim=(top + step * half + 0.2, -1.2))
    axes.axis("off")
    axes.plot([1, count], [0, 0], color="black", linewidth=1)
    for tick in range(1, count + 1):
        axes.plot([tick, tick], [0, -0.12], color="black", linewidth=1)
        axes.text(tick, -0.2, str(tick), ha="center", va="bottom", fontsize=8)
    axes.plot([1, 1 + width], [-0.85, -0.85], color="black", linewidth=2)
    axes.text(1 + width / 2, -0.92, f"critical difference {width:.2f}", ha="center", va="bottom", fontsize=8)
    for place, (method, rank) in enumerate(ranks.items()):
        left = place < half
        height = top + step * (place if left else count - 1 - place)
        edge = 1 - 0.05 * count if left else count + 0.05 * count
        look = style[str(method)]
        axes.plot([rank, rank, edge], [0, height, height], color=look.color, linewidth=1)
        title = f"{titles[str(method)]}  {rank:.2f}"
        axes.text(edge, height, f"{title} " if left else f" {title}", ha="right" if left else "left", va="center",
                  fontsize=8, color=look.ink)  # fmt: skip
    for number, (first, last) in enumerate(bars):
        ends = np.array([ranks.iloc[first] - 0.06, ranks.iloc[last] + 0.06])
        axes.plot(ends, np.full(2, 0.25 + 0.22 * number), color="black", linewidth=3, solid_capstyle="round")
    _head(figure, told)
    return figure


def _head(figure: Figure, told: list[str]) -> None:
    figure.suptitle("\n".join(told), x=0.01, ha="left", fontsize=7)
