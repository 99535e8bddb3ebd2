"""The table of differences to the lower bound."""

from math import isnan

from semiseg.report.formats import ABSENT, Cell, Table
from semiseg.report.significance import Difference
from semiseg.report.summary import Entry, Results
from semiseg.report.wording import kept_because, notes, percent


def difference_table(results: Results, bound: Entry, compared: list[Difference]) -> Table:
    """What each method adds to the lower bound, and whether that could be chance."""
    titles = {entry.name: entry.title for entry in results.entries}

    def kept(method: str, labels: float) -> bool:
        return any(kept_because(results, name, labels) for name in (method, bound.name))

    rows: list[list[Cell]] = [
        [
            percent(d.labels),
            titles[d.method],
            f"{100 * d.mean:+.2f}{'†' if d.partial else ''}{'‡' if kept(d.method, d.labels) else ''}",
            ABSENT if isnan(d.low) else f"{100 * d.low:+.2f} to {100 * d.high:+.2f}",
            f"{d.folds_above} of {d.folds}",
            *map(_probability, (d.p_folds, d.p_folds_adjusted)),
            f"{d.groups_above} of {d.groups}",
            *map(_probability, (d.p_groups, d.p_groups_adjusted)),
        ]
        for d in compared
    ]
    unit = "groups of test cases" if results.record["data"].get("grouping") else "test cases"
    by_fold, by_case = ([f"{unit.capitalize()} above", f"p ({unit})", f"Holm ({unit})"] for unit in ("folds", "cases"))
    return Table(
        "differences",
        f"Difference to {bound.title} in Dice points",
        ["Labels", "Method", "Difference", "95 % interval", *by_fold, *by_case],
        rows,
        [
            *notes(results, [], spread=False),
            f"Difference: mean over the folds, to {bound.title} with the same labels, in the folds and seeds that "
            "both have.",
            "p (folds) and the interval: two-sided t-test over the folds with the variance of Nadeau and Bengio, since "
            "folds share training cases, labeled or not. It asks whether other trainings would show the difference.",
            f"p (cases): two-sided signed-rank test of Wilcoxon over {unit}. It asks whether other cases would show a "
            "difference with these very networks, and says nothing about other trainings. It looks at ranks: many "
            "small losses can outweigh a few large gains.",
            "Holm: the p-value adjusted for the number of methods at the same share of labels.",
        ],
        {i for i in range(1, len(compared)) if compared[i].labels != compared[i - 1].labels},
        text_columns=2,
    )


def _probability(p: float) -> str:
    return ABSENT if isnan(p) else f"{p:.3f}" if p >= 0.001 else "<0.001"
