"""Averages of per-case numbers, over cases, folds and seeds."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from semiseg.labels import Labels
from semiseg.report.results import COUNTS, KEY, Results, Run
from semiseg.tasks import all_metrics


def score_names(cases: pd.DataFrame) -> list[str]:
    """The metrics among the columns, the one that methods are compared by first."""
    return [column for column in cases if column in all_metrics()]


def primary_scores(cases: pd.DataFrame) -> pd.Series:
    """The column of what methods are compared by."""
    column: pd.Series = cases[score_names(cases)[0]]
    return column


def run_scores(cases: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Every metric per run and value of `by`: the mean over its cases (of ranks the median), then over classes."""
    summaries = {name: all_metrics()[name].summary for name in score_names(cases)}
    scores = cases.groupby(list(dict.fromkeys([*KEY, *by, "class"]))).agg(summaries)
    return scores.groupby([*KEY, *by]).mean()


def fold_scores(cases: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """The same per method, amount of labels, value of `by` and fold, whose seeds are averaged."""
    return run_scores(cases, by).groupby(["method", "labels", *by, "fold"]).mean()


def score_statistics(results: Results, by: Sequence[str] = (), predictors: pd.DataFrame | None = None) -> pd.DataFrame:
    """Mean and standard deviation over `repeated` trainings, one row per method, amount of labels and value of `by`.

    They are of the reported networks, or of other `predictors`.

    Returns:
        Columns (metric, "mean" | "std") for every metric; std has ddof = 1 and is NaN for a single training.
    """
    cases = results.cases if predictors is None else predictors
    scores = run_scores(cases, by) if results.repeated == "seeds" else fold_scores(cases, by)
    return scores.groupby(["method", "labels", *by]).agg(["mean", "std"])


def lookup(statistics: pd.DataFrame, metric: str, *row: str | float | int) -> tuple[float, float] | None:
    """Mean and standard deviation of one row of `score_statistics`; None where there is no such row."""
    scores: Any = statistics  # the stubs know no look-up by several levels
    if row not in scores.index:
        return None
    return float(scores.at[row, (metric, "mean")]), float(scores.at[row, (metric, "std")])


def summary_frame(results: Results) -> pd.DataFrame:
    """One row per method and amount of labels: every score, and what it cost to get there."""
    statistics, (_, on_most) = score_statistics(results), on_one_processor(results.own)
    rows = []
    for entry in results.entries:
        for labels in results.amounts:
            if not (runs := results.cells.get((entry.name, labels))):
                continue
            timed = [run.record for run in on_most if (run.method, run.labels) == (entry.name, labels)]
            row: dict[str, Any] = {
                "method": entry.name,
                "title": entry.title,
                "role": entry.role,
                "labels": labels,
            }
            for metric in score_names(results.cases):
                found = lookup(statistics, metric, entry.name, labels)
                row[metric], row[f"{metric}_sd"] = found if found else (None, None)
            row |= {
                "folds": len({run.fold for run in runs}),
                "seeds": len({run.seed for run in runs}),
                "runs": len(runs),
                "empty_predictions": empty_predictions(results, entry.name, labels),
                "seconds": _mean(map(training_seconds, timed)),
                "images_per_second": _mean(record.get("images_per_second") for record in timed),
            }
            rows.append(row)
    return pd.DataFrame(rows)


def training_seconds(record: dict[str, Any]) -> float | None:
    """How long a training took, with the pre-training that it starts from; None where the run does not tell."""
    own = record.get("seconds")
    return None if own is None else float(own) + float((record.get("start") or {}).get("seconds") or 0)


def on_one_processor(runs: Sequence[Run]) -> tuple[str, list[Run]]:
    """The processor that carried out most of these runs, and all but those that say that another did."""
    devices = [str((run.record.get("environment") or {}).get("device", "")) for run in runs]
    most = max(filter(None, dict.fromkeys(devices)), key=devices.count, default="")
    return most, [run for run, device in zip(runs, devices, strict=True) if device in ("", most)]


def empty_predictions(results: Results, method: str, labels: Labels) -> int | None:
    """How many structures that are there were not predicted at all, over all runs; None where nobody counted."""
    cases = results.cases[(results.cases.method == method) & (results.cases.labels == labels)]
    if COUNTS[0] not in cases or cases.predicted_voxels.isna().any():
        return None
    return int(((cases.predicted_voxels == 0) & (cases.reference_voxels > 0)).sum())


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else float("nan")
