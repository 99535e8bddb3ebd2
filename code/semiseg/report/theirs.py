"""Somebody's own per-case numbers beside the measured ones, marked as theirs."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from semiseg.errors import UserError
from semiseg.labels import Labels, in_words, read_labels
from semiseg.report.results import COUNTS, KEY, ROLES, Entry, Results, Run
from semiseg.report.summary import score_names
from semiseg.tasks import all_metrics


def add_theirs(results: Results, files: Sequence[Path]) -> Results:
    """The results with the numbers of these files as further methods.

    A file has one row per case and class, with `case` and what methods are compared by (`dice`, of segmentations) as a
    fraction; `class` or `class_name` if there are several; `labels` if the benchmark has several amounts; `fold` where
    a case is tested in several; and if it likes `method` (else its folder's name), `seed` (else the first one here),
    and further metrics. Every fold must be complete, since means over other cases are no comparison.
    """
    for file in files:
        results = _add(results, file)
    return results


def _add(results: Results, file: Path) -> Results:
    frame = _read(file, results.primary.name)
    ours = results.cases
    frame["method"] = frame["method"].astype(str) if "method" in frame else file.resolve().parent.name
    frame["labels"] = _labels(results, frame, file)
    frame["class"] = _classes(results, frame, file)
    frame["seed"] = frame.get("seed", min(run.seed for run in results.own))
    frame["fold"] = frame["fold"] if "fold" in frame else _folds(ours, frame, file)
    checksum = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    known = {entry.name for entry in results.entries}
    runs, frames, entries = [], [], {}
    groups: Any = frame.groupby(KEY, sort=True)  # the stubs do not know what the keys are
    for (method, labels, fold, seed), cases in groups:
        if method in known:
            raise UserError(f"--add {file}: there is a method {method!r} already; name another in a column `method`.")
        like = next((run for run in results.own if (run.labels, run.fold, run.seed) == (labels, fold, seed)), None)
        where = f"--add {file}: {method} at {in_words(labels)}, fold {fold}, seed {seed}"
        if like is None:
            raise UserError(f"{where}: no finished run here has these, with which the numbers could be compared.")
        cases = _complete(ours[ours.fold == fold], cases, where)
        frames.append(cases.assign(method=method, labels=labels, fold=fold, seed=seed))
        title = f"{method} (theirs)"
        record = {
            "theirs": f"{title} from {file.name} (SHA-256 {checksum})",
            "spec": {"method": method},
            "method": {"title": title},
            "data": like.record["data"],
        }
        runs.append(Run(file, record, method, labels, int(fold), int(seed), "finished", ""))
        entries[method] = Entry(method, title, "theirs", {})
    return replace(
        results,
        entries=sorted([*results.entries, *entries.values()], key=lambda entry: ROLES.index(entry.role)),
        finished=results.finished + runs,
        cases=pd.concat([ours, *frames], ignore_index=True),
    )


def _read(file: Path, primary: str) -> pd.DataFrame:
    try:
        words = dict.fromkeys(("case", "class_name", "method", "labels"), str)
        frame = pd.read_csv(file, dtype=words, keep_default_na=False)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise UserError(f"--add {file}: cannot be read as a table ({error}).") from error
    if absent := [column for column in ("case", primary) if column not in frame]:
        raise UserError(
            f"--add {file}: lacks the column{'s' * (len(absent) > 1)} {', '.join(absent)}; add what is so named."
        )
    for column in [metric for metric in all_metrics() if metric in frame]:
        frame[column] = pd.to_numeric(frame[column], errors="coerce")
    if not frame[primary].between(0, 1).all():
        raise UserError(f"--add {file}: {primary} should be a number from 0 to 1 in every row, not a percentage.")
    return frame


def _labels(results: Results, frame: pd.DataFrame, file: Path) -> "pd.Series | Labels":
    amounts = results.compared
    if "labels" not in frame:
        if len(amounts) > 1:
            told = ", ".join(map(in_words, amounts))
            raise UserError(f"--add {file}: needs a column `labels`, since there are several amounts here: {told}.")
        return amounts[0]
    try:
        return frame["labels"].map(read_labels)
    except ValueError as error:
        raise UserError(f"--add {file}: {error}.") from error


def _classes(results: Results, frame: pd.DataFrame, file: Path) -> "pd.Series | int":
    if "class" in frame:
        return frame["class"]
    if "class_name" in frame:
        numbers = frame["class_name"].map({name: number for number, name in enumerate(results.classes, start=1)})
        if not numbers.isna().any():
            return numbers.astype(int)
    elif len(results.classes) == 1:
        return 1
    raise UserError(f"--add {file}: needs a column `class_name` with {', '.join(results.classes)}.")


def _folds(ours: pd.DataFrame, frame: pd.DataFrame, file: Path) -> pd.Series:
    """The fold that tests each case, where there is only one."""
    tested = ours[["case", "fold"]].drop_duplicates()
    if tested.case.duplicated().any():
        raise UserError(f"--add {file}: needs a column `fold`, since cases are tested in several folds here.")
    folds = frame["case"].map(dict(zip(tested.case, tested.fold, strict=True)))
    if folds.isna().any():
        unknown = frame["case"][folds.isna()].iloc[0]
        raise UserError(f"--add {file}: no run here was tested on the case {unknown!r}; name cases as cases.csv does.")
    return folds.astype(int)


def _complete(ours: pd.DataFrame, theirs: pd.DataFrame, where: str) -> pd.DataFrame:
    """Their rows with our groups and sizes, if they have each of our rows once."""
    key = ["case", "class"]
    counts = [column for column in COUNTS if column in ours]  # none where a task counts no voxels
    facts = ours.drop_duplicates(key).set_index(key)[["group", "class_name", *counts[1:]]]
    own = theirs.set_index(key)
    lost, extra = facts.index.difference(own.index), own.index.difference(facts.index)
    if len(lost) or len(extra) or own.index.duplicated().any():
        what = f"lacks {len(lost)} of {len(facts)}" if len(lost) else f"has {len(extra)} more than or repeats some of"
        example = f", such as {(lost if len(lost) else extra)[0][0]}" if len(lost) or len(extra) else ""
        raise UserError(f"{where} {what} the test cases and classes{example}; means over others are no comparison.")
    return own.reindex(columns=[*score_names(ours), *counts[:1]]).join(facts).reset_index()
