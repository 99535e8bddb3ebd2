"""`nifti_folder`: volumes of one's own in NIfTI files, laid out like the Medical Segmentation Decathlon."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from semiseg.data.formats import VOLUMES, read_nifti, slices_first, unit_range
from semiseg.data.recipe import Recipe
from semiseg.data.store import Case, DatasetInfo
from semiseg.errors import UserError

from .image_folder import Pair, check_sizes, class_indices, find_pairs, grouping, read_classes, read_text


class NiftiFolder(Recipe):
    """Images and masks as NIfTI files; `dataset.json` names the classes."""

    name = "nifti_folder"
    summary = "3D volumes of your own (NIfTI, as in the Medical Segmentation Decathlon)"
    layout = (
        "DIR/imagesTr/*.nii.gz and DIR/labelsTr/ (or images/ and labels/) with the same names; "
        'optional: DIR/dataset.json with "labels" (or DIR/classes.txt), '
        "DIR/groups.csv (columns case,group)"
    )

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
        )

    def items(self) -> list[Pair]:
        """One pair of files per case, by name."""
        ending = "Tr" if (self.source / "imagesTr").is_dir() else ""
        return find_pairs(self.source, f"images{ending}", f"labels{ending}", VOLUMES)

    def load(self, item: Pair) -> Case:
        """Read image and mask, slices first, intensities scaled to [0, 1]."""
        if item.problem:
            raise UserError(item.problem)
        image, affine, spacing = read_nifti(item.image)
        mask, mask_affine, _ = read_nifti(item.mask)
        if len(mask) > 1:
            raise UserError(f"{item.mask}: a mask with {len(mask)} channels; save it as one volume of class indices.")
        check_sizes(item, image.shape[1:], mask.shape[1:])
        _check_places(item, affine, mask_affine, image.shape[1:], min(spacing))
        order = slices_first(spacing)
        image = unit_range(image, item.image).transpose(0, *(axis + 1 for axis in order))
        label = class_indices(mask[0], self.classes, item.mask).transpose(order)
        return Case(
            item.id,
            item.group,
            np.ascontiguousarray(image),
            np.ascontiguousarray(label),
            tuple(spacing[axis] for axis in order),
        )


def _check_places(pair: Pair, image: np.ndarray, mask: np.ndarray, shape: tuple[int, ...], voxel: float) -> None:
    """Refuse a mask whose header puts it somewhere else in the body than its image."""
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, size - 1) for size in shape))])
    apart = np.linalg.norm((corners @ (image - mask).T)[:, :3], axis=1).max()
    if not apart <= voxel / 2:
        raise UserError(
            f"{pair.mask}: according to the headers it lies {apart:.3g} mm off its image "
            f"{pair.image}; resample the mask onto the image's grid, "
            "or correct the header that is wrong."
        )


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
        pairs = [
            (int(key), str(value)) if str(key).isdigit() else (int(value), str(key)) for key, value in labels.items()
        ]
    except (AttributeError, TypeError, ValueError):
        pairs = []
    if len(pairs) < 2 or sorted(index for index, _ in pairs) != list(range(len(pairs))):
        raise UserError(
            f'{source / "dataset.json"}: "labels" is {labels}; it must name the values '
            '0, 1, ... without a gap, as in {"0": "background", "1": "liver"}.'
        )
    return tuple(name for _, name in sorted(pairs))
