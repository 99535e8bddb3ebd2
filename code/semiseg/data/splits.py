"""Frozen splits: repeats of five folds by group, and inside each fold one order in which cases get their labels."""

import hashlib
import json
import os
import random
import socket
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from semiseg.data.store import Dataset
from semiseg.embedded import SPLITS
from semiseg.errors import UserError
from semiseg.labels import Labels, count_of
from semiseg.seeding import derive_seed

FOLDS = 5  # of each repeat; fold f of repeat r is number FOLDS · r + f


@dataclass(frozen=True)
class Fold:
    """The cases of one fold. `train` lists group after group in the order in which they get labels."""

    test: tuple[str, ...]
    train: tuple[str, ...]


@dataclass(frozen=True)
class Partition:
    """The cases of one run: three disjoint lists."""

    labeled: tuple[str, ...]
    unlabeled: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class Splits:
    """All folds of a data set, repeat after repeat, tied to the data they were made from."""

    dataset: str
    data_hash: str
    seed: int
    folds: tuple[Fold, ...]
    bare: tuple[str, ...] = ()  # cases that are images alone, which nothing labels and nobody tests

    @property
    def repeats(self) -> int:
        """How many partitions there are, each into FOLDS folds."""
        return len(self.folds) // FOLDS

    def hash(self, fold: int) -> str:
        """SHA-256 of the repeat that a fold belongs to, which stays as it is when others are appended."""
        first = fold - fold % FOLDS
        repeat = replace(self, folds=self.folds[first : first + FOLDS])
        return hashlib.sha256(json.dumps(repeat.content(), sort_keys=True).encode()).hexdigest()

    def content(self) -> dict[str, Any]:
        """What is kept in a file."""
        content = asdict(self)
        if not self.bare:  # younger than many a split
            del content["bare"]
        return content

    def inner_fold(self, fold: int, inner: int, groups: dict[str, str]) -> Fold:
        """A fifth of a fold's training cases to test on, and the rest in the fold's order; no test case of the fold.

        Settings may be chosen there. The inner folds of a fold are dealt by group like the folds themselves.
        """
        train = self.folds[fold].train
        members = _members(train, groups)
        if len(members) < FOLDS:
            raise UserError(
                f"{self.dataset}: fold {fold} has {len(members)} groups of training cases, and {FOLDS} inner folds "
                f"need at least {FOLDS}; add cases, or choose settings on other data."
            )
        order = sorted(members)
        random.Random(derive_seed("inner folds", self.dataset, fold, *train)).shuffle(order)
        test = set(_deal(order, members)[inner])
        return Fold(tuple(sorted(test)), tuple(case for case in train if case not in test))

    def partition(self, fold: int, labels: Labels, groups: dict[str, str], inner: int | None = None) -> Partition:
        """Label the first groups of the fold's order: as many as `labels` counts, or as come closest to that share.

        A group is labelled whole or not at all, at least one is labelled, and since the order is fixed, fewer labels
        are always contained in more. With `inner` the same is done in an inner fold. Images without a label, which do
        not count, are unlabelled everywhere but where their group is tested.
        """
        if not 0 <= fold < len(self.folds):
            raise UserError(
                f"{self.dataset}: fold {fold} is not frozen, there are {len(self.folds)}; a benchmark with "
                f"`repeats: {fold // FOLDS + 1}` freezes it."
            )
        chosen = self.folds[fold] if inner is None else self.inner_fold(fold, inner, groups)
        ends = [
            i + 1
            for i, case in enumerate(chosen.train)
            if i + 1 == len(chosen.train) or groups[case] != groups[chosen.train[i + 1]]
        ]
        where = f"{self.dataset}: fold {fold}{'' if inner is None else f', inner fold {inner}'}"
        count = _labeled(labels, ends, where)
        tested = {groups[case] for case in (*self.folds[fold].test, *chosen.test)}
        bare = (case for case in self.bare if groups[case] not in tested)
        return Partition(chosen.train[:count], (*chosen.train[count:], *bare), chosen.test)


def make_splits(dataset: Dataset, seed: int = 0, repeats: int = 1) -> Splits:
    """Deal shuffled groups into folds of even size, then shuffle each training set's groups; anew in every repeat."""
    members = _members(dataset.annotated, {record.id: record.group for record in dataset.records.values()})
    if len(members) < FOLDS:
        raise UserError(
            f"{dataset.path}: {FOLDS} folds need at least {FOLDS} groups, there are {len(members)} with labels; "
            "add cases, or name finer groups."
        )

    def shuffled(repeat: int, purpose: object) -> list[str]:
        groups = sorted(members)
        which = ("repeat", repeat) if repeat else ()  # the first repeat is older than the others
        random.Random(derive_seed("splits", seed, *which, purpose)).shuffle(groups)
        return groups

    folds = []
    for repeat in range(repeats):
        for index, test in enumerate(_deal(shuffled(repeat, "folds"), members)):
            held_out, order = set(test), shuffled(repeat, index)
            train = [case for group in order for case in sorted(members[group]) if case not in held_out]
            folds.append(Fold(tuple(sorted(test)), tuple(train)))
    return Splits(dataset.info.name, dataset.hash, seed, tuple(folds), _bare(dataset))


def _labeled(labels: Labels, ends: Sequence[int], where: str) -> int:
    """How many training cases are labelled, when groups end at `ends` and each is labelled whole or not at all."""
    counted = count_of(labels)
    if counted is None:
        return min(ends, key=lambda end: abs(end - float(labels) * ends[-1]))
    number, noun = counted
    if noun != "case":
        if number > len(ends):
            raise UserError(f"{where} has {len(ends)} groups of training cases, not {labels}; choose fewer.")
        return ends[number - 1]
    if number not in ends:
        near = [*[end for end in ends if end < number][-1:], *[end for end in ends if end > number][:1]]
        raise UserError(
            f"{where} cannot label {labels}, since groups are labelled whole; choose {' or '.join(map(str, near))}."
        )
    return number


def _bare(dataset: Dataset) -> tuple[str, ...]:
    """The cases that are images alone."""
    return tuple(sorted(dataset.records.keys() - dataset.annotated.keys()))


def _members(cases: Iterable[str], groups: dict[str, str]) -> dict[str, list[str]]:
    """The cases of every group."""
    members: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        members[groups[case]].append(case)
    return members


def _deal(order: Sequence[str], members: dict[str, list[str]]) -> list[list[str]]:
    """Deal groups into folds of even size."""
    tests: list[list[str]] = [[] for _ in range(FOLDS)]
    for group in sorted(order, key=lambda g: -len(members[g])):  # large groups first keeps folds even
        min(tests, key=len).extend(members[group])
    return tests


def load_or_freeze(path: Path, dataset: Dataset, repeats: int = 1, write: bool = True) -> Splits:
    """Read the frozen splits of a data set; as many repeats as are asked for and not there are frozen now, in `path`.

    What is frozen stays as it is, and the rest follows from the seed: should two commands append at the same time and
    the one with fewer repeats come last, whoever misses one appends the very same again.

    Args:
        write: whether to freeze, and not just to tell what would be.
    """
    frozen = load_frozen(path, dataset)
    if frozen and frozen.repeats >= repeats:
        return frozen
    splits = make_splits(dataset, frozen.seed if frozen else 0, repeats)
    if frozen:
        splits = replace(frozen, folds=frozen.folds + splits.folds[len(frozen.folds) :])
    if not write:
        return splits
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.partial")
    partial.write_text(json.dumps(splits.content(), indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
    return splits


def load_frozen(path: Path, dataset: Dataset) -> Splits | None:
    """The splits that are frozen in `path`, or else come with semiseg for the very same data, if there are any."""
    if path.exists():
        return _load(path, dataset)
    embedded = SPLITS / f"{dataset.info.name}.json"
    if not embedded.exists() or json.loads(embedded.read_text(encoding="utf-8")).get("data_hash") != dataset.hash:
        return None
    return _load(embedded, dataset)


def _load(path: Path, dataset: Dataset) -> Splits:
    """Read frozen splits, and refuse those of other data and those that an edit made leak."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        folds = tuple(Fold(tuple(f["test"]), tuple(f["train"])) for f in stored.pop("folds"))
        splits = Splits(folds=folds, bare=tuple(stored.pop("bare", ())), **stored)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a split file ({error}); restore it, or delete it to freeze a new one.") from error
    if splits.data_hash != dataset.hash:
        raise UserError(
            f"{path}: frozen for other data ({splits.data_hash[:12]}…) than {dataset.path} holds now "
            f"({dataset.hash[:12]}…); restore the data, or delete the split file to freeze a new split "
            "whose results do not compare with the old ones."
        )
    groups = {r.id: r.group for r in dataset.annotated.values()}
    remedy = "restore the file, or delete it to freeze a new one"
    if not splits.folds or len(splits.folds) % FOLDS:
        raise UserError(f"{path}: holds {len(splits.folds)} folds, not {FOLDS} for each repeat; {remedy}.")
    for index, fold in enumerate(splits.folds):
        crossing = {groups.get(case) for case in fold.test} & {groups.get(case) for case in fold.train}
        if crossing or sorted(fold.test + fold.train) != sorted(groups):
            raise UserError(
                f"{path}: fold {index} was edited, training and test cases overlap or are incomplete; {remedy}."
            )
    if splits.bare != _bare(dataset):
        raise UserError(f"{path}: its list of images without labels was edited; {remedy}.")
    for repeat in range(splits.repeats):
        tested = [case for fold in splits.folds[FOLDS * repeat : FOLDS * (repeat + 1)] for case in fold.test]
        if sorted(tested) != sorted(groups):
            raise UserError(f"{path}: repeat {repeat} was edited, it does not test every case once; {remedy}.")
    return splits
