"""Reads the runs of a benchmark and averages their per-case numbers."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any, Literal, get_args

import pandas as pd
import yaml
from pandas.api.types import is_numeric_dtype

from semiseg.data.splits import FOLDS
from semiseg.errors import UserError
from semiseg.labels import Labels, count_of, labels_of, rank, read_labels
from semiseg.metrics import Metric
from semiseg.settings import NONE, BenchmarkSettings, load_benchmark
from semiseg.tasks import DEFAULT, TaskKind, all_metrics, task_kind

KEY = ["method", "labels", "fold", "seed"]  # what tells one run from another
COUNTS = ("predicted_voxels", "reference_voxels")  # of tasks that count voxels
Role = Literal["lower bound", "semi-supervised", "theirs", "upper bound"]
NEEDED = {"spec": ("network",), "method": ("uses_unlabeled",), "data": ("title", "classes")}  # of run.json
ROLES: tuple[Role, ...] = get_args(Role)  # in the order of the tables


@dataclass(frozen=True)
class Run:
    """One run folder."""

    folder: Path
    record: dict[str, Any]  # run.json
    method: str
    labels: Labels  # how many of the training cases were labeled
    fold: int  # counted on through the repeats; of an inner fold, through those of all folds
    seed: int
    status: str
    reason: str

    @property
    def key(self) -> tuple[str, Labels, int, int]:
        """The values of `KEY`."""
        return self.method, self.labels, self.fold, self.seed


@dataclass(frozen=True)
class Entry:
    """A method as a row of the tables."""

    name: str
    title: str
    role: Role
    paper: dict[str, str]
    published_as: tuple[str, ...] = ()  # what else published tables call it


@dataclass(frozen=True)
class Results:
    """All that a report is made from; numbers come from finished runs only."""

    path: Path
    entries: list[Entry]  # in the order of the tables
    finished: list[Run]
    unfinished: list[Run]
    cases: pd.DataFrame  # KEY and the columns of cases.csv
    predictors: pd.DataFrame  # likewise, with the columns `predictor` and `networks` (how many it averages)
    settings: BenchmarkSettings | None = None  # what was asked for, if that can be read

    @cached_property
    def own(self) -> list[Run]:
        """Finished runs, without numbers that somebody gave."""
        return [run for run in self.finished if "theirs" not in run.record]

    @cached_property
    def cells(self) -> dict[tuple[str, Labels], list[Run]]:
        """Finished runs by method and amount of labels."""
        out: dict[tuple[str, Labels], list[Run]] = {}
        for run in self.finished:
            out.setdefault((run.method, run.labels), []).append(run)
        return out

    @cached_property
    def amounts(self) -> list[Labels]:
        """How many labels there are with at least one finished run, the fewest cases first."""
        cases: dict[Labels, list[int]] = {}
        for run in self.finished:
            cases.setdefault(run.labels, []).append(run.record["data"].get("labeled") or 0)
        if not any(map(count_of, cases)):
            return sorted(cases)  # shares need no counting, and a share of other folds stays what it is
        return sorted(cases, key=lambda labels: (mean(cases[labels]), rank(labels)))

    def amounts_of(self, method: str) -> list[Labels]:
        """The same of one method."""
        own = {labels for name, labels in self.cells if name == method}
        return [labels for labels in self.amounts if labels in own]

    @property
    def record(self) -> dict[str, Any]:
        """The run.json of the first finished run, for what all runs share."""
        return self.finished[0].record

    @cached_property
    def kind(self) -> TaskKind:
        """What was learned; runs from before that was recorded do not tell."""
        return task_kind(self.record["data"].get("task") or DEFAULT)

    @property
    def primary(self) -> Metric:
        """What methods are compared by."""
        return self.kind.primary

    @property
    def classes(self) -> list[str]:
        """Names of the foreground classes."""
        return list(self.record["data"]["classes"][1:])

    def bound(self, role: Role) -> Entry | None:
        """The first method of a role: the lower bound with which others are compared, the upper bound above them."""
        return next((entry for entry in self.entries if entry.role == role), None)

    @property
    def inner(self) -> bool:
        """Whether runs were tested on inner folds of training cases."""
        return self.record["spec"].get("inner") is not None

    def fold_name(self, fold: int) -> str:
        """A fold as its folder is called."""
        return f"{fold // FOLDS}.inner-{fold % FOLDS}" if self.inner else str(fold)

    @cached_property
    def grid(self) -> tuple[list[int], list[int]]:
        """The folds (of all repeats) and the seeds that were asked for anywhere."""
        runs = self.own + self.unfinished
        return sorted({run.fold for run in runs}), sorted({run.seed for run in runs})


def read_results(path: Path) -> Results:
    """Read every run below `path`/runs; what cannot be read counts as failed."""
    if not path.is_dir():
        raise UserError(f"{path}: no such results folder; name the one that `semiseg run` wrote.")
    runs, cases, predictors = [], [], []
    for file in sorted(path.glob("runs/*/*/*/*/run.json")):
        run = _read_run(file)
        if run.status == "finished":
            try:
                kind = task_kind(run.record["data"].get("task") or DEFAULT)
                frame = _read_scores(file.with_name("cases.csv"), ["case", "group", "class", "class_name"], kind)
                secondary = file.with_name("predictors.csv")
                if secondary.exists() and secondary.stat().st_size:
                    scores = _read_scores(secondary, ["predictor", "class"], kind)
                    networks = scores.get("networks", 1)  # runs from before that was recorded do not tell
                    predictors.append(scores.assign(**_named(run), networks=networks))
                cases.append(frame.assign(**_named(run)))
            except (OSError, ValueError) as error:
                run = Run(run.folder, run.record, *run.key, status="unreadable", reason=str(error))
        runs.append(run)
    finished = [run for run in runs if run.status == "finished"]
    if not finished:
        why = f"`semiseg status {path}` says why" if runs else "give the folder of a benchmark's results (results/NAME)"
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
        _entries(finished, _asked_methods(path)),
        finished,
        unfinished,
        pd.concat(cases, ignore_index=True),
        pd.concat(predictors, ignore_index=True) if predictors else pd.DataFrame(),
        _asked_settings(path),
    )


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


def fold_statistics(cases: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Mean and standard deviation over folds, one row per method, amount of labels and value of `by`.

    Returns:
        Columns (metric, "mean" | "std") for every metric; std has ddof = 1 and is NaN for a single fold.
    """
    return fold_scores(cases, by).groupby(["method", "labels", *by]).agg(["mean", "std"])


def lookup(statistics: pd.DataFrame, metric: str, *row: str | float | int) -> tuple[float, float] | None:
    """Mean and standard deviation of one row of `fold_statistics`; None where there is no such row."""
    scores: Any = statistics  # the stubs know no look-up by several levels
    if row not in scores.index:
        return None
    return float(scores.at[row, (metric, "mean")]), float(scores.at[row, (metric, "std")])


def summary_frame(results: Results) -> pd.DataFrame:
    """One row per method and amount of labels: every score, and what it cost to get there."""
    statistics, (_, on_most) = fold_statistics(results.cases), on_one_processor(results.own)
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


def _read_run(file: Path) -> Run:
    """A run as its folder describes it; the folder's name stands in for a damaged run.json."""
    method, labels, fold, seed = file.parent.parts[-4:]
    outer, _, inner = fold.partition(".inner-")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        spec, described = record["spec"], record["method"]
        amount: Labels = 1.0 if described["uses_all_labels"] else NONE
        if not described["uses_all_labels"] and described.get("uses_labels", True):
            amount = read_labels(spec["labels"])
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
    return frame


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


def _entries(runs: list[Run], asked: list[str]) -> list[Entry]:
    """The methods with results: lower bounds first, upper bounds last, in between as the benchmark says."""
    entries: dict[str, Entry] = {}
    titles = _titles(runs)
    for run in runs:
        described = run.record["method"]
        names = described.get("published_as") or () if run.method == _implementation(run) else ()
        told = described.get("paper") or {}, tuple(names)
        entries.setdefault(run.method, Entry(run.method, _title(run, titles), _role(run.record), *told))
    place = {name: index for index, name in enumerate(asked)}
    return sorted(
        entries.values(),
        key=lambda e: (ROLES.index(e.role), place.get(e.name, len(place)), e.title.lower(), e.name),
    )


def _role(record: dict[str, Any]) -> Role:
    """A bound begins at random: whatever starts from a pre-training has learned from unlabelled images, too."""
    if record["spec"].get("start"):
        return "semi-supervised"
    if record["method"]["uses_all_labels"]:
        return "upper bound"
    return "semi-supervised" if record["method"]["uses_unlabeled"] else "lower bound"


def _titles(runs: list[Run]) -> dict[str, str]:
    """What plug-ins are called, by name; older runs of a variant do not tell, and have its name in place of that."""
    told = [(_implementation(run), run.method, str(run.record["method"].get("title") or run.method)) for run in runs]
    return {plugin: title for plugin, name, title in told if plugin == name or title != name}


def _title(run: Run, titles: dict[str, str]) -> str:
    """What a method is called: a variant whose name begins with its method's has that one's title and the rest."""
    plugin = _implementation(run)
    if plugin == run.method:
        return titles[plugin]
    rest = run.method.removeprefix(f"{plugin}_")
    if rest == run.method or plugin not in titles:
        return run.method.replace("_", " ")
    return f"{titles[plugin]} ({rest.replace('_', ' ')})"


def _implementation(run: Run) -> str:
    return run.record["spec"].get("implementation") or run.method


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else float("nan")
