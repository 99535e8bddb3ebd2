"""The data set file: one HDF5 file that holds every case, and the hashes that prove it unchanged."""

import hashlib
import io
import json
import os
import time
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from semiseg.errors import UserError
from semiseg.names import require_name

FORMAT = 1
POINTS = "points"  # the field that localization learns: positions in pixels, in the order of space
LEVEL = 1  # of compression; higher ones take much longer to save a little
ABANDONED = 24 * 3600  # seconds without a byte after which a partial file is nobody's


@dataclass(frozen=True)
class DatasetInfo:
    """What a reader needs to know about a data set before looking at a single case."""

    name: str
    title: str
    modality: str
    classes: tuple[str, ...]  # class 0 is the background
    licence: str
    source: str
    citation: str = ""
    version: str = "1"
    grouping: str = ""  # what a group is ("patient", "scene"); empty when the source does not say
    unit: str = ""  # of spacings: "mm", or "pixels" where the source gives none and 1 stands for a pixel
    synthetic: bool = False
    masks: str = ""  # what was done to tell the classes of masks apart; empty where their values are the classes
    task: str = "segmentation"  # what there is to learn; see semiseg.tasks


@dataclass(frozen=True)
class Case:
    """One image or volume with its mask, or with whatever the task of its data set wants instead."""

    id: str
    group: str  # cases of one group (a patient, a video) never fall on two sides of a split
    image: np.ndarray  # (channels, *space), uint8, or float32 within [0, 1]
    label: np.ndarray | None  # (*space), uint8 class indices
    spacing: tuple[float, ...]  # size of a pixel along each axis of space, in the unit of its data set
    fields: dict[str, np.ndarray | str] = field(default_factory=dict)  # all else, by name


@dataclass(frozen=True)
class CaseRecord:
    """A case as listed in the file, without its pixels."""

    id: str
    group: str
    shape: tuple[int, ...]  # (channels, *space)
    spacing: tuple[float, ...]
    image_hash: str
    label_hash: str  # empty without a mask
    fields: dict[str, str] = field(default_factory=dict)  # hashes by name

    @property
    def is_bare(self) -> bool:
        """Whether it is an image and nothing else, so that nothing can be learned from it but as an unlabelled one."""
        return not (self.label_hash or self.fields)


@dataclass(frozen=True)
class PackedCase:
    """A case that was checked and compressed, which takes longer than loading it, ready to be written."""

    record: CaseRecord
    image: bytes
    label: bytes | None
    kind: np.dtype  # of the image's values
    fields: dict[str, np.ndarray | str]


def pack(case: Case, info: DatasetInfo) -> PackedCase:
    """Check and compress a case."""
    check_case(case, info)
    image = np.ascontiguousarray(case.image)
    label = None if case.label is None else np.ascontiguousarray(case.label)
    hashes = array_hash(image), "" if label is None else array_hash(label)
    fields = {name: field_hash(value) for name, value in case.fields.items()}
    record = CaseRecord(case.id, case.group, image.shape, tuple(map(float, case.spacing)), *hashes, fields)
    packed = None if label is None else zlib.compress(label.data, LEVEL)
    return PackedCase(record, zlib.compress(image.data, LEVEL), packed, image.dtype, case.fields)


def check_case(case: Case, info: DatasetInfo) -> None:
    """Refuse a case that would fail, or mislead, later."""
    where = f"{info.name}, case {case.id!r}"
    require_name(case.id, where)
    space = case.image.shape[1:]
    if len(space) not in (2, 3) or 0 in case.image.shape:
        raise UserError(
            f"{where}: image of shape {case.image.shape}; expected (channels, height, width) "
            "or (channels, depth, height, width), none of them empty."
        )
    if case.label is not None and case.label.shape != space:
        raise UserError(
            f"{where}: the image is {space} and its mask {case.label.shape}; provide a mask of the image's size."
        )
    if len(case.spacing) != len(space) or not all(s > 0 and np.isfinite(s) for s in case.spacing):
        raise UserError(f"{where}: spacing {case.spacing} does not fit {len(space)} axes of positive length.")
    if case.image.dtype == np.float32:
        if not np.isfinite(case.image).all():
            raise UserError(f"{where}: the image holds NaN or infinite values; repair or leave out the case.")
        if case.image.min() < 0 or case.image.max() > 1:
            raise UserError(f"{where}: float images must lie within [0, 1]; rescale them in the recipe.")
    elif case.image.dtype != np.uint8:
        raise UserError(f"{where}: images are uint8 or float32, this one is {case.image.dtype}.")
    for name, value in case.fields.items():
        require_name(name, f"{where}, field")
        if not isinstance(value, str) and not np.isfinite(value).all():
            raise UserError(f"{where}: {name} holds NaN or infinite values; repair or leave out the case.")
    if case.label is None:
        if not case.fields and info.task != DatasetInfo.task:
            raise UserError(f"{where}: has no field beside the image; there is nothing to learn or to score.")
        return
    if case.label.dtype != np.uint8:
        raise UserError(f"{where}: masks are uint8 class indices, this one is {case.label.dtype}.")
    unknown = sorted(set(np.unique(case.label).tolist()) - set(range(len(info.classes))))
    if unknown:
        raise UserError(
            f"{where}: the mask holds the values {unknown}, but the classes are "
            f"{dict(enumerate(info.classes))}; correct the mask or name the class."
        )


def array_hash(array: np.ndarray) -> str:
    """SHA-256 over type, shape and values, independent of how the file compresses them."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def field_hash(value: np.ndarray | str) -> str:
    """SHA-256 of an array or a text."""
    return hashlib.sha256(value.encode()).hexdigest() if isinstance(value, str) else array_hash(value)


def content_hash(info: DatasetInfo, records: Iterable[CaseRecord]) -> str:
    """SHA-256 over everything that a split or a result depends on."""
    cases = [asdict(r) for r in sorted(records, key=lambda r: r.id)]
    for case in cases:
        if not case["fields"]:  # younger than many a data set
            del case["fields"]
    content = {"classes": info.classes, "cases": cases}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_dataset(
    path: Path,
    info: DatasetInfo,
    cases: Iterable[Case | PackedCase],
    attributes: dict[str, str] | None = None,
    lists: dict[str, list[str]] | None = None,
) -> str:
    """Write a data set atomically and return its content hash; a failure leaves `path` as it was.

    `attributes` are kept in the file beside its own, and `lists` beside the cases; neither enters the content hash.
    """
    require_name(info.name, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in path.parent.glob(f".{path.name}.*.partial"):  # by a process that was killed
        if time.time() - abandoned.stat().st_mtime > ABANDONED:
            abandoned.unlink(missing_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    records: dict[str, CaseRecord] = {}
    try:
        with _Target(partial, "w+") as target, h5py.File(target, "w") as file:
            for case in cases:
                packed = case if isinstance(case, PackedCase) else pack(case, info)
                record = packed.record
                if record.id in records:
                    raise UserError(f"{info.name}: two cases are called {record.id!r}; rename one of them.")
                group = file.create_group(f"cases/{record.id}")
                _write(group, "image", record.shape, packed.kind, packed.image)
                if packed.label is not None:
                    _write(group, "label", record.shape[1:], np.dtype(np.uint8), packed.label)
                for name, value in packed.fields.items():
                    group.create_dataset(f"fields/{name}", data=value)
                group.attrs["record"] = json.dumps(asdict(record))
                target.check()
                first = next(iter(records.values()), record)
                if (len(first.shape), first.shape[0]) != (len(record.shape), record.shape[0]):
                    raise UserError(
                        f"{info.name}: case {record.id!r} is {record.shape} and {first.id!r} {first.shape}; "
                        "all cases need the same number of channels and axes."
                    )
                records[record.id] = record
            if not records:
                raise UserError(f"{info.name}: no case was found; a data set needs at least one.")
            if all(record.is_bare for record in records.values()):
                raise UserError(
                    f"{info.name}: no case has a mask or any other field; there is nothing to learn or to score."
                )
            whose = {record.image_hash: record.id for record in records.values() if not record.is_bare}
            for record in records.values():
                if record.is_bare and (same := whose.get(record.image_hash)):
                    raise UserError(
                        f"{info.name}: the image without a mask {record.id!r} is that of {same!r}, which has one and "
                        "is tested in one of the folds; take it away."
                    )
            for name, lines in (lists or {}).items():  # attributes are limited to 64 KB
                file.create_dataset(f"lists/{name}", data=lines, dtype=h5py.string_dtype())
            digest = content_hash(info, records.values())
            file.attrs.update(attributes or {})
            file.attrs.update(format=FORMAT, info=json.dumps(asdict(info)), hash=digest)
        target.check()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return digest


def _write(group: h5py.Group, key: str, shape: tuple[int, ...], kind: np.dtype, content: bytes) -> None:
    """Write an array that was compressed as HDF5 would have done."""
    array = group.create_dataset(key, shape, kind, compression="gzip", compression_opts=LEVEL, chunks=shape)
    array.id.write_direct_chunk((0,) * len(shape), content)


class _Target(io.FileIO):
    """A file that keeps the first failure to itself, because HDF5 crashes where it cannot write.

    From then on it feigns success, until HDF5 has closed it, or `check` is called.
    """

    failure: BaseException | None = None

    def write(self, data: Any) -> int:
        """Write all of the data."""
        left = memoryview(data)
        try:
            while left and not self.failure:
                left = left[super().write(left) :]
        except BaseException as failure:  # a Ctrl-C, too, must not travel through HDF5
            self.failure = failure
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Cut or lengthen the file."""
        try:
            return super().truncate(size)
        except BaseException as failure:
            self.failure = self.failure or failure
            return size or 0

    def check(self) -> None:
        """Raise what went wrong so far."""
        if self.failure:
            raise self.failure


class Dataset:
    """A prepared data set. Listing costs nothing; pixels are read, and verified, when asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise UserError(f"{path}: there is no such data set; make it with `semiseg prepare`.")
        try:
            with h5py.File(path, "r") as file:
                if file.attrs["format"] != FORMAT:
                    raise UserError(f"{path}: written by another version of semiseg; prepare the data again.")
                self.info = _tuples(DatasetInfo, file.attrs["info"])
                self.hash = str(file.attrs["hash"])
                # The recipe that prepared the file, which can read further images; empty if it did not come from one.
                self.recipe = str(file.attrs.get("origin", "")).partition(",")[0]
                records = [_tuples(CaseRecord, g.attrs["record"]) for g in file["cases"].values()]
        except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
            raise UserError(
                f"{path}: not a readable semiseg data set ({_first_line(error)}); the file is "
                "truncated or of another kind, prepare the data again."
            ) from error
        for name in (self.info.name, *(r.id for r in records)):  # they become the names of files
            require_name(name, str(path))
        self.records = {r.id: r for r in sorted(records, key=lambda r: r.id)}
        if content_hash(self.info, self.records.values()) != self.hash:
            raise UserError(f"{path}: the list of cases was changed after it was written; prepare the data again.")

    @property
    def annotated(self) -> dict[str, CaseRecord]:
        """The cases that are more than an image."""
        return {name: record for name, record in self.records.items() if not record.is_bare}

    @property
    def twins(self) -> list[tuple[str, ...]]:
        """Annotated cases of several groups that show the very same image."""
        same: dict[str, list[CaseRecord]] = {}
        for record in self.annotated.values():
            same.setdefault(record.image_hash, []).append(record)
        return [tuple(r.id for r in alike) for alike in same.values() if len({r.group for r in alike}) > 1]

    @property
    def channels(self) -> int:
        """Number of image channels, the same for every case."""
        return next(iter(self.records.values())).shape[0]

    @property
    def image_type(self) -> str:
        """How values of images are kept, the same for every case: uint8, or float32 within [0, 1]."""
        with h5py.File(self.path, "r") as file:
            return str(file[f"cases/{next(iter(self.records))}/image"].dtype)

    @property
    def is_volumetric(self) -> bool:
        """Whether cases are volumes rather than single images."""
        return len(next(iter(self.records.values())).shape) == 4

    @property
    def lists(self) -> dict[str, list[str]]:
        """Lists of the original folder by name, as they were there; they are proof of nothing."""
        with h5py.File(self.path, "r") as file:
            return {name: list(lines.asstr()[()]) for name, lines in file.get("lists", {}).items()}

    def beside(self, name: str) -> "Dataset":
        """Another data set, prepared in the same folder."""
        return Dataset(self.path.with_name(f"{name}.h5"))

    def image(self, case_id: str) -> np.ndarray:
        """The image of a case, (channels, *space)."""
        return self._read(case_id, "image", self.records[case_id].image_hash)

    def label(self, case_id: str) -> np.ndarray:
        """The mask of a case, (*space)."""
        if not (expected := self.records[case_id].label_hash):
            raise UserError(
                f"{self.path}: case {case_id!r} has no mask; a task with other labels says in `labels` what is learned."
            )
        return self._read(case_id, "label", expected)

    def field(self, case_id: str, name: str) -> np.ndarray | str:
        """What is kept of a case under this name beside image and mask."""
        hashes = self.records[case_id].fields
        if name not in hashes:
            known = ", ".join(hashes) or "none"
            raise UserError(f"{self.path}: case {case_id!r} has no field {name!r}; known: {known}.")
        return self._read(case_id, f"fields/{name}", hashes[name])

    def _read(self, case_id: str, key: str, expected: str) -> Any:
        try:
            with h5py.File(self.path, "r") as file:
                array = file[f"cases/{case_id}/{key}"][()]
                if isinstance(array, bytes):
                    array = array.decode()
        except (OSError, KeyError) as error:
            raise UserError(
                f"{self.path}: the {key} of case {case_id!r} cannot be read "
                f"({_first_line(error)}); prepare the data again."
            ) from error
        if field_hash(array) != expected:
            raise UserError(
                f"{self.path}: the {key} of case {case_id!r} was changed after the file was written; "
                "prepare the data again."
            )
        return array


def _tuples(kind: Any, text: str) -> Any:
    """Rebuild a frozen dataclass from JSON, whose lists were tuples."""
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()})


def _first_line(error: Exception) -> str:
    return str(error).strip("'\"").splitlines()[0] if str(error) else type(error).__name__
