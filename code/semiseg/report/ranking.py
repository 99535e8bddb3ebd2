"""The appendix on ranks: how far the order of the methods hangs on which patients were tested."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from semiseg.labels import Labels, in_words
from semiseg.report.formats import Cell, Number, Table
from semiseg.report.results import Entry, Results
from semiseg.report.summary import primary_scores
from semiseg.report.wording import notes, unequal_splits

DRAWS = 1000
DIGITS = 9  # of Dice: below that, methods differ by rounding


def resampled_dice(cases: pd.DataFrame, weights: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Dice of one method's cases with every group counted as often as drawn.

    Args:
        cases: Of one method and amount of labels, with the columns fold, seed, class, group, dice.
        weights: (draws, groups) how often each group is drawn.
        groups: In the order of the weights; some may have no case here.

    Returns:
        (draws,) means over cases, then classes, seeds, and folds. A class of which a run has no case in a draw does
        not count there, nor does a run without any.
    """
    tables = (
        primary_scores(cases)
        .groupby([cases[key] for key in ("fold", "seed", "class", "group")])
        .agg(["sum", "count"])
        .unstack("group", fill_value=0)
    )
    with np.errstate(invalid="ignore"):
        table: Any = tables  # the stubs take its parts for columns
        sums, counts = (table[of].reindex(columns=groups, fill_value=0).to_numpy().T for of in ("sum", "count"))
        means = (weights @ sums) / (weights @ counts)
    scores = pd.DataFrame(means.T, tables.index)
    for level in (["fold", "seed"], ["fold"]):
        scores = scores.groupby(level=level).mean()  # without NaN
    return scores.mean().to_numpy()


@dataclass(frozen=True)
class Drawn:
    """Ranks in bootstraps of the groups of test cases."""

    entries: list[Entry]
    ranks: np.ndarray  # (draws, methods), 1 the best
    runs: set[tuple[int, int, str]]  # fold, seed and split of those that all these methods have
    left_out: list[Entry]  # lack some of them


def drawn_ranks(results: Results, labels: Labels, draws: int = DRAWS) -> Drawn | None:
    """The ranks of all methods that have the runs that most have; None without two methods and two groups.

    A method with few runs so takes no folds from the others.
    """
    trained = {e.name: results.trained.get((e.name, labels), set()) for e in results.entries if e.role != "upper bound"}
    present = [entry for entry in results.entries if trained.get(entry.name)]

    def having(runs: set[tuple[int, int, str]]) -> list[Entry]:
        return [entry for entry in present if runs <= trained[entry.name]]

    blocks = [runs for runs in trained.values() if runs and len(having(runs)) > 1]
    if not blocks:
        return None
    runs = max(blocks, key=lambda runs: len(runs) * len(having(runs)))
    entries = having(runs)
    cases = results.cases[(results.cases.labels == labels) & results.cases.method.isin([e.name for e in entries])]
    cases = cases[pd.MultiIndex.from_frame(cases[["fold", "seed"]]).isin([(fold, seed) for fold, seed, _ in runs])]
    groups = sorted(cases.group.unique())
    if len(groups) < 2:
        return None
    weights = np.random.default_rng(0).multinomial(len(groups), np.full(len(groups), 1 / len(groups)), draws)
    scores = np.stack([resampled_dice(cases[cases.method == e.name], weights, groups) for e in entries], axis=1)
    ranks = rankdata(-scores.round(DIGITS), axis=1)
    return Drawn(entries, ranks, runs, [entry for entry in present if entry not in entries])


def ranking_table(results: Results) -> Table | None:
    """Ranks over bootstraps for every amount of labels; None where nothing can be ranked."""
    rows: list[list[Cell]] = []
    rules: set[int] = set()
    used: dict[str, list[str]] = {}
    left_out: list[str] = []
    ranked: list[Entry] = []
    for labels in results.amounts:
        if (found := drawn_ranks(results, labels)) is None:
            continue
        rules |= {len(rows)} - {0}
        used.setdefault(_said(results, found.runs), []).append(in_words(labels))
        ranked += [entry for entry in found.entries if entry not in ranked]
        left_out += [f"{entry.title} at {in_words(labels)}" for entry in found.left_out]
        for entry, ranks in zip(found.entries, found.ranks.T, strict=True):
            low, high = np.quantile(ranks, (0.025, 0.975), method="inverted_cdf")
            rows.append(
                [
                    in_words(labels),
                    entry.title,
                    Number(f"{ranks.mean():.2f}", {"": float(ranks.mean())}),
                    Number(f"{low:g} to {high:g}", {" low": float(low), " high": float(high)}),
                    Number(f"{100 * (ranks == 1).mean():.0f}", {"": 100 * float((ranks == 1).mean())}),
                ]
            )
    if not rows:
        return None
    where = "; ".join(f"{runs} at {', '.join(amounts)}" if len(used) > 1 else runs for runs, amounts in used.items())
    return Table(
        "ranking",
        f"Appendix: ranks in {DRAWS} bootstraps of the {_unit(results)}",
        ["Labels", "Method", "Mean rank", "95 % of ranks", "First (%)"],
        rows,
        [
            *notes(results, ranked, spread=False),
            f"Each bootstrap draws as many {_unit(results)} as there are, with all cases of each, and ranks the "
            f"methods by {results.primary.title}, 1 the best; equal ones share the mean of their ranks.",
            f"Ranked in {where}, by the methods that have all of these"
            + (f"; left out: {', '.join(left_out)}." if left_out else "."),
            *unequal_splits(results),
            "These very networks on other cases: what other trainings would change is not in it.",
        ],
        rules,
        text_columns=2,
        heading=0,
    )


def _said(results: Results, runs: set[tuple[int, int, str]]) -> str:
    """The folds of runs, and their seeds where those are several."""
    folds, seeds = sorted({fold for fold, _, _ in runs}), sorted({seed for _, seed, _ in runs})
    several = f", seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" if len(results.grid[1]) > 1 else ""
    return f"fold{'s' * (len(folds) > 1)} {', '.join(map(results.fold_name, folds))}{several}"


def _unit(results: Results) -> str:
    """What is drawn together."""
    return "groups of test cases" if results.record["data"].get("grouping") else "test cases"
