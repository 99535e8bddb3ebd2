"""The appendix on ranks: how far the order of the methods hangs on which patients were tested."""

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from semiseg.labels import Labels, in_words
from semiseg.report.formats import Cell, Number, Table
from semiseg.report.results import Entry, Results
from semiseg.report.summary import primary_scores
from semiseg.report.wording import notes

DRAWS = 1000
DIGITS = 9  # of Dice: below that, methods differ by rounding


def resampled_dice(cases: pd.DataFrame, weights: np.ndarray) -> np.ndarray:
    """Dice of one method's cases with every group counted as often as drawn.

    Args:
        cases: Of one method and amount of labels, with the columns fold, seed, class, group, dice.
        weights: (draws, groups) how often each group, in sorted order, is drawn.

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
        means = (weights @ tables["sum"].to_numpy().T) / (weights @ tables["count"].to_numpy().T)
    scores = pd.DataFrame(means.T, tables.index)
    for level in (["fold", "seed"], ["fold"]):
        scores = scores.groupby(level=level).mean()  # without NaN
    return scores.mean().to_numpy()


def drawn_ranks(results: Results, labels: Labels, draws: int = DRAWS) -> tuple[list[Entry], np.ndarray] | None:
    """The methods and their ranks, (draws, methods), 1 the best, in bootstraps of the groups of test cases.

    Only the folds and seeds that all methods have take part; None where there is none, or a single method or group.
    """
    trained: dict[str, set[tuple[int, int]]] = {}
    for run in results.finished:
        if run.labels == labels:
            trained.setdefault(run.method, set()).add((run.fold, run.seed))
    entries = [e for e in results.entries if e.role != "upper bound" and e.name in trained]
    common = set.intersection(*(trained[e.name] for e in entries)) if entries else set()
    if len(entries) < 2 or not common:
        return None
    cases = results.cases[results.cases.labels == labels]
    cases = cases[pd.MultiIndex.from_frame(cases[["fold", "seed"]]).isin(list(common))]
    if (count := cases.group.nunique()) < 2:
        return None
    weights = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), draws)
    scores = np.stack([resampled_dice(cases[cases.method == e.name], weights) for e in entries], axis=1)
    return entries, rankdata(-scores.round(DIGITS), axis=1)


def ranking_table(results: Results) -> Table | None:
    """Ranks over bootstraps for every amount of labels; None where nothing can be ranked."""
    rows: list[list[Cell]] = []
    rules: set[int] = set()
    for labels in results.amounts:
        if (found := drawn_ranks(results, labels)) is None:
            continue
        rules |= {len(rows)} - {0}
        for entry, ranks in zip(found[0], found[1].T, strict=True):
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
    return Table(
        "ranking",
        f"Appendix: ranks in {DRAWS} bootstraps of the {_unit(results)}",
        ["Labels", "Method", "Mean rank", "95 % of ranks", "First (%)"],
        rows,
        [
            *notes(results, [], spread=False),
            f"Each bootstrap draws as many {_unit(results)} as there are, with all cases of each, and ranks the "
            f"methods by {results.primary.title}, 1 the best; equal ones share the mean of their ranks. Folds and "
            "seeds that all methods "
            "with the same labels have.",
            "These very networks on other cases: what other trainings would change is not in it.",
        ],
        rules,
        text_columns=2,
        heading=0,
    )


def _unit(results: Results) -> str:
    """What is drawn together."""
    return "groups of test cases" if results.record["data"].get("grouping") else "test cases"
