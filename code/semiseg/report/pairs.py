"""The table of all pairs of methods: how much one has more than the other, and whether that could be chance."""

from dataclasses import replace
from itertools import combinations
from math import isnan

from semiseg.labels import Labels, in_words
from semiseg.report.formats import ABSENT, Cell, Number, Table
from semiseg.report.ranks import no_diagram
from semiseg.report.results import KEY, Entry, Results
from semiseg.report.significance import ENOUGH, EQUIVALENT, Difference, corrected_t_test, holm
from semiseg.report.summary import primary_scores
from semiseg.report.wording import kept_because, notes, share_or_number, unequal_splits

Pairs = dict[tuple[str, str], Difference]  # by a method and the one it is compared with


def pair_differences(results: Results, labels: Labels) -> Pairs:
    """Each two methods with these labels, the upper one of the tables first, in the folds and seeds that both have.

    p is adjusted for the number of these pairs.
    """
    cases = results.cases[results.cases.labels == labels]
    runs = (
        primary_scores(cases)
        .groupby([cases[key] for key in (*KEY, "class")])
        .mean()
        .groupby(["fold", "seed", "method"])
        .mean()
        .unstack("method")
    )
    folds, seeds = results.grid
    found: Pairs = {}
    for method, other in combinations(_compared(results, labels), 2):
        alike = results.trained[method.name, labels] & results.trained[other.name, labels]
        if not alike:
            continue
        gains = runs[method.name] - runs[other.name]
        both = gains[gains.index.isin([(fold, seed) for fold, seed, _ in alike])]
        pairs = both.groupby("fold").mean().to_numpy(dtype=float)
        found[method.name, other.name] = Difference(
            method.name,
            labels,
            float(pairs.mean()),
            len(pairs),
            int((pairs > 0).sum()),
            corrected_t_test(pairs),
            partial=len(both) < len(folds) * len(seeds),
        )
    adjusted = holm([difference.evidence.p for difference in found.values()])
    return {pair: replace(d, p_adjusted=p) for (pair, d), p in zip(found.items(), adjusted, strict=True)}


def pair_table(results: Results) -> Table | None:
    """A square of methods for every amount of labels; None where no amount has three of them."""
    shared = [labels for labels in results.amounts if len(_compared(results, labels)) > 2]
    if not shared:
        return None
    columns = [e for e in results.entries if any(e in _compared(results, labels) for labels in shared)]
    rows: list[list[Cell]] = []
    rules: set[int] = set()
    few = False
    for labels in shared:
        pairs = pair_differences(results, labels)
        few = few or any(d.pairs < ENOUGH for d in pairs.values())
        rules |= {len(rows)} - {0}
        rows += [
            [in_words(labels), e.title, *(_cell(results, pairs, e, other, labels) for other in columns)]
            for e in _compared(results, labels)
        ]
    margin = f"{100 * EQUIVALENT:g} point{'' if EQUIVALENT == 0.01 else 's'}"
    return Table(
        "pairs",
        f"Differences between all methods in {results.primary.points}",
        ["Labels", "Method", *(e.title for e in columns)],
        rows,
        [
            *notes(results, columns, spread=False),
            "Above the diagonal: the row's method minus the column's, mean over the folds of all repeats in the folds "
            "and seeds that both have († where that is not all), in parentheses p of the corrected t of "
            f"tables/differences after Holm's adjustment for all pairs with the same {share_or_number(results)} of "
            "labels.",
            "Below the diagonal: probabilities in percent, by the same t, that the row's method is worse / equivalent "
            f"(within {margin}) / better than the column's.",
            *unequal_splits(results),
            *([f"No p and no probability below {ENOUGH} folds."] if few else []),
            no_diagram(1),
        ],
        rules,
        text_columns=2,
        heading=0,
    )


def _compared(results: Results, labels: Labels) -> list[Entry]:
    """The methods with finished runs at these labels, without upper bounds, in the order of the tables."""
    there = {run.method for run in results.finished if run.labels == labels}
    return [entry for entry in results.entries if entry.role != "upper bound" and entry.name in there]


def _cell(results: Results, pairs: Pairs, row: Entry, column: Entry, labels: Labels) -> Cell:
    if difference := pairs.get((row.name, column.name)):
        kept = any(kept_because(results, entry.name, labels) for entry in (row, column))
        mark = f"{'†' if difference.partial else ''}{'‡' if kept else ''}"
        p = difference.p_adjusted
        said = "" if isnan(p) else f" ({p:.3f})" if p >= 0.001 else " (<0.001)"
        return Number(f"{100 * difference.mean:+.2f}{mark}{said}", {"": 100 * difference.mean, " p": p})
    difference = pairs.get((column.name, row.name))
    if difference is None or isnan(difference.evidence.worse):
        return ABSENT
    seen = difference.evidence  # of the column's method, so that its gain is this one's loss
    shares = {" worse": 100 * seen.better, " equivalent": 100 * seen.equivalent, " better": 100 * seen.worse}
    return Number(" / ".join(f"{share:.0f}" for share in shares.values()), shares)
