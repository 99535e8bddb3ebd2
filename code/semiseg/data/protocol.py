"""Protocols of published numbers: a data set's own lists instead of folds, and the rules that chose among weights."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from semiseg.data.splits import Fold, Partition, Splits
from semiseg.data.store import Dataset
from semiseg.errors import UserError
from semiseg.labels import Labels

Chooser = Literal["validation", "validation and test", "test"]  # the cases on which weights were best
SLICE = re.compile(r"(.+)_slice_?\d+")


class Protocol(BaseModel):
    """What a published protocol says of cases and of choices among weights; other settings say the rest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: str = "train"  # the list of the data set in whose order cases get labels; of cases, or of their slices
    validation: str | None = None  # a list of cases that are neither trained on nor tested
    test: str = "test"
    selected_on: tuple[Chooser, ...] = ()  # rules to report beside the last weights
    every: int = Field(200, ge=1)  # steps between two weights among which the rules choose
    stride: tuple[int, ...] | None = None  # voxels between windows in 3D, averaged alike; None: overlap by half

    @model_validator(mode="after")
    def _rules_have_their_cases(self) -> "Protocol":
        if self.validation is None and any("validation" in rule for rule in self.selected_on):
            raise ValueError("selected_on: names validation cases, and no list of them is named; add validation: LIST")
        return self


@dataclass(frozen=True)
class OfficialPartition(Partition):
    """The cases of a run with those that published rules look at."""

    validation: tuple[str, ...] = ()

    def chooses(self, rule: Chooser) -> tuple[str, ...]:
        """The cases on which weights are compared."""
        return {"validation": self.validation, "test": self.test}.get(rule, self.validation + self.test)


@dataclass(frozen=True)
class OfficialSplits(Splits):
    """One fold: the lists that come with a data set, the first of them in its own order."""

    validation: tuple[str, ...] = ()

    def partition(self, fold: int, labels: Labels, groups: dict[str, str], inner: int | None = None) -> Partition:
        """Label the first groups of the list, as in a frozen split."""
        chosen = super().partition(fold, labels, groups, inner)
        return OfficialPartition(chosen.labeled, chosen.unlabeled, chosen.test, self.validation)


def official_splits(dataset: Dataset, protocol: Protocol) -> OfficialSplits:
    """The split that a protocol's lists make of a data set; what is in no list takes no part."""
    lists = dataset.lists
    cases: dict[str, tuple[str, ...]] = {}
    for name in filter(None, (protocol.train, protocol.validation, protocol.test)):
        if name not in lists:
            known = f"it has {', '.join(sorted(lists))}" if lists else "it has none"
            raise UserError(
                f"{dataset.path}: holds no list {name!r}, {known}; "
                f"add it to the original folder and prepare that again, or name another list under protocol."
            )
        cases[name] = _cases(lists[name], dataset, name)
    groups = {record.id: record.group for record in dataset.records.values()}
    _refuse_overlap(cases, groups, dataset)
    members: dict[str, list[str]] = {}
    for case in cases[protocol.train]:  # groups in the order of their first case
        members.setdefault(groups[case], []).append(case)
    fold = Fold(cases[protocol.test], tuple(case for group in members.values() for case in group))
    validation = cases[protocol.validation] if protocol.validation else ()
    return OfficialSplits(dataset.info.name, dataset.hash, 0, (fold,), validation=validation)


def _cases(lines: Iterable[str], dataset: Dataset, name: str) -> tuple[str, ...]:
    """The cases of a list in its order; a list of slices has to name all slices of a case."""
    slices: dict[str, int] = {}
    for line in lines:
        entry = line.removesuffix(".h5")
        match = SLICE.fullmatch(entry)
        case = match[1] if match and entry not in dataset.records else entry
        if case not in dataset.records:
            raise UserError(
                f"{dataset.path}: the list {name!r} names {line}, which is not there; prepare the data again."
            )
        if dataset.records[case].is_bare:
            raise UserError(f"{dataset.path}: the list {name!r} names {line}, which has no mask; take it off the list.")
        slices[case] = slices.get(case, 0) + (case != entry)
    for case, number in slices.items():
        if number not in (0, depth := dataset.records[case].shape[1]):
            raise UserError(
                f"{dataset.path}: the list {name!r} names {number} of {depth} slices of {case}; "
                "cases are labelled whole, so choose a list of whole ones."
            )
    return tuple(slices)


def _refuse_overlap(cases: dict[str, tuple[str, ...]], groups: dict[str, str], dataset: Dataset) -> None:
    """Nobody is in two lists."""
    where: dict[str, str] = {}
    for name, members in cases.items():
        for group in dict.fromkeys(groups[case] for case in members):
            if group in where:
                raise UserError(
                    f"{dataset.path}: {group} is in the lists {where[group]!r} and {name!r}; mend the lists."
                )
            where[group] = name
