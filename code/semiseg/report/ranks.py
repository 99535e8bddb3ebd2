"""Average ranks over data sets and label fractions, and whether they tell methods apart."""

from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from semiseg.labels import Labels, in_words
from semiseg.report.results import Results
from semiseg.report.summary import score_statistics
from semiseg.settings import NONE

DIAGRAM = 10  # data sets that a critical-difference diagram needs: it ranks methods over data sets, not over folds


@dataclass(frozen=True)
class Ranks:
    """Ranks of the methods that are complete everywhere; 1 is the best."""

    blocks: pd.DataFrame  # (data set, benchmark, labels) × method
    left_out: list[str]  # methods that lack a run somewhere
    skipped: list[str]  # comparisons in which fewer than two methods are complete

    @property
    def data_sets(self) -> pd.DataFrame:
        """Mean over the benchmarks and label fractions of each data set: data set × method."""
        return self.blocks.groupby(level="data", sort=False).mean()

    @property
    def average(self) -> pd.Series:
        """Mean over data sets, each of which counts once however many fractions it has; the best first."""
        return self.data_sets.mean().sort_values(kind="stable")


def average_ranks(contents: list[Results]) -> Ranks:
    """Rank the methods in every benchmark, all of one metric, at every amount of labels but all."""
    scores: dict[tuple[str, str, Labels], dict[str, float]] = {}
    names: dict[str, None] = {}
    skipped: list[str] = []
    apart = {1.0} | ({NONE} if any(labels not in (NONE, 1) for of in contents for labels in of.amounts) else set())
    for results in contents:
        names |= {entry.name: None for entry in results.entries if entry.role != "upper bound"}
        dice: Any = score_statistics(results)[results.primary.name, "mean"]
        for labels in results.amounts:
            methods = [] if labels in apart else complete(results, labels)
            if labels not in apart and len(methods) < 2:
                skipped.append(f"{results.path.name} at {in_words(labels)}")
            elif methods:
                scores[data_set(results), results.path.name, labels] = {m: dice[m, labels] for m in methods}
    common = [name for name in names if scores and all(name in block for block in scores.values())]
    rows = [stats.rankdata([-round(block[name], 12) for name in common]) for block in scores.values()]
    levels = zip(*scores, strict=True) if scores else ((), (), ())
    index = pd.MultiIndex.from_arrays(list(map(list, levels)), names=["data", "benchmark", "labels"])
    return Ranks(pd.DataFrame(rows, index, common), [name for name in names if name not in common], skipped)


def complete(results: Results, labels: Labels) -> list[str]:
    """Methods but upper bounds with a finished run in every fold and seed of the grid."""
    folds, seeds = results.grid
    return [
        entry.name
        for entry in results.entries
        if entry.role != "upper bound" and len(results.cells.get((entry.name, labels), ())) >= len(folds) * len(seeds)
    ]


def no_diagram(data_sets: int) -> str:
    """Why there is no critical-difference diagram."""
    return (
        f"No critical-difference diagram: it ranks methods over data sets, takes about {DIAGRAM}, and here "
        f"{'is one' if data_sets == 1 else f'are {data_sets}'}."
    )


def data_set(results: Results) -> str:
    """What tells one data set from another: two benchmarks on the same data are no two data sets."""
    data = results.record["data"]
    return str(data.get("hash") or data["title"])


def critical_difference(methods: int, data_sets: int, level: float = 0.05) -> float:
    """Nemenyi's: average ranks that differ by more than q √(k (k + 1) / (6 N)) do so at this level (Demšar 2006).

    q is the studentized range of k methods with infinitely many degrees of freedom, divided by √2.
    """
    q = float(stats.studentized_range.ppf(1 - level, methods, inf)) / sqrt(2)
    return q * sqrt(methods * (methods + 1) / (6 * data_sets))


def friedman(data_sets: pd.DataFrame) -> float:
    """p of Friedman's test that all methods (columns) have the same rank over data sets (rows)."""
    return float(stats.friedmanchisquare(*data_sets.to_numpy().T).pvalue)


def cliques(average: np.ndarray, width: float) -> list[tuple[int, int]]:
    """First and last of each largest group of sorted ranks that lie within `width`, of two methods or more."""
    found: list[tuple[int, int]] = []
    for first in range(len(average)):
        last = int(np.searchsorted(average, average[first] + width, side="right")) - 1
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found
