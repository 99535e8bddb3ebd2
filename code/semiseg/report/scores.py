"""The tables of scores: Dice, every metric, every class; other networks and means of several."""

from collections.abc import Callable
from dataclasses import replace
from math import isnan

import pandas as pd

from semiseg.labels import Labels, in_words
from semiseg.report.formats import ABSENT, Cell, Score, Table
from semiseg.report.results import Entry, Results
from semiseg.report.summary import empty_predictions, lookup, score_statistics
from semiseg.report.wording import kept_because, notes, share_of, share_or_number, unit_of_distances
from semiseg.tasks import all_metrics


def main_table(results: Results) -> Table:
    """Dice per method and amount of labels."""
    scores = score_statistics(results)
    rows: list[list[Cell]] = [
        [e.title, *(score_cell(results, scores, results.primary.name, e.name, labels) for labels in results.amounts)]
        for e in results.entries
    ]
    for column in range(1, len(results.amounts) + 1):
        mark_best(rows, column, [e.role == "semi-supervised" for e in results.entries], "higher")
    columns = ["Method", *map(in_words, results.amounts)]
    return Table(
        "main",
        f"{results.primary.percent} by {share_or_number(results)} of labelled training cases",
        columns,
        rows,
        notes(results),
        role_changes(results.entries),
    )


def full_table(results: Results) -> Table:
    """Every metric, one block of rows per amount of labels."""
    scores, metrics = score_statistics(results), results.kind.metrics
    unit, counted = unit_of_distances(results), bool(results.kind.counts)

    def cells(method: str, labels: Labels) -> list[Cell]:
        missed = [ABSENT if (n := empty_predictions(results, method, labels)) is None else n] if counted else []
        return [
            *(score_cell(results, scores, metric.name, method, labels) for metric in metrics),
            *missed,
        ]

    rows, rules = _blocks(results, cells, ["" if metric.given else metric.better for metric in metrics])
    arrows = ["" if metric.given else " ↑" if metric.better == "higher" else " ↓" for metric in metrics]
    columns = [f"{metric.title}{arrow}{metric.in_unit(unit)}" for metric, arrow in zip(metrics, arrows, strict=True)]
    return Table(
        "full",
        "All metrics",
        ["Labels", "Method", *columns, *(["Missed ↓"] if counted else [])],
        rows,
        [
            *notes(results),
            *(note.format(unit=unit) for note in results.kind.notes),
        ],
        rules,
        text_columns=2,
        heading=0,
    )


def class_table(results: Results) -> Table:
    """Dice of each foreground class."""
    scores = score_statistics(results, ["class"])
    overall = score_statistics(results)
    classes = range(1, len(results.classes) + 1)

    def cells(method: str, labels: Labels) -> list[Cell]:
        return [
            *(score_cell(results, scores, results.primary.name, method, labels, index) for index in classes),
            score_cell(results, overall, results.primary.name, method, labels),
        ]

    rows, rules = _blocks(results, cells, ["higher"] * (len(classes) + 1))
    return Table(
        "classes",
        f"{results.primary.percent} per class",
        ["Labels", "Method", *results.classes, "Mean"],
        rows,
        notes(results),
        rules,
        text_columns=2,
        heading=0,
    )


def _blocks(
    results: Results, cells: Callable[[str, Labels], list[Cell]], better: list[str]
) -> tuple[list[list[Cell]], set[int]]:
    """A block of rows for each amount of labels, with the best marked in columns that are `better` so; its rules.

    Nothing is marked where no value is better.
    """
    rows: list[list[Cell]] = []
    rules: set[int] = set()
    for labels in results.amounts:
        entries = [entry for entry in results.entries if (entry.name, labels) in results.cells]
        block: list[list[Cell]] = [[in_words(labels), e.title, *cells(e.name, labels)] for e in entries]
        for column, direction in enumerate(better, start=2):
            if direction:
                mark_best(block, column, [entry.role == "semi-supervised" for entry in entries], direction)
        rules |= {len(rows)} - {0}
        rows += block
    return rows, rules


def predictor_table(results: Results, predictors: pd.DataFrame) -> Table:
    """Dice of the other single networks that a method could have predicted with, below the one it reports."""
    primary = score_statistics(results)
    others = score_statistics(results, ["predictor"], predictors)
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
                *(score_cell(results, primary, results.primary.name, entry.name, labels) for labels in results.amounts),
            ]
        )
        rows += [
            [
                "",
                name,
                *(predictor_cell(results, predictors, others, entry.name, labels, name) for labels in results.amounts),
            ]
            for name in names
        ]
    return Table(
        "predictors",
        f"{results.primary.percent} of secondary predictors",
        ["Method", "Predictor", *map(in_words, results.amounts)],
        rows,
        [*notes(results, entries), *untold(rows)],
        rules,
        text_columns=2,
    )


def ensemble_table(results: Results, predictors: pd.DataFrame) -> Table:
    """Dice of means of several networks, those of as many together, the lower bound's first."""
    scores = score_statistics(results, ["networks", "predictor"], predictors)
    by_name = {entry.name: entry for entry in results.entries}
    places = {name: place for place, name in enumerate(by_name)}
    known = predictors[["networks", "method", "predictor"]].drop_duplicates().itertuples(index=False, name=None)
    kinds = sorted(known, key=lambda kind: (kind[0], places[kind[1]]))
    rows: list[list[Cell]] = [
        [
            str(networks),
            by_name[method].title,
            name,
            *(
                predictor_cell(results, predictors, scores, method, labels, networks, name)
                for labels in results.amounts
            ),
        ]
        for networks, method, name in kinds
    ]
    bound = results.bound("lower bound")
    alone = sorted({n for n, *_ in kinds} - {n for n, method, _ in kinds if by_name[method].role == "lower bound"})
    missing = [f"No mean of {n} networks of {bound.title} was made, with which these compare." for n in alone if bound]
    return Table(
        "ensembles",
        f"{results.primary.percent} of means of several networks",
        ["Networks", "Method", "Predictor", *map(in_words, results.amounts)],
        rows,
        [
            *notes(results, [entry for entry in results.entries if entry.name in {method for _, method, _ in kinds}]),
            "Means of class probabilities. No method reports one: a mean of networks gains from their number alone.",
            *untold(rows),
            *missing,
        ],
        {i for i in range(1, len(kinds)) if kinds[i][0] != kinds[i - 1][0]},
        text_columns=3,
        heading=0,
    )


def predictor_cell(
    results: Results, predictors: pd.DataFrame, scores: pd.DataFrame, method: str, labels: Labels, *rest: str | int
) -> Cell:
    """The mean of a predictor, whose name ends `rest`; marked where fewer runs tell it than were finished."""
    cell = score_cell(results, scores, results.primary.name, method, labels, *rest)
    if not isinstance(cell, Score):
        return cell
    is_its = (predictors.method == method) & (predictors.labels == labels) & (predictors.predictor == rest[-1])
    told = len(predictors.loc[is_its, ["fold", "seed"]].drop_duplicates())
    return replace(cell, partial=cell.partial or told < len(results.cells[method, labels]))


def untold(rows: list[list[Cell]]) -> list[str]:
    """What the mark of a mean over fewer runs means in a table of predictors."""
    marked = any(isinstance(cell, Score) and cell.partial for row in rows for cell in row)
    return ["† Also of a predictor whose scores not all finished runs have kept."] if marked else []


def score_cell(
    results: Results, scores: pd.DataFrame, metric: str, method: str, labels: Labels, *rest: str | int
) -> Cell:
    """The mean of a metric in a table, or that there is none; `rest` are further levels of `scores`."""
    found = lookup(scores, metric, method, labels, *rest)
    if found is None or isnan(found[0]):
        return ABSENT
    scale = all_metrics()[metric].scale
    partial, kept = bool(share_of(results, method, labels)), bool(kept_because(results, method, labels))
    return Score(found[0] * scale, found[1] * scale, partial=partial, kept=kept)


def mark_best(rows: list[list[Cell]], column: int, eligible: list[bool], better: str) -> None:
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


def role_changes(entries: list[Entry]) -> set[int]:
    """Rows before which a line sets bounds apart."""
    return {i for i in range(1, len(entries)) if entries[i].role != entries[i - 1].role}
