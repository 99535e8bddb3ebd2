"""What a report is made from: the runs of a benchmark, their methods, and the scores of every case."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any, Literal, get_args

import pandas as pd

from semiseg.data.splits import FOLDS
from semiseg.labels import Labels, count_of, rank
from semiseg.metrics import Metric
from semiseg.settings import NONE, BenchmarkSettings
from semiseg.tasks import DEFAULT, TaskKind, task_kind

KEY = ["method", "labels", "fold", "seed"]  # what tells one run from another
COUNTS = ("predicted_voxels", "reference_voxels")  # of tasks that count voxels
Role = Literal["lower bound", "semi-supervised", "theirs", "upper bound"]
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
    misplaced: dict[str, str] = field(default_factory=dict)  # folders that are not read, and those of their records

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
    def repeated(self) -> Literal["folds", "seeds", ""]:
        """In what trainings differ whose scores deviate: folds, whose seeds are averaged, or seeds of a single one."""
        if self.cases.fold.nunique() > 1:
            return "folds"
        return "seeds" if self.cases.seed.nunique() > 1 else ""

    @cached_property
    def trained(self) -> dict[tuple[str, Labels], set[tuple[int, int, str]]]:
        """Fold, seed and split of every finished run, by method and labels: runs are paired where all three are alike.

        Of a split, what the record says and the cases that were tested, which two of one fold usually share.
        """
        tested = self.cases.groupby(KEY)["case"].agg(lambda cases: "\n".join(sorted(set(cases)))).to_dict()
        out: dict[tuple[str, Labels], set[tuple[int, int, str]]] = {}
        for run in self.finished:
            split = f"{run.record['data'].get('split_hash')}\n{tested[run.key]}"
            out.setdefault((run.method, run.labels), set()).add((run.fold, run.seed, split))
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

    @property
    def fewest(self) -> Labels:
        """The smallest amount that methods learned from, if any did from less than all."""
        return next((labels for labels in self.amounts if labels not in (NONE, 1)), self.amounts[0])

    @property
    def compared(self) -> list[Labels]:
        """The amounts at which there is something to compare: not all labels, where only the upper bound has them."""
        names = {entry.name for entry in self.entries if entry.role in ("lower bound", "semi-supervised")}
        learned = {labels for name, labels in self.cells if name in names}
        return [labels for labels in self.amounts if labels in learned] or self.amounts

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
