"""`synapse`: eight abdominal organs in CT, from the folder of TransUNet, whose training cases come as slices."""

import re
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from semiseg.data.files import visible_files
from semiseg.data.formats import unit_range, unreadable
from semiseg.data.masks import class_indices
from semiseg.data.pairs import nothing_found
from semiseg.data.recipe import Recipe
from semiseg.data.store import Case
from semiseg.errors import UserError

from .image_folder import read_classes, read_text
from .ssl4mis import Unplaced

SLICE = re.compile(r"(.+)_slice(\d+)")
VOLUME = ".npy.h5"
LISTS = ("train", "test_vol")  # in the folder that comes with the code


@dataclass(frozen=True)
class Scan:
    """The files of one case, slices in order, or why they are none."""

    id: str
    files: tuple[Path, ...]
    problem: str = ""


class Synapse(Recipe):
    """Abdominal CT of "Beyond the Cranial Vault" as TransUNet distributes it: 18 cases to train on, 12 to test.

    Others pass on the same layout with the same values for other organs, as SAMed's conversion does (1 is the spleen
    there); whose masks these are has to be said in `classes.txt`.

    Intensities are those of the files, -125 to 275 Hounsfield units scaled to [0, 1]. They keep no voxel size.
    """

    name = "synapse"
    summary = "the Synapse folder of TransUNet (NPZ slices and HDF5 volumes)"
    task = "eight abdominal organs in CT"
    layout = (
        "DIR/train_npz/CASE_slice000.npz, … and DIR/test_vol_h5/CASE.npy.h5, each with image and label; optional: "
        "DIR/lists_Synapse/train.txt and test_vol.txt, the order in which protocols label cases; DIR/classes.txt, if "
        "the values of the masks mean other organs than TransUNet's (1 aorta, 2 gallbladder, 3 left kidney, ...)"
    )
    classes: tuple[str, ...] = (
        "background",
        "aorta",
        "gallbladder",
        "left kidney",
        "right kidney",
        "liver",
        "pancreas",
        "spleen",
        "stomach",
    )
    licence = "terms of the challenge (Synapse, syn3193805)"
    endings = (".h5",)
    title = "Synapse multi-organ CT (TransUNet)"
    modality = "CT"
    grouping = "patient"
    unit = "pixels"
    registration = "https://www.synapse.org/#!Synapse:syn3193805/wiki/217789"
    citation = (
        "Landman et al., MICCAI Multi-Atlas Labeling Beyond the Cranial Vault (2015); "
        "Chen et al., Medical Image Analysis 97 (2024)"
    )

    def __init__(self, source: Path | None = None) -> None:
        super().__init__(source)
        self.classes = read_classes(self.source, default=self.classes)

    def items(self) -> list[Scan]:
        """Training cases, each of its slices in numeric order, and test volumes."""
        slices: dict[str, dict[int, Path]] = {}
        scans = []
        for path in self._files("train_npz", ".npz"):
            if match := SLICE.fullmatch(path.stem):
                slices.setdefault(match[1], {})[int(match[2])] = path
            else:
                scans.append(Scan(path.stem, (path,), f"{path}: is not called CASE_slice000.npz; rename it."))
        for name, numbered in sorted(slices.items()):
            absent = sorted(set(range(max(numbered))) - set(numbered))
            folder = next(iter(numbered.values())).parent
            problem = f"{folder}: {name} lacks slice {absent[0]}; add what is missing." if absent else ""
            scans.append(Scan(name, tuple(numbered[number] for number in sorted(numbered)), problem))
        for path in self._files("test_vol_h5", VOLUME):
            name = path.name.removesuffix(VOLUME)
            problem = f"{path}: {name} is among the training cases, too; keep one of them." if name in slices else ""
            scans.append(Scan(name, (path,), problem))
        if not scans:
            raise UserError(nothing_found(self.source, visible_files(self.source), self.expected()))
        return scans

    def load(self, item: Scan) -> Case:
        """A volume, (1, depth, height, width)."""
        if item.problem:
            raise UserError(item.problem)
        if item.files[0].suffix == ".npz":
            parts = [_slice(path) for path in item.files]
            if len({image.shape for image, _ in parts}) > 1:
                raise UserError(f"{item.files[0].parent}: slices of {item.id} differ in size; export them again.")
            image, label = (np.stack(arrays) for arrays in zip(*parts, strict=True))
        else:
            image, label = _volume(item.files[0])
        first = item.files[0]
        if image.ndim != 3 or image.shape != label.shape:
            raise UserError(f"{first}: the image is {image.shape} and the label {label.shape}; export the file again.")
        mask = class_indices(label, self.classes, first)
        return Case(item.id, item.id, _scaled(image, first), mask, (1.0, 1.0, 1.0))

    def lists(self) -> dict[str, list[str]]:
        """Which cases are trained on and tested: the lists that come with the code, or what the two folders hold.

        The code has them beside it, `lists/lists_Synapse`, and the data often lie elsewhere in its folder.
        """
        home = self.source.resolve()
        for folder in (above / below for above in (home, *home.parents[:2]) for below in ("", "lists")):
            found = {name: folder / "lists_Synapse" / f"{name}.txt" for name in LISTS}
            if all(path.exists() for path in found.values()):
                return {
                    name: [line.strip() for line in read_text(path).splitlines() if line.strip()]
                    for name, path in found.items()
                }
        tests = [path.name.removesuffix(VOLUME) for path in self._files("test_vol_h5", VOLUME)]
        return {"train": [path.stem for path in self._files("train_npz", ".npz")], "test_vol": tests}

    @classmethod
    def read_image(cls, path: Path) -> Unplaced:
        """A volume of this format; others are not scaled alike."""
        return Unplaced(_scaled(_volume(path, masked=False)[0], path))

    def _files(self, folder: str, ending: str) -> list[Path]:
        paths = sorted((self.source / folder).glob(f"*{ending}"))
        return [path for path in paths if not path.name.startswith(".")]


def _scaled(image: np.ndarray, path: Path) -> np.ndarray:
    """(1, depth, height, width) within [0, 1], as it is there unless somebody has undone that."""
    image = image[None].astype(np.float32)
    if not np.isfinite(image).all():
        raise UserError(f"{path}: the image holds NaN or infinite values; replace them or leave out the case.")
    return unit_range(image, path) if image.min() < 0 or image.max() > 1 else image


def _slice(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            image, label = file["image"], file["label"]
    except Exception as error:  # a damaged archive raises what zipfile, zlib or NumPy likes
        raise unreadable(path, "NPZ file with image and label", error) from error
    if image.ndim != 2 or image.shape != label.shape:
        raise UserError(f"{path}: the image is {image.shape} and the label {label.shape}; export the file again.")
    return image, label


def _volume(path: Path, masked: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Image and label of a volume, or the image twice."""
    try:
        with h5py.File(path, "r") as file:
            image: np.ndarray = file["image"][()]
            return image, file["label"][()] if masked else image
    except Exception as error:  # h5py raises what it likes, depending on where a file is damaged
        raise unreadable(path, "HDF5 file with image and label", error) from error
