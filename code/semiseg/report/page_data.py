"""What the page's scripts read: scores with intervals, and every run with its identity and environment."""

from collections.abc import Sequence
from math import isnan
from typing import Any

import pandas as pd

from semiseg.labels import Labels, in_words
from semiseg.metrics import Metric
from semiseg.report.provenance import not_started
from semiseg.report.results import KEY, Results, Run
from semiseg.report.significance import ENOUGH, corrected_t_test
from semiseg.report.summary import fold_scores, run_scores
from semiseg.report.wording import (
    count_of_folds,
    data_title,
    headroom,
    kept_because,
    share_of,
    told_apart,
    unit_of_distances,
)
from semiseg.settings import NONE


def cell_keys(results: Results) -> list[tuple[str, Labels]]:
    """Method and labels of every cell with a finished run, in the order of the tables."""
    amounts = results.amounts
    order = [entry.name for entry in results.entries]
    keys = dict.fromkeys((run.method, run.labels) for run in results.finished)
    return sorted(keys, key=lambda key: (order.index(key[0]), amounts.index(key[1])))


def page_data(benchmarks: Sequence[Results]) -> dict[str, Any]:
    """Everything as plain values; a cell is a method with an amount of labels, and others name it by its place."""
    known = page_metrics(benchmarks)
    told = ("title", "better", "distance", "number", "given")
    metrics = [{key: getattr(metric, key) for key in told} for metric in known]
    names = told_apart([data_title(results) for results in benchmarks], [results.path.name for results in benchmarks])
    return {
        "metrics": metrics,
        "benchmarks": [_benchmark(*each, known) for each in zip(benchmarks, names, strict=True)],
    }


def page_metrics(benchmarks: Sequence[Results]) -> list[Metric]:
    """Those of every task that is there."""
    return list(dict.fromkeys(metric for results in benchmarks for metric in results.kind.metrics))


def _benchmark(results: Results, name: str, metrics: list[Metric]) -> dict[str, Any]:
    titles = {entry.name: entry.title for entry in results.entries}
    roles = {entry.name: entry.role for entry in results.entries}
    scores = _scores(results, metrics)
    cells = [
        {
            "name": method,
            "method": titles[method],
            "role": roles[method],
            "task": results.kind.name,
            "labels": in_words(labels),
            "everywhere": labels == NONE or roles[method] == "upper bound",  # shown beside all amounts of labels
            "partial": share_of(results, method, labels),
            "kept": kept_because(results, method, labels),
            "scores": scores[method, labels],
        }
        for method, labels in cell_keys(results)
    ]
    return {
        "data": name,
        "remarks": [*headroom(results), *_few(results)],
        "unit": unit_of_distances(results),
        "labels": [in_words(labels) for labels in results.amounts],
        "structures": results.classes,
        "cells": cells,
        **_runs(results, metrics),
    }


def _few(results: Results) -> list[str]:
    """That there are too few trainings to believe an order of methods, if so."""
    folds, _ = results.grid
    return [f"{count_of_folds(results)}: too few to tell a difference from chance."] if len(folds) < ENOUGH else []


def _scores(results: Results, metrics: list[Metric]) -> dict[tuple[Any, ...], list[list[list[float | None]]]]:
    """Mean and ends of the 95 % interval for the mean over structures, then for each one, and every metric."""
    whole = fold_scores(results.cases)
    single = fold_scores(results.cases, ["class"])
    out: dict[tuple[Any, ...], list[list[list[float | None]]]] = {}
    for cell, folds in whole.groupby(["method", "labels"]):
        out[tuple(cell)] = [_intervals(folds, metrics)]
    for (method, labels, _), folds in single.groupby(["method", "labels", "class"]):
        out[method, labels].append(_intervals(folds, metrics))
    return out


def _intervals(folds: pd.DataFrame, metrics: list[Metric]) -> list[list[float | None]]:
    """Mean, low and high of every metric; without ends where folds are too few to tell, and none of another task's."""
    out: list[list[float | None]] = []
    for metric in metrics:
        if metric.name not in folds:
            out.append([None] * 3)
            continue
        values = metric.scale * folds[metric.name].to_numpy(dtype=float)
        found = corrected_t_test(values)
        out.append([_rounded(value) for value in (float(values.mean()), found.low, found.high)])
    return out


def _rounded(value: float) -> float | None:
    return None if isnan(value) else round(value, 2)


def _runs(results: Results, metrics: list[Metric]) -> dict[str, Any]:
    """Every run that was asked for; what many share stands once."""
    shared: dict[str, int] = {}

    def once(circumstances: dict[str, Any]) -> int:
        told = "; ".join(f"{key.replace('_', ' ')}: {value}" for key, value in circumstances.items() if value)
        return shared.setdefault(told, len(shared))

    columns = [*KEY, "status", "reason", "kept", "seconds", "identity", "commit", "environment", "warnings", "scores"]
    means = run_scores(results.cases).reindex(columns=[metric.name for metric in metrics])
    by_run: dict[Any, Any] = dict(zip(means.index, means.to_numpy(), strict=True))
    rows: list[list[Any]] = []
    for run in sorted(results.finished + results.unfinished, key=lambda r: str(r.folder)):
        environment = {k: v for k, v in (run.record.get("environment") or {}).items() if k != "load"}
        scores = None
        if run.status == "finished":
            scores = [_rounded(m.scale * float(mean)) for m, mean in zip(metrics, by_run[run.key], strict=True)]
        rows.append(
            [
                run.method,
                in_words(run.labels),
                results.fold_name(run.fold),
                run.seed,
                run.status,
                run.reason,
                str((run.record.get("kept") or {}).get("because", "")),
                run.record.get("seconds"),
                _identity(run),
                str(run.record.get("git_commit") or "")[:12],
                once(environment),
                [str(warning) for warning in run.record.get("warnings") or []],
                scores,
            ]
        )
    for method, labels, fold, seed in not_started(results):
        row = [method, in_words(labels), results.fold_name(fold), seed, "not started"]
        rows.append([*row, *[None] * (len(columns) - len(row))])
    return {"columns": columns, "runs": rows, "environments": list(shared)}


def _identity(run: Run) -> str:
    return str((run.record.get("identity") or {}).get("hash", ""))[:12]
