"""The tables of differences to a reference method: over trainings, and in an appendix over test cases."""

from math import isnan

from semiseg.labels import Labels, in_words
from semiseg.report.formats import ABSENT, Cell, Number, Table
from semiseg.report.results import Entry, Results
from semiseg.report.significance import ENOUGH, EQUIVALENT, Difference, Evidence
from semiseg.report.wording import kept_because, notes, share_or_number, unequal_splits


def difference_table(results: Results, reference: Entry, compared: list[Difference]) -> Table:
    """What each method adds to the reference, and whether other trainings would show it."""
    margin = f"{100 * EQUIVALENT:g} point{'' if EQUIVALENT == 0.01 else 's'}"
    few = sum(d.pairs < ENOUGH for d in compared)
    columns: dict[str, list[Cell]] = {"Folds above": [_above(d) for d in compared]}
    explained = [
        f"Difference: mean over the folds of all repeats, to {reference.title} with the same labels, in the folds "
        "and seeds that both have.",
    ]
    if few:
        explained.append(
            f"Too few folds for intervals and p-values{'' if few == len(compared) else f' where there is {ABSENT}'}: "
            f"they take {ENOUGH}."
        )
    if few < len(compared):
        columns = {
            "95 % interval": [interval(d.evidence) for d in compared],
            **columns,
            "p": [probability(d.evidence.p) for d in compared],
            "Holm": [probability(d.p_adjusted) for d in compared],
            "Worse": [probability(d.evidence.worse) for d in compared],
            "Equivalent": [probability(d.evidence.equivalent) for d in compared],
            "Better": [probability(d.evidence.better) for d in compared],
        }
        explained += [
            "p and the interval: two-sided t-test over the folds with the variance of Nadeau and Bengio, since folds "
            "share training cases, labelled or not. It asks whether other trainings would show the difference.",
            _of_holm(results, reference),
            "Worse, equivalent, better: probabilities, by the same t, that the true difference lies more than "
            f"{margin} below 0, within {margin} of it, or above (the correlated t-test of Corani and Benavoli).",
        ]
    title = f"Difference to {reference.title} in {results.primary.points}"
    return _table("differences", title, results, reference, compared, columns, explained)


def case_difference_table(results: Results, reference: Entry, compared: list[Difference]) -> Table:
    """Whether other cases would show a difference between these very networks."""
    unit = "groups of test cases" if results.record["data"].get("grouping") else "test cases"
    return _table(
        "differences_cases",
        f"Appendix: difference to {reference.title} in {results.primary.points} over {unit}",
        results,
        reference,
        compared,
        {
            f"{unit.capitalize()} above": [_above(d) for d in compared],
            "p": [probability(d.evidence.p) for d in compared],
            "Holm": [probability(d.p_adjusted) for d in compared],
        },
        [
            f"Difference: mean over {unit}, to {reference.title} with the same labels, in the folds and seeds that "
            "both have.",
            f"p: two-sided signed-rank test of Wilcoxon over {unit}. It asks whether other cases would show a "
            "difference with these very networks, and says nothing about other trainings: two trainings of one method "
            "differ in it, too. It looks at ranks: many small losses can outweigh a few large gains.",
            _of_holm(results, reference),
        ],
    )


def _table(
    name: str,
    title: str,
    results: Results,
    reference: Entry,
    compared: list[Difference],
    columns: dict[str, list[Cell]],
    explained: list[str],
) -> Table:
    """One row for each difference: what it is, how large, and further columns."""
    titles = {entry.name: entry.title for entry in results.entries}
    shown = [e for e in results.entries if e == reference or e.name in {d.method for d in compared}]

    def kept(method: str, labels: Labels) -> bool:
        return any(kept_because(results, name, labels) for name in (method, reference.name))

    rows: list[list[Cell]] = [
        [
            in_words(d.labels),
            titles[d.method],
            Number(
                f"{100 * d.mean:+.2f}{'†' if d.partial else ''}{'‡' if kept(d.method, d.labels) else ''}",
                {"": 100 * d.mean},
            ),
            *cells,
        ]
        for d, *cells in zip(compared, *columns.values(), strict=True)
    ]
    return Table(
        name,
        title,
        ["Labels", "Method", "Difference", *columns],
        rows,
        [*notes(results, shown, spread=False), *explained, *unequal_splits(results)],
        {i for i in range(1, len(compared)) if compared[i].labels != compared[i - 1].labels},
        text_columns=2,
        heading=0,
    )


def _above(difference: Difference) -> Number:
    return Number(f"{difference.above} of {difference.pairs}", {"": difference.above, " of": difference.pairs})


def interval(evidence: Evidence) -> Cell:
    """The ends of the 95 % interval in points, if there is one."""
    if isnan(evidence.low):
        return ABSENT
    low, high = 100 * evidence.low, 100 * evidence.high
    return Number(f"{low:+.2f} to {high:+.2f}", {" low": low, " high": high})


def probability(p: float) -> Cell:
    """A probability to three digits, if there is one."""
    return ABSENT if isnan(p) else Number(f"{p:.3f}" if p >= 0.001 else "<0.001", {"": p})


def _of_holm(results: Results, reference: Entry) -> str:
    others = [e for e in results.entries if e.role == reference.role == "lower bound" and e != reference]
    apart = f" but {' and '.join(e.title for e in others)}, of which no gain is in question" if others else ""
    return f"Holm: p adjusted for the number of methods at the same {share_or_number(results)} of labels{apart}."
