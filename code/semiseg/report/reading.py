"""Reads the runs of a benchmark; what is damaged or belongs to another task is named, and counted nowhere."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pandas.api.types import is_numeric_dtype

from semiseg.data.splits import FOLDS
from semiseg.errors import UserError
from semiseg.labels import Labels, labels_of, read_labels
from semiseg.report.entries import entries_of
from semiseg.report.results import KEY, Results, Run
from semiseg.settings import NONE, BenchmarkSettings, cell_of, load_benchmark
from semiseg.tasks import DEFAULT, TaskKind, task_kind
from semiseg.training.checksums import damage

NEEDED = {"spec": ("network",), "method": ("uses_unlabeled",), "data": ("title", "classes")}  # of run.json


def read_results(path: Path) -> Results:
    """Read every run below `path`/runs; what cannot be read counts as failed."""
    if not path.is_dir():
        raise UserError(f"{path}: no such results folder; name the one that `semiseg run` wrote.")
    path = path.resolve()  # has a name, even if that is given as a dot
    runs, cases, predictors, misplaced = [], [], [], {}
    for file in sorted(path.glob("runs/*/*/*/*/run.json")):
        run = _read_run(file)
        if (place := _place(run)) not in (None, Path(*file.parent.parts[-4:])):
            misplaced[file.parent.relative_to(path).as_posix()] = f"runs/{place}"
            continue
        if run.status == "finished":
            try:
                if what := damage(file.parent, run.record):
                    raise ValueError(what)
                kind = task_kind(run.record["data"].get("task") or DEFAULT)
                frame = _read_scores(file.with_name("cases.csv"), ["case", "group", "class", "class_name"], kind)
                secondary = file.with_name("predictors.csv")
                if secondary.exists() and secondary.stat().st_size:
                    scores = _read_scores(secondary, ["predictor", "class"], kind)
                    networks = scores.get("networks", 1)  # runs from before that was recorded do not tell
                    predictors.append(scores.assign(**_named(run), networks=networks))
                cases.append(frame.assign(**_named(run)))
            except (OSError, ValueError, UserError) as error:
                run = Run(run.folder, run.record, *run.key, status="unreadable", reason=str(error))
        runs.append(run)
    finished = [run for run in runs if run.status == "finished"]
    if not finished:
        why = f"`semiseg status {path}` says why" if runs else "give the folder of a benchmark's results (results/NAME)"
        if misplaced and not runs:
            why = "{} holds the record of {}; give it that name".format(*next(iter(misplaced.items())))
        if damaged := [run for run in runs if run.status == "unreadable"]:
            why = " ".join(f"{damaged[0].folder}: {damaged[0].reason}".split())
        raise UserError(f"{path}: no finished run to report on; {why}.")
    if len(tasks := {run.record["data"].get("task") or DEFAULT for run in finished}) > 1:
        raise UserError(f"{path}: some runs learned {' and others '.join(sorted(tasks))}; separate the folders.")
    if len({(run.record.get("spec") or {}).get("inner") is None for run in finished}) > 1:
        raise UserError(f"{path}: some runs were tested on inner folds and others on test cases; separate the folders.")
    unfinished = [run for run in runs if run.status != "finished"]
    return Results(
        path,
        entries_of(finished, _asked_methods(path)),
        finished,
        unfinished,
        pd.concat(cases, ignore_index=True),
        pd.concat(predictors, ignore_index=True) if predictors else pd.DataFrame(),
        _asked_settings(path),
        misplaced,
    )


def _read_run(file: Path) -> Run:
    """A run as its folder describes it; the folder's name stands in for a damaged run.json."""
    method, labels, fold, seed = file.parent.parts[-4:]
    outer, _, inner = fold.partition(".inner-")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        spec = record["spec"]
        amount = _labels(spec)
        if record["status"] == "finished":  # what ended before it began does not describe its method
            described = record["method"]
            amount = amount if described.get("uses_labels", True) else NONE
            amount = 1.0 if described["uses_all_labels"] else amount
        if record["status"] == "finished" and (absent := _absent(record)):
            raise ValueError(f"it lacks {', '.join(absent)}")
        return Run(
            file.parent,
            record,
            str(spec["method"]),
            amount,
            _fold(int(spec["fold"]), spec.get("inner")),
            int(spec["seed"]),
            str(record["status"]),
            str(record.get("reason") or ""),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Run(
            file.parent,
            {},
            method,
            labels_of(labels),
            _fold(int(_number(outer)), int(_number(inner)) if inner else None),
            int(_number(seed)),
            "unreadable",
            f"run.json is damaged ({type(error).__name__}: {error})",
        )


def _place(run: Run) -> Path | None:
    """Where the run of a record belongs below `runs`; None where a damaged one does not tell."""
    if not run.record:
        return None
    spec = run.record["spec"]
    return Path(run.method, cell_of(_labels(spec), int(spec["fold"]), spec.get("inner"), run.seed))


def _labels(spec: dict[str, Any]) -> Labels:
    labels: Labels = spec["labels"] if spec["labels"] == NONE else read_labels(spec["labels"])
    return labels


def _absent(record: dict[str, Any]) -> list[str]:
    """What the record of a finished run lacks that no table can do without."""
    return [f"{part}.{key}" for part, keys in NEEDED.items() for key in keys if key not in (record.get(part) or ())]


def _fold(fold: int, inner: int | None) -> int:
    """A number for each fold, and for each inner fold of each: runs are paired by it."""
    return fold if inner is None else FOLDS * fold + inner


def _number(text: str) -> float:
    digits = "".join(c for c in text if c.isdigit() or c == ".")
    return float(digits) if digits.strip(".") else 0.0


def _read_scores(file: Path, needed: list[str], kind: TaskKind) -> pd.DataFrame:
    words = dict.fromkeys(["case", "group", "class_name", "predictor"], str)
    frame = pd.read_csv(file, dtype=words, keep_default_na=False)  # a patient may be called NA
    metrics = [metric.name for metric in kind.metrics]
    absent = [column for column in (*needed, *metrics, *kind.counts) if column not in frame]
    if absent:
        raise ValueError(f"{file.name} lacks the columns {', '.join(absent)}")
    if frame.empty and file.name == "cases.csv":
        raise ValueError(f"{file.name} holds no case")
    for column in metrics:
        if not is_numeric_dtype(frame[column]):
            frame[column] = pd.to_numeric(frame[column])
    if frame[metrics].isna().any(axis=None):
        raise ValueError(f"{file.name} holds scores that are no numbers")
    return frame[[*(column for column in frame if column not in metrics), *metrics]]  # what is compared comes first


def _named(run: Run) -> dict[str, Any]:
    return dict(zip(KEY, run.key, strict=True))


def _asked_methods(path: Path) -> list[str]:
    """The methods in the order of benchmark.yaml, if there is one."""
    try:
        entries = yaml.safe_load((path / "benchmark.yaml").read_text(encoding="utf-8"))["methods"]
        # An entry with settings is a mapping whose key is the name.
        return [str(name) for entry in entries for name in (entry if isinstance(entry, dict) else [entry])]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return []


def _asked_settings(path: Path) -> BenchmarkSettings | None:
    try:
        return load_benchmark(path / "benchmark.yaml", {})
    except UserError:
        return None
