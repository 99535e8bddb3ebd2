"""`dicom_folder`: DICOM series of one's own, with masks as NIfTI, NRRD, MetaImage or DICOM files."""

import math
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk

from semiseg.data.dicom_seg import read_segmentation
from semiseg.data.files import visible_files
from semiseg.data.itk import VOLUMES, itk_error, read_itk, read_slices, read_volume
from semiseg.data.masks import Thresholds
from semiseg.data.original import Scan
from semiseg.data.pairs import nothing_found
from semiseg.data.store import DatasetInfo
from semiseg.data.volume import Volume
from semiseg.errors import UserError, UserErrors

from .image_folder import Pair, grouping, read_classes, told_groups, ungrouped
from .volumes import VolumeRecipe, paired, with_problem

SERIES, PATIENT = "0020|000e", "0010|0020"
POSITION, ORIENTATION = "0020|0032", "0020|0037"
DICOM = ".dcm"
ALIKE = {"size": 0, "pixel spacing": 1e-5, "direction": 1e-3}  # by how much slices of a series may differ in it
UNEVEN = 0.05  # how far, in shares of the usual distance, two neighboring slices may be off it


class DicomFolder(VolumeRecipe):
    """A folder per series, named after the case, and a mask file per case, drawn on all slices of the series.

    Where no `groups.csv` tells who belongs together, the patient IDs in the headers do, unless they are empty or
    were all made the same. They are replaced by numbers and go no further than this file. Of a DICOM segmentation,
    segment 1 is the first class after the background, segment 2 the second, and so on.
    """

    name = "dicom_folder"
    summary = "DICOM series of your own, with masks (NIfTI, NRRD, MetaImage, DICOM)"
    task = "what you drew on your DICOM series"
    layout = (
        "DIR/images/CASE/*.dcm (one series each) and DIR/labels/CASE.nii.gz (or .nii, .nrrd, .mha, .mhd, "
        "or .dcm: a DICOM segmentation); optional: "
        "DIR/classes.txt (one class name per line, background first), DIR/groups.csv (columns case,group)"
    )

    endings = (*VOLUMES, DICOM)
    thresholds: Thresholds | None = ()
    names_classes = True

    def __init__(self, source: Path | None = None) -> None:
        super().__init__(source)
        self.classes = read_classes(self.source)

    def info(self) -> DatasetInfo:
        """Named after the source folder."""
        name = self.source.resolve().name
        return DatasetInfo(
            name=name,
            title=name,
            modality="DICOM",
            classes=self.classes,
            licence="unknown",
            source="a folder of DICOM series",
            grouping=grouping(self.source) or ("patient" if self._patients else ""),
            unit="mm",
            masks=self.masks_are(),
        )

    def items(self) -> list[Pair]:
        """One pair per case: the folder of its slices and its mask."""
        found = [(folder.name, False, folder) for folder in self._series] + [
            (path.name[: -len(ending)], True, path)
            for path in _visible(self.source / "labels")
            for ending in (*VOLUMES, DICOM)
            if path.name.lower().endswith(ending)
        ]
        if not found:
            raise UserError(nothing_found(self.source, visible_files(self.source), self.expected()))
        told, problems = told_groups(self.source, "images", {case for case, *_ in found})
        groups = told or self._patients
        pairs = paired(found, "images/*", "labels/*.nii.gz", group=lambda case: groups.get(case, case))
        return problems + [with_problem(pair, self._problem(pair.id, told)) for pair in pairs]

    @classmethod
    def read_image(cls, path: Path) -> Scan:
        """The folder of a series, or a file that holds a whole volume."""
        if path.is_dir():
            return Scan.of(_read_series(path), path)
        return Scan.of(read_itk(path) if path.name.lower().endswith(DICOM) else read_volume(path), path)

    @classmethod
    def find_images(cls, place: Path) -> list[Path]:
        """A series, or all in a folder: the folders of their slices, and volumes in one file."""
        if place.is_file():
            return super().find_images(place)
        volumes = [path for path in super().find_images(place) if not path.name.lower().endswith(DICOM)]
        folders = [path for path in _visible(place) if path.is_dir() and _slices(path)]
        return folders + volumes or ([place] if _slices(place) else [])

    def read_mask(self, path: Path, image: Volume) -> Volume:
        """A mask in any of the formats, or the segments that were drawn on the series."""
        return read_segmentation(path, image) if path.name.lower().endswith(DICOM) else read_volume(path)

    def _problem(self, case: str, told: dict[str, str]) -> str:
        """What is wrong with what is known of a case's patient."""
        if told:
            return ungrouped(self.source, case, told)
        if self._headers.get(case) == "" and len({patient for patient in self._headers.values() if patient}) > 1:
            return (
                f"{self.source / 'images' / case}: its slices name no patient, and those of others do; "
                f"write {self.source / 'groups.csv'} (columns case,group)."
            )
        return ""

    @property
    def _series(self) -> list[Path]:
        return [path for path in _visible(self.source / "images") if path.is_dir()]

    @cached_property
    def _headers(self) -> dict[str, str | None]:
        """The patient whom the slices of each case name; None where they cannot be read, as is told at loading."""
        patients: dict[str, str | None] = {}
        for folder in self._series:
            files = _slices(folder)
            try:
                patients[folder.name] = _header(files[0]).patient if files else None
            except UserError:
                patients[folder.name] = None
        return patients

    @property
    def _patients(self) -> dict[str, str]:
        """The patients of the cases, numbered in the order in which they come; empty where the headers do not tell."""
        named = {case: patient for case, patient in self._headers.items() if patient}
        if len(named) < len(self._headers) or len(set(named.values())) < 2:
            return {}
        numbers: dict[str, str] = {}
        for patient in named.values():
            numbers.setdefault(patient, f"patient{len(numbers) + 1}")
        return {case: numbers[patient] for case, patient in named.items()}


class Header(NamedTuple):
    """What a file tells about the slice it holds."""

    path: Path
    series: str
    patient: str
    size: tuple[int, ...]
    position: np.ndarray  # of the first pixel, in mm
    orientation: np.ndarray  # directions of the rows and columns, (6)
    spacing: tuple[float, ...]  # of the pixels, in mm

    @property
    def height(self) -> float:
        """Where the slice lies along the line through all slices, in mm."""
        return float(self.position @ np.cross(self.orientation[:3], self.orientation[3:]))


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if not path.name.startswith("."))


def _slices(folder: Path) -> list[Path]:
    """The files called .dcm; scanners leave the ending out, then all files are meant."""
    files = [path for path in _visible(folder) if path.is_file()]
    return [path for path in files if path.suffix.lower() == ".dcm"] or files


def _read_series(folder: Path) -> Volume:
    """The volume of a series, whose slices are complete and fit together; each that does not is an error."""
    files = _slices(folder)
    if not files:
        raise UserError(f"{folder}: holds no slices; put the .dcm files of the series there.")
    headers, errors = [], []
    for file in files:
        try:
            headers.append(_header(file))
        except UserError as error:
            errors.append(str(error))
    if errors:
        raise UserErrors(errors)
    if len(headers) == 1:  # a volume in one file, or a single slice
        return read_itk(files[0])
    _check_series(folder, headers)
    headers.sort(key=lambda header: header.height)
    _check_distances(folder, headers)
    return read_slices([header.path for header in headers])


def _header(path: Path) -> Header:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        told = {key: reader.GetMetaData(key).strip() for key in reader.GetMetaDataKeys()}
        position, orientation = (
            np.array([float(number) for number in told[key].split("\\")]) if key in told else default
            for key, default in ((POSITION, np.zeros(3)), (ORIENTATION, np.array([1.0, 0, 0, 0, 1, 0])))
        )
    except (RuntimeError, ValueError) as error:
        raise itk_error(path, "DICOM slice", error) from error
    return Header(
        path,
        told.get(SERIES, ""),
        told.get(PATIENT, ""),
        tuple(reader.GetSize()),
        position,
        orientation,
        tuple(reader.GetSpacing()),
    )


def _check_series(folder: Path, headers: list[Header]) -> None:
    """Refuse slices of several series, and slices that differ in size, direction or pixel spacing."""
    series = Counter(header.series for header in headers)
    if len(series) > 1:
        counts = " and ".join(str(count) for count in series.values())
        raise UserError(f"{folder}: mixes {len(series)} series ({counts} slices); keep one series in a folder.")
    first = headers[0]
    errors = []
    for header in headers[1:]:
        for what, own, others in (
            ("size", header.size[:2], first.size[:2]),
            ("pixel spacing", header.spacing[:2], first.spacing[:2]),
            ("direction", header.orientation, first.orientation),
        ):
            if not np.allclose(own, others, rtol=0, atol=ALIKE[what]):
                errors.append(
                    f"{header.path}: its {what} is {_listed(own)}, that of {first.path.name} {_listed(others)}; the "
                    "slices of a series must be alike, take out what does not belong to it."
                )
                break
    if errors:
        raise UserErrors(errors)


def _check_distances(folder: Path, headers: list[Header]) -> None:
    """Refuse sorted slices among which one is missing or comes twice, or that are shifted against each other."""
    gaps = np.diff([header.height for header in headers])
    usual = float(np.median(gaps))
    for before, after, gap in zip(headers, headers[1:], gaps, strict=False):
        if gap < 0.01:
            raise UserError(
                f"{after.path}: lies where {before.path.name} lies; keep one, or split the time points "
                "into folders of their own."
            )
    for before, after, gap in zip(headers, headers[1:], gaps, strict=False):
        if abs(gap - usual) > UNEVEN * usual:
            remedy = "add the slice that is missing between them" if gap > usual else "resample the series evenly"
            raise UserError(
                f"{folder}: {before.path.name} and {after.path.name} are {gap:.3g} mm apart, "
                f"others {usual:.3g} mm; {remedy}."
            )
    first, last = headers[0], headers[-1]
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    across = last.position - first.position - (last.height - first.height) * normal
    if math.hypot(*across) > usual / 2:
        raise UserError(
            f"{folder}: its slices are shifted against each other by {math.hypot(*across):.3g} mm (a tilted gantry); "
            "convert the series to NIfTI with a tool that corrects this, and use nifti_folder."
        )


def _listed(numbers: Iterable[float]) -> str:
    return " × ".join(f"{number:g}" for number in numbers)
