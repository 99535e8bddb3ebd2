"""`ssl4mis_folder` and `ua_mt_folder`: the HDF5 folders that users of SSL4MIS and UA-MT already have."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np

from semiseg.data.formats import USUAL, VOLUMES, read_nifti, unit_range, unreadable
from semiseg.data.masks import class_indices
from semiseg.data.original import Original
from semiseg.data.recipe import Recipe
from semiseg.data.store import Case, DatasetInfo
from semiseg.data.volume import Volume as Turned
from semiseg.errors import UserError

from .image_folder import read_classes, read_text
from .volumes import find

ACDC = re.compile(r"patient\d+_frame\d+")
HDF5 = ".h5"
EXTREMES = (0.0, 100.0)  # percentiles between which SSL4MIS scales ACDC
LISTS = ("train", "val", "test", "train_slices")
LISTED = (".list", ".txt")  # the second in BraTS2019
SLICE = re.compile(r"(.+)_slice_(\d+)")


@dataclass(frozen=True)
class Volume:
    """The files of one case, slices in order, or why they are none."""

    id: str
    files: tuple[Path, ...]
    problem: str = ""
    axes: int = 3  # of the array in each file; slices have 2


class Ssl4misFolder(Recipe):
    """Cardiac MR of the ACDC challenge as SSL4MIS distributes it; other data in its format with `classes.txt`."""

    name = "ssl4mis_folder"
    summary = "the ACDC folder of SSL4MIS, or one of its kind (HDF5 volumes or slices)"
    task = "both ventricles and the myocardium in cine MR, from the HDF5 folder of SSL4MIS"
    layout = (
        "DIR/data/*.h5 (volumes, slices first) or DIR/data/slices/*_slice_N.h5, each with image and label; optional: "
        "DIR/train.list (or train_slices.list), val.list, test.list, which say what belongs to the data set; for other "
        "data than ACDC's: "
        "DIR/classes.txt (one class name per line, background first)"
    )
    folder = "ACDC"
    classes: tuple[str, ...] = ("background", "right ventricle", "myocardium", "left ventricle")
    licence = "CC BY-NC-SA 4.0"
    endings = (HDF5, *VOLUMES)
    title = "ACDC (SSL4MIS)"
    modality = "cine MR"
    grouping = "patient"
    unit = "pixels"
    page = "https://github.com/HiLab-git/SSL4MIS"
    citation = "Bernard et al., IEEE Transactions on Medical Imaging 37 (2018)"

    def __init__(self, source: Path | None = None) -> None:
        super().__init__(source)
        self.named = (self.source / "classes.txt").exists()
        self.classes = read_classes(self.source, default=self.classes)

    def info(self) -> DatasetInfo:
        """Named after the source folder; what is known of ACDC is not claimed of data that name their own classes."""
        name = self.source.resolve().name
        info = replace(super().info(), name=name)
        if not self.named:
            return info
        return replace(info, title=f"{name} (SSL4MIS)", modality="unknown", licence="unknown", citation="", grouping="")

    def items(self) -> list[Volume]:
        """Whole volumes where there are any: they are complete, and are the same voxels as the slices.

        Besides these, slices of what is listed, or of everything if there is no whole volume.
        """
        data = self.source / "data"
        volumes = [Volume(file.stem, (file,)) for file in _visible(data.glob("*.h5"))]
        others = _names(self.source).keys() - {volume.id for volume in volumes}
        if others or not volumes:
            stacks = _stacks(_visible(data.glob("slices/*.h5")))
            volumes += [stack for stack in stacks if stack.id in others] if volumes else stacks
        listed = _listed(self.source, volumes, data, self.expected())
        strange = [] if self.named else [item.id for item in listed if not (item.problem or ACDC.fullmatch(item.id))]
        if not strange:
            return listed
        problem = (
            f"{data}: holds {', '.join(strange[:5])}{', ...' * (len(strange) > 5)}, not named like cases of ACDC "
            f"(patient001_frame01); write the class names of other data into {self.source / 'classes.txt'}."
        )
        return [Volume("", (), problem), *listed]

    def load(self, item: Volume) -> Case:
        """A volume, (1, depth, height, width); names such as patient001_frame01 say whose it is."""
        image, label = _read(item)
        # SSL4MIS does not keep the voxel size, so distances are in voxels, as in the papers that use it.
        return Case(
            item.id,
            item.id.partition("_frame")[0],
            _scaled(image, item.files[0]).image,
            class_indices(label, self.classes, item.files[0]),
            (1.0, 1.0, 1.0),
        )

    def lists(self) -> dict[str, list[str]]:
        """The folder's own lists: published protocols label the first slices of train_slices.list."""
        return _lists(self.source)

    @classmethod
    def read_image(cls, path: Path) -> Original:
        """A whole volume of this format, or a NIfTI file, scaled as SSL4MIS scales those of ACDC.

        It does otherwise with other data; scans that are to look like these have to be converted likewise.
        """
        return _scaled(_volume(path), path) if path.name.lower().endswith(HDF5) else AsStored.of(path, EXTREMES)


class UaMtFolder(Recipe):
    """Left atrium MR of the 2018 challenge as UA-MT distributes it."""

    name = "ua_mt_folder"
    summary = "the left atrium folder of UA-MT (mri_norm2.h5 volumes)"
    task = "left atrium in LGE MR, from the HDF5 folder of UA-MT"
    layout = (
        "DIR/.../CASE/mri_norm2.h5, each with image and label; optional: train.list and test.list in DIR or beside it, "
        "which say what belongs to the data set"
    )
    folder = "2018LA_Seg_Training Set"
    file = "mri_norm2.h5"
    classes = ("background", "left atrium")
    endings = (HDF5, *VOLUMES)
    licence = "terms of the 2018 Atrial Segmentation Challenge"
    title = "Left atrium (UA-MT)"
    modality = "LGE MR"
    grouping = ""  # some patients were scanned more than once, but the published names do not tell which
    unit = "pixels"
    page = "https://github.com/yulequan/UA-MT"
    citation = "Xiong et al., Medical Image Analysis 67 (2021)"

    def info(self) -> DatasetInfo:
        """Named after the source folder."""
        return replace(super().info(), name=self.source.resolve().name)

    def items(self) -> list[Volume]:
        """One item per folder that holds a volume."""
        files = find(self.source, self.file)
        first = {file.parent.name: file for file in reversed(files)}
        volumes = []
        for file in files:
            case = file.parent.name
            volumes.append(
                Volume(
                    case,
                    (file,),
                    ""
                    if file == first[case]
                    else f"{file}: {first[case]} is case {case!r} too; rename one of the folders.",
                )
            )
        return _listed(self._home, volumes, self.source, self.expected())

    def load(self, item: Volume) -> Case:
        """A volume, (1, depth, height, width); the files hold x, y, z."""
        image, label = _read(item)
        label = class_indices(label, self.classes, item.files[0], fixed=True).transpose(2, 1, 0)
        image = _turned(image, item.files[0]).image
        return Case(item.id, item.id, image, np.ascontiguousarray(label), (1.0, 1.0, 1.0))

    def lists(self) -> dict[str, list[str]]:
        """The folder's own lists: published protocols label the first cases of train.list."""
        return _lists(self._home)

    @property
    def _home(self) -> Path:
        """Where the lists are: UA-MT has them beside the folder."""
        beside = self.source.resolve().parent
        return self.source if _list_files(self.source) or not (beside / "train.list").exists() else beside

    @classmethod
    def read_image(cls, path: Path) -> Original:
        """A volume of this format, or a NIfTI file."""
        return _turned(_volume(path), path) if path.name.lower().endswith(HDF5) else AsStored.of(path)


@dataclass(frozen=True)
class Unplaced(Original):
    """A volume whose file does not tell where, and how large, its voxels are."""

    order: tuple[int, ...] = (0, 1, 2)  # of the file's axes in the image

    def save(self, mask: np.ndarray, path: Path) -> None:
        """Write a mask as NIfTI, its axes in the order of the file."""
        nib.Nifti1Image(mask.transpose(np.argsort(self.order)), np.eye(4)).to_filename(path)


@dataclass(frozen=True)
class AsStored(Original):
    """A volume with its axes as the file has them, last one first: both conversions turned none upright."""

    volume: Turned

    @classmethod
    def of(cls, path: Path, between: tuple[float, float] = USUAL) -> "AsStored":
        """The volume of a NIfTI file, scaled between two of its percentiles."""
        volume = read_nifti(path)
        image = unit_range(volume.in_file_order(), path, between).transpose(0, 3, 2, 1)
        return cls(np.ascontiguousarray(image), volume)

    def save(self, mask: np.ndarray, path: Path) -> None:
        """Write a mask (depth, height, width), as NIfTI."""
        self.volume.as_stored(self.volume.from_file_order(mask.transpose(2, 1, 0))).to_filename(path)


def _scaled(image: np.ndarray, path: Path) -> Unplaced:
    """A volume as SSL4MIS stores it, slices first; what it has scaled already stays as it is."""
    return Unplaced(unit_range(image[None], path) if image.min() < 0 or image.max() > 1 else image[None])


def _turned(image: np.ndarray, path: Path) -> Unplaced:
    """A volume as UA-MT stores it, x first."""
    return Unplaced(np.ascontiguousarray(unit_range(image[None], path).transpose(0, 3, 2, 1)), (2, 1, 0))


def _visible(files: Iterable[Path]) -> list[Path]:
    """Sorted, and without the `._name` files that macOS leaves in archives."""
    return sorted(file for file in files if not file.name.startswith("."))


def _stacks(files: list[Path]) -> list[Volume]:
    """Slices grouped into volumes by name, in numeric order (slice 10 comes after slice 9)."""
    stacks: dict[str, dict[int, Path]] = {}
    volumes = []
    for file in files:
        match = SLICE.fullmatch(file.stem)
        if match:
            stacks.setdefault(match[1], {})[int(match[2])] = file
        else:
            problem = f"{file}: the name does not end in _slice_N.h5; rename the file."
            volumes.append(Volume(file.stem, (file,), problem))
    for name, slices in sorted(stacks.items()):
        numbers = sorted(slices)
        # Numbering starts at 0 or 1, depending on the version of the conversion script.
        missing = sorted(set(range(min(numbers[0], 1), numbers[-1])) - set(numbers))
        problem = (
            (
                f"{slices[numbers[0]].parent}: {name} lacks slice {', '.join(map(str, missing))}; "
                "add what is missing or remove the volume."
            )
            if missing
            else ""
        )
        volumes.append(Volume(name, tuple(slices[number] for number in numbers), problem, axes=2))
    return volumes


def _lists(source: Path) -> dict[str, list[str]]:
    """The lines of the lists that are there, by list."""
    return {path.stem: _lines(path) for path in _list_files(source)}


def _list_files(source: Path) -> list[Path]:
    return [path for name in LISTS for path in (source / f"{name}{ending}" for ending in LISTED) if path.exists()]


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def _names(source: Path) -> dict[str, Path]:
    """The volumes that lists name, whole or slice by slice, and which list does; none where there is no list."""
    names = {}
    for path in _list_files(source):
        for line in _lines(path):
            name = line.removesuffix(HDF5)
            match = SLICE.fullmatch(name) if path.stem == "train_slices" else None
            names[match[1] if match else name] = path
    return names


def _listed(source: Path, volumes: list[Volume], folder: Path, expected: str) -> list[Volume]:
    """The volumes that the lists name, each that has no file with a problem; all where there is no list."""
    if not volumes:
        raise UserError(f"{folder}: holds no HDF5 volumes where they are expected. {expected}")
    if not (names := _names(source)):
        return volumes
    absent = sorted(names.keys() - {volume.id for volume in volumes})
    return [volume for volume in volumes if volume.id in names] + [
        Volume(
            name,
            (),
            f"{names[name]}: names {name}, but {folder} holds no such volume; complete the folder or correct the list.",
        )
        for name in absent
    ]


def _read(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Image (depth, height, width), float32, and label of a volume, stacked if it comes in slices."""
    if volume.problem:
        raise UserError(volume.problem)
    parts = [_read_file(file) for file in volume.files]
    first = volume.files[0]
    for file, (image, _) in zip(volume.files, parts, strict=True):
        if image.ndim != volume.axes:
            raise UserError(
                f"{file}: the image has {image.ndim} axes instead of {volume.axes}; "
                "data/ is for volumes, data/slices/ for slices."
            )
        if image.shape != parts[0][0].shape:
            raise UserError(
                f"{file}: a slice of {image.shape}, but {first.name} is {parts[0][0].shape}; "
                "slices of one volume must be of one size."
            )
    image, label = (np.stack(arrays) for arrays in zip(*parts, strict=True))
    return (image, label) if volume.axes == 2 else (image[0], label[0])


def _volume(path: Path) -> np.ndarray:
    """The image of a file that may have no label."""
    (image,) = _arrays(path, "image")
    if image.ndim != 3:
        raise UserError(f"{path}: the image has {image.ndim} axes instead of 3; save the whole volume in one file.")
    return _finite(image, path)


def _read_file(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image, label = _arrays(path, "image", "label")
    if image.shape != label.shape or not image.size:
        raise UserError(f"{path}: the image is {image.shape} and the label {label.shape}; export the file again.")
    return _finite(image, path), label


def _arrays(path: Path, *keys: str) -> list[np.ndarray]:
    try:
        with h5py.File(path, "r") as file:
            absent = [key for key in keys if key not in file]
            arrays = [] if absent else [file[key][()] for key in keys]
    except Exception as error:  # h5py raises what it likes, depending on where a file is damaged
        raise unreadable(path, "HDF5 file", error) from error
    if absent:
        raise UserError(f"{path}: holds no {' and no '.join(absent)}; expected the keys {' and '.join(keys)}.")
    return arrays


def _finite(image: np.ndarray, path: Path) -> np.ndarray:
    image = image.astype(np.float32)
    if not np.isfinite(image).all():
        raise UserError(f"{path}: the image holds NaN or infinite values; replace them or leave out the case.")
    return image
