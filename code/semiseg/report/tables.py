"""The tables of a report: main, all metrics, per class, secondary predictors, papers; and the terminal's."""

from collections.abc import Callable
from dataclasses import replace
from math import isnan
from pathlib import Path

import pandas as pd
from rich.markup import escape
from rich.table import Table as RichTable

from semiseg.metrics import TABLE
from semiseg.report.formats import Cell, Score, Table, comma_separated, latex, markdown, text
from semiseg.report.significance import Difference, differences
from semiseg.report.summary import Entry, Results, empty_predictions, fold_statistics, lookup

ABSENT = "–"


def percent(fraction: float) -> str:
    """A label fraction as people write it: 0.05 is "5 %"."""
    return f"{100 * fraction:.10g} %"


def all_tables(results: Results) -> list[Table]:
    """Every table that these results can fill."""
    tables = [main_table(results)]
    if compared := differences(results):
        tables.append(difference_table(results, compared))
    tables.append(full_table(results))
    if len(results.classes) > 1:
        tables.append(class_table(results))
    if not results.predictors.empty:
        tables.append(predictor_table(results))
    return [*tables, paper_table(results)]


def write_tables(tables: list[Table], folder: Path) -> None:
    """Each table in three formats."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in tables:
        for suffix, render in ((".md", markdown), (".tex", latex), (".csv", comma_separated)):
            (folder / f"{table.name}{suffix}").write_text(render(table), encoding="utf-8", newline="\n")


def main_table(results: Results) -> Table:
    """Dice per method and label fraction."""
    scores = fold_statistics(results.cases)
    rows: list[list[Cell]] = [
        [e.title, *(_score(results, scores, "dice", e.name, labels) for labels in results.fractions)]
        for e in results.entries
    ]
    for column in range(1, len(results.fractions) + 1):
        _mark_best(rows, column, [e.role == "semi-supervised" for e in results.entries], "higher")
    columns = ["Method", *map(percent, results.fractions)]
    return Table(
        "main",
        "Dice (%) by share of labeled training cases",
        columns,
        rows,
        notes(results),
        _role_changes(results.entries),
    )


def difference_table(results: Results, compared: list[Difference]) -> Table:
    """What each method adds to the lower bound, and whether that could be chance."""
    titles = {entry.name: entry.title for entry in results.entries}
    bound = next(entry.title for entry in results.entries if entry.role == "lower bound")
    rows: list[list[Cell]] = [
        [
            percent(d.labels),
            titles[d.method],
            f"{100 * d.mean:+.2f}{'†' if d.partial else ''}",
            ABSENT if isnan(d.low) else f"{100 * d.low:+.2f} to {100 * d.high:+.2f}",
            f"{d.folds_above} of {d.folds}",
            *map(_probability, (d.p_folds, d.p_folds_adjusted, d.p_groups, d.p_groups_adjusted)),
        ]
        for d in compared
    ]
    unit = "groups of test cases" if results.record["data"].get("grouping") else "test cases"
    count = max(d.groups for d in compared)
    tests = ("p (folds)", "Holm (folds)", "p (cases)", "Holm (cases)")
    return Table(
        "differences",
        f"Difference to {bound} in Dice points",
        ["Labels", "Method", "Difference", "95 % interval", "Folds above", *tests],
        rows,
        [
            *notes(results, []),
            f"Difference: mean over the folds, to {bound} with the same labels, in the folds and seeds that both have.",
            "p (folds) and the interval: t-test over the folds with the variance of Nadeau and Bengio, since folds "
            "share training cases. It asks whether other trainings on other labels would show the difference.",
            f"p (cases): Wilcoxon's signed-rank test over {count} {unit}. It asks whether other cases would show the "
            "difference with these very networks, and says nothing about other trainings.",
            "Holm: the p-value adjusted for the number of methods at the same share of labels.",
        ],
        {i for i in range(1, len(compared)) if compared[i].labels != compared[i - 1].labels},
        text_columns=2,
    )


def full_table(results: Results) -> Table:
    """Every metric, one block of rows per label fraction."""
    scores = fold_statistics(results.cases)
    rows: list[list[Cell]] = []
    rules: set[int] = set()
    for labels in results.fractions:
        entries = [e for e in results.entries if (e.name, labels) in scores.index]
        block: list[list[Cell]] = [
            [
                percent(labels),
                e.title,
                *(_score(results, scores, metric, e.name, labels) for metric in TABLE),
                empty_predictions(results, e.name, labels),
            ]
            for e in entries
        ]
        for column, metric in enumerate(TABLE.values(), start=2):
            _mark_best(block, column, [e.role == "semi-supervised" for e in entries], metric.better)
        rules |= {len(rows)} - {0}
        rows += block
    columns = [f"{m.title} {'↑' if m.better == 'higher' else '↓'} ({m.unit or '%'})" for m in TABLE.values()]
    return Table(
        "full",
        "All metrics",
        ["Labels", "Method", *columns, "Missed ↓"],
        rows,
        [
            *notes(results),
            "HD95: 95th percentile of both directions' surface distances, pooled; HD95 max: the larger of the "
            "two directed percentiles; ASD: directed, prediction to reference; NSD: surface Dice at a tolerance "
            "of 1 mm. Distances are in pixels where the data set gives no spacing.",
            "Missed: structures that were not predicted at all, over all runs. Each scores 0, and its distances "
            "are the image diagonal.",
        ],
        rules,
        text_columns=2,
    )


def class_table(results: Results) -> Table:
    """Dice of each foreground class."""
    scores = fold_statistics(results.cases, by=["class"])
    overall = fold_statistics(results.cases)
    rows: list[list[Cell]] = []
    rules: set[int] = set()
    for labels in results.fractions:
        entries = [e for e in results.entries if (e.name, labels) in overall.index]
        block: list[list[Cell]] = [
            [
                percent(labels),
                e.title,
                *(
                    _score(results, scores, "dice", e.name, labels, index)
                    for index in range(1, len(results.classes) + 1)
                ),
                _score(results, overall, "dice", e.name, labels),
            ]
            for e in entries
        ]
        for column in range(2, len(results.classes) + 3):
            _mark_best(block, column, [e.role == "semi-supervised" for e in entries], "higher")
        rules |= {len(rows)} - {0}
        rows += block
    return Table(
        "classes",
        "Dice (%) per class",
        ["Labels", "Method", *results.classes, "Mean"],
        rows,
        notes(results),
        rules,
        text_columns=2,
    )


def predictor_table(results: Results) -> Table:
    """Dice of what else a method could have predicted with, below the predictor it reports."""
    primary = fold_statistics(results.cases)
    others = fold_statistics(results.predictors, by=["predictor"])
    with_others = set(results.predictors.method)
    entries = [entry for entry in results.entries if entry.name in with_others]
    rows: list[list[Cell]] = []
    rules: set[int] = set()
    for entry in entries:
        names = list(dict.fromkeys(results.predictors.predictor[results.predictors.method == entry.name]))
        rules |= {len(rows)} - {0}
        rows.append(
            [
                entry.title,
                "reported",
                *(_score(results, primary, "dice", entry.name, labels) for labels in results.fractions),
            ]
        )
        rows += [
            [
                "",
                name,
                *(_score(results, others, "dice", entry.name, labels, name) for labels in results.fractions),
            ]
            for name in names
        ]
    return Table(
        "predictors",
        "Dice (%) of secondary predictors",
        ["Method", "Predictor", *map(percent, results.fractions)],
        rows,
        notes(results, entries),
        rules,
        text_columns=2,
    )


def paper_table(results: Results) -> Table:
    """Where each method was published."""
    fields = ("title", "authors", "venue")
    rows: list[list[Cell]] = [
        [e.title, e.role, *(e.paper.get(field) or ABSENT for field in fields)] for e in results.entries
    ]
    columns = ["Method", "Role", "Paper", "Authors", "Venue"]
    return Table(
        "papers",
        "Methods and their papers",
        columns,
        rows,
        [],
        _role_changes(results.entries),
        text_columns=len(columns),
    )


def terminal_table(results: Results) -> RichTable:
    """The main table for the terminal."""
    table = main_table(results)
    rich = RichTable(
        title=escape(f"{table.title}, {data_title(results)}"),
        caption=escape("\n".join(table.notes)),
        caption_justify="left",
    )
    for index, column in enumerate(table.columns):
        rich.add_column(column, justify="left" if index == 0 else "right", no_wrap=index > 0)
    for index, (entry, row) in enumerate(zip(results.entries, table.rows, strict=True)):
        rich.add_row(
            *map(_styled, row),
            style="" if entry.role == "semi-supervised" else "dim",
            end_section=index + 1 in table.rules,
        )
    return rich


def data_title(results: Results) -> str:
    """The data set, and whether it is a made-up one."""
    data = results.record["data"]
    return f"{data['title']} (synthetic data)" if data.get("synthetic") else str(data["title"])


def budget(results: Results) -> str:
    """Network and training steps."""
    spec = results.record["spec"]
    steps = (spec.get("training") or {}).get("steps")
    return str(spec["network"]) + (f", {steps} training steps" if steps else "")


def notes(results: Results, entries: list[Entry] | None = None) -> list[str]:
    """What a reader must know to judge a table of these methods (or of all, the best in bold)."""
    folds, seeds = results.grid()
    spread = "mean ± standard deviation over the folds" if len(folds) > 1 else "a single fold, hence no ±"
    seed_note = f"{len(seeds)} seeds averaged within each fold" if len(seeds) > 1 else "1 seed"
    grouping = results.record["data"].get("grouping")
    out = [
        f"{data_title(results)}; {len(folds)} fold{'s' if len(folds) > 1 else ''}, {seed_note}; {spread}.",
        f"{budget(results)}; "
        + (
            f"folds split by {grouping}."
            if grouping
            else "groups unknown: images of one patient may lie on both sides of a split."
        ),
    ]
    incomplete = [
        f"{e.title} at {percent(labels)}: {share}"
        for labels in results.fractions
        for e in entries or results.entries
        if (share := _share(results, e.name, labels))
    ]
    if entries is None and any(e.role == "semi-supervised" for e in results.entries):
        out.append(f"Bold: best semi-supervised method{' among complete cells' if incomplete else ''}.")
    return [*out, f"† {'; '.join(incomplete)}."] if incomplete else out


def _share(results: Results, method: str, labels: float) -> str:
    """How much of a cell is there, such as "2 of 5 folds"; empty when all of it, or none."""
    folds, seeds = results.grid()
    runs = [run for run in results.finished if (run.method, run.labels) == (method, labels)]
    if not runs or len(runs) >= len(folds) * len(seeds):
        return ""
    there = len({run.fold for run in runs})
    if there < len(folds):
        return f"{there} of {len(folds)} folds"
    return f"{len(runs)} of {len(folds) * len(seeds)} runs"


def _probability(p: float) -> str:
    return ABSENT if isnan(p) else f"{p:.3f}" if p >= 0.001 else "<0.001"


def _score(results: Results, scores: pd.DataFrame, metric: str, method: str, labels: float, *rest: str | int) -> Cell:
    found = lookup(scores, metric, method, labels, *rest)
    if found is None:
        return ABSENT
    scale = 1 if TABLE[metric].unit else 100
    return Score(found[0] * scale, found[1] * scale, partial=bool(_share(results, method, labels)))


def _mark_best(rows: list[list[Cell]], column: int, eligible: list[bool], better: str) -> None:
    """Mark the best mean of a column, and those that print the same.

    Cells with missing folds do not compete: the folds they lack may be the hard ones.
    """
    pick: Callable[[list[float]], float] = max if better == "higher" else min
    printed = {
        i: round(cell.mean, 2)
        for i, row in enumerate(rows)
        if eligible[i] and isinstance(cell := row[column], Score) and not cell.partial
    }
    for index, mean in printed.items():
        cell = rows[index][column]
        if isinstance(cell, Score) and mean == pick(list(printed.values())):
            rows[index][column] = replace(cell, best=True)


def _role_changes(entries: list[Entry]) -> set[int]:
    return {i for i in range(1, len(entries)) if entries[i].role != entries[i - 1].role}


def _styled(cell: Cell) -> str:
    words = escape(text(cell))
    return f"[bold]{words}[/bold]" if isinstance(cell, Score) and cell.best else words
