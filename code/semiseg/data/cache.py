"""Items of a data set at the scale of a training, made once, in files that all runs of a machine map into memory."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import torch
from torch import Tensor

from semiseg.data.cropping import Crop, region
from semiseg.data.scale import pad, to_training
from semiseg.data.store import Dataset
from semiseg.errors import UserError

Kind = Literal["image", "label"]
VERSION = 1
PAGE = 4096  # bytes to whose multiples every case is aligned


def training_items(array: Tensor, size: tuple[int, ...], is_label: bool, crop: Crop | None) -> Tensor:
    """Cut (channels, *space) into items (items, channels, *size): slices that are resized, or one padded volume."""
    array = array[region(crop, array.shape)]
    if len(size) == 3:
        return pad(array, size)[None]
    slices = array[None] if array.ndim == 3 else array.transpose(0, 1)
    return to_training(slices, size, crop, is_label)


@lru_cache(maxsize=2)
def item_cache(path: Path, content: str, size: tuple[int, ...], crop: Crop | None, kind: Kind) -> "ItemCache":
    """The cache of a data set of this path and hash, kept for the next run of this process."""
    dataset = Dataset(path)
    if dataset.hash != content:
        raise UserError(f"{path}: was prepared again since this run began; repeat the command.")
    return ItemCache(dataset, size, crop, kind)


class ItemCache:
    """The images, or the masks, of a data set as trainings of one size and crop see them.

    Whoever asks for a case first has its items made; what nobody asks for is never read. Processes may do so at the
    same time, since they write the same bytes; a case counts as made once these have reached the file. The file is
    named after all that its bytes depend on. Where none can be written (a read-only or full disk), memory takes its
    place.
    """

    def __init__(self, dataset: Dataset, size: tuple[int, ...], crop: Crop | None, kind: Kind) -> None:
        self.dataset, self.size, self.crop, self.kind = dataset, size, crop, kind
        self.type = np.dtype(np.uint8) if kind == "label" else image_type(dataset)
        shapes = {shape: self._shape(shape) for shape in {record.shape for record in dataset.records.values()}}
        self.shapes = {case: shapes[record.shape] for case, record in dataset.records.items()}
        lengths = [-(-int(np.prod(shape)) * self.type.itemsize // PAGE) * PAGE for shape in self.shapes.values()]
        first = -(-len(self.shapes) // PAGE) * PAGE  # before it, one byte for each case says whether it was made
        places = accumulate(lengths, initial=first)
        self.starts = dict(zip(self.shapes, places, strict=False))
        self.number = {case: number for number, case in enumerate(self.shapes)}
        self.bytes = self._open(first + sum(lengths))

    def items(self, cases: Iterable[str]) -> list[Tensor]:
        """The items of each of these cases, (items, channels, *size), as they lie in the file."""
        cases = list(cases)
        missing = [case for case in dict.fromkeys(cases) if not self.bytes[self.number[case]]]
        for case in missing:
            array = self.dataset.image(case) if self.kind == "image" else self.dataset.label(case)[None]
            if array.dtype != self.type:  # written among the others it would be cut to their type
                raise UserError(
                    f"{self.dataset.path}: the {self.kind} of case {case!r} holds {array.dtype}, others {self.type}; "
                    "give all images one type and prepare the data again."
                )
            self._view(case)[...] = training_items(torch.from_numpy(array), self.size, self.kind == "label", self.crop)
        if missing and isinstance(self.bytes, np.memmap):
            self.bytes.flush()  # before any of it counts as made
        for case in missing:
            self.bytes[self.number[case]] = 1
        return [torch.from_numpy(self._view(case)) for case in cases]

    def _shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of a case's items, known without its pixels."""
        channels = 1 if self.kind == "label" else shape[0]
        blank = torch.empty((channels, *shape[1:]), dtype=torch.uint8, device="meta")
        return tuple(training_items(blank, self.size, self.kind == "label", self.crop).shape)

    def _view(self, case: str) -> np.ndarray:
        shape, start = self.shapes[case], self.starts[case]
        end = start + int(np.prod(shape)) * self.type.itemsize
        return self.bytes[start:end].view(self.type).reshape(shape)

    def _open(self, length: int) -> np.ndarray:
        """The file, mapped into memory; made with all the space that it needs, since a map cannot ask for more."""
        path = self._path()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and path.stat().st_size != length:  # cut off when a machine went down
                path.unlink()
            if not path.exists():
                self._forget(path)
                handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
                try:
                    try:
                        _set_aside(handle, length)
                    finally:
                        os.close(handle)
                    _place(Path(partial), path)
                finally:
                    Path(partial).unlink(missing_ok=True)
            return np.memmap(path, np.uint8, "r+", shape=(length,))
        except OSError:  # no space, or no right to write
            return np.zeros(length, np.uint8)

    def _path(self) -> Path:
        crop = self.crop.model_dump() if self.crop else None
        content = [VERSION, self.dataset.hash, self.size, crop, self.kind, torch.__version__]
        key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        folder = self.dataset.path.parent / "cache" / self.dataset.info.name
        return folder / f"{self.dataset.hash[:12]}-{key[:12]}.{self.kind}s"

    def _forget(self, path: Path) -> None:
        """Remove what was made of earlier data of this name; whoever has it open keeps it."""
        for other in path.parent.glob("*-*.*s"):
            if not other.name.startswith(self.dataset.hash[:12]):
                other.unlink(missing_ok=True)


def _set_aside(handle: int, length: int) -> None:
    """Take all the space of a file from the disk: whoever writes to a map of it could not be told of a full one."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, length)
        return
    zeros = bytes(1 << 20)  # macOS and Windows have no such call
    for start in range(0, length, len(zeros)):
        os.write(handle, zeros[: length - start])


def _place(partial: Path, path: Path) -> None:
    """Give a finished file its name, unless somebody else was faster."""
    try:
        os.link(partial, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not path.exists():
            partial.replace(path)


def image_type(dataset: Dataset) -> np.dtype:
    """Of the values of a data set's images, the same for every case."""
    with h5py.File(dataset.path, "r") as file:
        return np.dtype(file[f"cases/{next(iter(dataset.records))}/image"].dtype)
