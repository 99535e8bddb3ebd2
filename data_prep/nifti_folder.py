"""`nifti_folder`: volumes of one's own in NIfTI files, laid out like the Medical Segmentation Decathlon."""

import json
import textwrap
from pathlib import Path
from typing import Any

from semiseg.data.formats import VOLUMES
from semiseg.data.masks import Thresholds
from semiseg.data.store import Case, DatasetInfo
from semiseg.errors import UserError

from .image_folder import UNLABELED, Alone, Pair, find_cases, grouping, read_classes, read_text
from .volumes import VolumeRecipe

FIRST, SECOND, ANY = "_0000", "_0001", "_[0-9][0-9][0-9][0-9]"  # how nnU-Net names the channels of an image


class NiftiFolder(VolumeRecipe):
    """Images and masks as NIfTI files; `dataset.json` names the classes."""

    name = "nifti_folder"
    summary = "3D volumes of your own (NIfTI, as in the Medical Segmentation Decathlon)"
    task = "what you drew in your 3D volumes"
    layout = (
        "DIR/imagesTr/*.nii.gz and DIR/labelsTr/ (or images/ and labels/) with the same names, "
        "but for nnU-Net's _0000 of images; "
        'optional: DIR/dataset.json with "labels" (or DIR/classes.txt), '
        f"DIR/groups.csv (columns case,group), DIR/{UNLABELED}/ (images without masks)"
    )
    thresholds: Thresholds | None = ()
    names_classes = True

    def __init__(self, source: Path | None = None) -> None:
        super().__init__(source)
        self.description = _read_description(self.source / "dataset.json")
        named = self.description.get("labels")
        self.classes = _class_names(named, self.source) if named else read_classes(self.source)

    def info(self) -> DatasetInfo:
        """Named after the source folder; `dataset.json` tells the rest."""
        name = self.source.resolve().name
        told = self.description
        channels = told.get("modality") or told.get("channel_names") or "unknown"
        modality = ", ".join(map(str, channels.values())) if isinstance(channels, dict) else str(channels)
        return DatasetInfo(
            name=name,
            title=str(told.get("name", name)),
            modality=modality,
            classes=self.classes,
            licence=str(told.get("licence") or told.get("license") or "unknown"),
            source="a folder of NIfTI files",
            citation=str(told.get("reference", "")),
            grouping=grouping(self.source),
            unit="mm",
            masks=self.masks_are(),
        )

    def items(self) -> list[Pair | Alone]:
        """One pair of files per case, by name, and images without masks."""
        ending = "Tr" if (self.source / "imagesTr").is_dir() else ""
        images, labels = f"images{ending}", f"labels{ending}"
        folders = (self.source / images, self.source / UNLABELED)
        return find_cases(self.source, images, labels, VOLUMES, _endings(folders, self.source / labels))

    def load(self, item: Pair | Alone) -> Case:
        """Read image and mask, which must be of one size and in one place."""
        if isinstance(item, Pair):
            return super().load(item)
        if item.problem:
            raise UserError(item.problem)
        scan = self.read_image(item.image)
        return Case(item.id, item.group, scan.image, None, scan.spacing)


def _endings(images: tuple[Path, ...], labels: Path) -> tuple[str, ...]:
    """What names of images end in: in nnU-Net's folders there is the number of a channel, which masks lack."""

    def numbered(number: str, *folders: Path) -> list[Path]:
        return sorted(file for folder in folders for ending in VOLUMES for file in folder.glob(f"*{number}{ending}"))

    masks = {file.name.partition(".nii")[0] for file in numbered(ANY, labels)}
    if not numbered(FIRST, *images) or any(f.name.partition(".nii")[0] in masks for f in numbered(ANY, *images)):
        return VOLUMES
    if second := numbered(SECOND, *images):
        raise UserError(
            f"{second[0]}: a second channel in a file of its own, as nnU-Net has it; merge those of each case into one "
            "file with four axes (x, y, z, channel) that is called like its mask."
        )
    return (*(FIRST + ending for ending in VOLUMES), *VOLUMES)


def _read_description(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON ({error}); correct it or delete the file.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no JSON object; correct it or delete the file.")
    return content


def _class_names(labels: Any, source: Path) -> tuple[str, ...]:
    """Class names in order, from `{"0": "background", ...}` or nnU-Net's `{"background": 0, ...}`."""
    try:
        pairs = [(int(key), value) if str(key).isdigit() else (int(value), str(key)) for key, value in labels.items()]
    except (AttributeError, TypeError, ValueError):
        pairs = []
    names = {index: name for index, name in pairs if isinstance(name, str)}
    if "ignore" in names.values():
        raise UserError(
            f'{source / "dataset.json"}: "labels" has `ignore`, nnU-Net\'s word for voxels that nobody labelled, which '
            "would be learned and scored as a structure here; complete the masks, or leave out these cases."
        )
    if not 2 <= len(set(names.values())) == len(pairs) <= 256 or sorted(names) != list(range(len(pairs))):
        raise UserError(
            f'{source / "dataset.json"}: "labels" is {textwrap.shorten(str(labels), 200)}; it must give the values '
            '0, 1, ... up to at most 255 different names without a gap, as in {"0": "background", "1": "liver"}.'
        )
    return tuple(names[index] for index in sorted(names))
