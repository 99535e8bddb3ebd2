"""The tables of a report: main, all metrics, per class, secondary predictors, ensembles, papers; the terminal's."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
from rich.console import Group
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from semiseg.errors import UserError
from semiseg.labels import Labels, in_words
from semiseg.metrics import TABLE
from semiseg.report.comparison import case_difference_table, difference_table
from semiseg.report.cost import cost_table
from semiseg.report.formats import ABSENT, Cell, Score, Table, comma_separated, markdown, text
from semiseg.report.latex import latex
from semiseg.report.pairs import pair_table
from semiseg.report.published import published_table
from semiseg.report.ranking import ranking_table
from semiseg.report.significance import case_differences, differences
from semiseg.report.summary import Entry, Results, empty_predictions, fold_statistics, lookup
from semiseg.report.wording import (
    data_source,
    data_title,
    kept_because,
    notes,
    share_of,
    share_or_number,
    unit_of_distances,
)


def all_tables(results: Results, against: str | None = None) -> list[Table]:
    """Every table that these results can fill; differences are to the method `against`, else to the lower bound."""
    tables = [main_table(results)]
    reference = reference_method(results, against)
    if reference and (compared := differences(results, reference)):
        tables.append(difference_table(results, reference, compared))
    if pairs := pair_table(results):
        tables.append(pairs)
    tables.append(full_table(results))
    if len(results.classes) > 1:
        tables.append(class_table(results))
    for alone, table in ((True, predictor_table), (False, ensemble_table)):
        if not results.predictors.empty and len(
            chosen := results.predictors[(results.predictors.networks == 1) == alone]
        ):
            tables.append(table(results, chosen))
    tables.append(cost_table(results))
    if reference and (compared := case_differences(results, reference)):
        tables.append(case_difference_table(results, reference, compared))
    tables += [table for table in (ranking_table(results), published_table(results)) if table]
    return [*tables, paper_table(results)]


def reference_method(results: Results, against: str | None) -> Entry | None:
    """The method that others are compared with."""
    if against is None:
        return results.bound("lower bound")
    names = {entry.name: entry for entry in results.entries if entry.role != "upper bound"}
    if against not in names:
        raise UserError(
            f"--against {against}: no such method was trained with a share of the labels; "
            f"there are {', '.join(names) or 'none'}."
        )
    return names[against]


def write_tables(tables: list[Table], folder: Path) -> None:
    """Each table in three formats."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in tables:
        for suffix, render in ((".md", markdown), (".tex", latex), (".csv", comma_separated)):
            (folder / f"{table.name}{suffix}").write_text(render(table), encoding="utf-8", newline="\n")


def main_table(results: Results) -> Table:
    """Dice per method and amount of labels."""
    scores = fold_statistics(results.cases)
    rows: list[list[Cell]] = [
        [e.title, *(_score(results, scores, "dice", e.name, labels) for labels in results.amounts)]
        for e in results.entries
    ]
    for column in range(1, len(results.amounts) + 1):
        _mark_best(rows, column, [e.role == "semi-supervised" for e in results.entries], "higher")
    columns = ["Method", *map(in_words, results.amounts)]
    return Table(
        "main",
        f"Dice (%) by {share_or_number(results)} of labeled training cases",
        columns,
        rows,
        notes(results),
        _role_changes(results.entries),
    )


def full_table(results: Results) -> Table:
    """Every metric, one block of rows per amount of labels."""
    scores = fold_statistics(results.cases)
    unit = unit_of_distances(results)
    rows: list[list[Cell]] = []
    rules: set[int] = set()
    for labels in results.amounts:
        entries = [e for e in results.entries if (e.name, labels) in scores.index]
        block: list[list[Cell]] = [
            [
                in_words(labels),
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
    columns = [
        f"{m.title} {'↑' if m.better == 'higher' else '↓'} ({unit if m.distance else '%'})" for m in TABLE.values()
    ]
    return Table(
        "full",
        "All metrics",
        ["Labels", "Method", *columns, "Missed ↓"],
        rows,
        [
            *notes(results),
            "HD95: 95th percentile of both directions' surface distances, pooled; HD95 max: the larger of the "
            "two directed percentiles; ASD: directed, prediction to reference; NSD: surface Dice at a tolerance "
            f"of 1 ({unit}).",
            "Missed: structures that were not predicted at all, over all runs. Each scores 0, and its distances "
            "are the image diagonal.",
        ],
        rules,
        text_columns=2,
        heading=0,
    )


def class_table(results: Results) -> Table:
    """Dice of each foreground class."""
    scores = fold_statistics(results.cases, by=["class"])
    overall = fold_statistics(results.cases)
    rows: list[list[Cell]] = []
    rules: set[int] = set()
    for labels in results.amounts:
        entries = [e for e in results.entries if (e.name, labels) in overall.index]
        block: list[list[Cell]] = [
            [
                in_words(labels),
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
        heading=0,
    )


def predictor_table(results: Results, predictors: pd.DataFrame) -> Table:
    """Dice of the other single networks that a method could have predicted with, below the one it reports."""
    primary = fold_statistics(results.cases)
    others = fold_statistics(predictors, by=["predictor"])
    with_others = set(predictors.method)
    entries = [entry for entry in results.entries if entry.name in with_others]
    rows: list[list[Cell]] = []
    rules: set[int] = set()
    for entry in entries:
        names = list(dict.fromkeys(predictors.predictor[predictors.method == entry.name]))
        rules |= {len(rows)} - {0}
        rows.append(
            [
                entry.title,
                "reported",
                *(_score(results, primary, "dice", entry.name, labels) for labels in results.amounts),
            ]
        )
        rows += [
            [
                "",
                name,
                *(_score(results, others, "dice", entry.name, labels, name) for labels in results.amounts),
            ]
            for name in names
        ]
    return Table(
        "predictors",
        "Dice (%) of secondary predictors",
        ["Method", "Predictor", *map(in_words, results.amounts)],
        rows,
        notes(results, entries),
        rules,
        text_columns=2,
    )


def ensemble_table(results: Results, predictors: pd.DataFrame) -> Table:
    """Dice of means of several networks, those of as many together, the lower bound's first."""
    scores = fold_statistics(predictors, by=["networks", "predictor"])
    by_name = {entry.name: entry for entry in results.entries}
    places = {name: place for place, name in enumerate(by_name)}
    known = predictors[["networks", "method", "predictor"]].drop_duplicates().itertuples(index=False, name=None)
    kinds = sorted(known, key=lambda kind: (kind[0], places[kind[1]]))
    rows: list[list[Cell]] = [
        [
            str(networks),
            by_name[method].title,
            name,
            *(_score(results, scores, "dice", method, labels, networks, name) for labels in results.amounts),
        ]
        for networks, method, name in kinds
    ]
    bound = results.bound("lower bound")
    alone = sorted({n for n, *_ in kinds} - {n for n, method, _ in kinds if by_name[method].role == "lower bound"})
    missing = [f"No mean of {n} networks of {bound.title} was made, with which these compare." for n in alone if bound]
    return Table(
        "ensembles",
        "Dice (%) of means of several networks",
        ["Networks", "Method", "Predictor", *map(in_words, results.amounts)],
        rows,
        [
            *notes(results, [entry for entry in results.entries if entry.name in {method for _, method, _ in kinds}]),
            "Means of class probabilities. No method reports one: a mean of networks gains from their number alone.",
            *missing,
        ],
        {i for i in range(1, len(kinds)) if kinds[i][0] != kinds[i - 1][0]},
        text_columns=3,
        heading=0,
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
        data_source(results),
        _role_changes(results.entries),
        text_columns=len(columns),
        heading=1,
    )


def terminal_table(results: Results) -> Group:
    """The main table for the terminal; what stands above and below it may be wider."""
    table = main_table(results)
    rich = RichTable()
    for index, column in enumerate(table.columns):
        rich.add_column(column, justify="left" if index == 0 else "right", no_wrap=index == 0)
    for index, (entry, row) in enumerate(zip(results.entries, table.rows, strict=True)):
        rich.add_row(
            *map(_styled, row),
            style="" if entry.role == "semi-supervised" else "dim",
            end_section=index + 1 in table.rules,
        )
    title = Text(f"{table.title}, {data_title(results)}", style="italic")
    return Group(title, rich, *(Text(note, style="dim italic") for note in table.notes))


def _score(results: Results, scores: pd.DataFrame, metric: str, method: str, labels: Labels, *rest: str | int) -> Cell:
    found = lookup(scores, metric, method, labels, *rest)
    if found is None:
        return ABSENT
    scale = 1 if TABLE[metric].distance else 100
    partial, kept = bool(share_of(results, method, labels)), bool(kept_because(results, method, labels))
    return Score(found[0] * scale, found[1] * scale, partial=partial, kept=kept)


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
