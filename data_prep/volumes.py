"""What the recipes of volumes share: finding files, pairing an image with its mask, and making a case of them."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import ClassVar, TypeVar

import nibabel as nib
import numpy as np

from semiseg.data.files import visible_files
from semiseg.data.itk import VOLUMES, read_volume
from semiseg.data.masks import class_indices
from semiseg.data.original import Box, Scan
from semiseg.data.recipe import Recipe
from semiseg.data.store import Case
from semiseg.data.volume import Volume
from semiseg.errors import UserError

from .image_folder import Alone, Pair, check_sizes

AnyFiles = TypeVar("AnyFiles", bound=Pair | Alone)


def find(source: Path, *names: str) -> list[Path]:
    """The files below a folder that match one of the patterns; links are followed, hidden files left out."""
    paths = map(PurePosixPath, visible_files(source))
    return sorted(source / path for path in paths if any(path.match(name) for name in names))


def paired(
    found: Iterable[tuple[str, bool, Path]], image: str, mask: str, group: Callable[[str], str] = str
) -> list[Pair]:
    """One pair per case, or what is wrong with it: a file without partner, or two files for one thing.

    Args:
        found: the case of each file, whether it is the mask, and its path.
        image, mask: what the files are called, with `*` for the case.
        group: the group of a case; by default it is one of its own.
    """
    cases: dict[str, tuple[list[Path], list[Path]]] = {}
    for case, is_mask, path in found:
        cases.setdefault(case, ([], []))[is_mask].append(path)
    pairs = []
    for case, (images, masks) in sorted(cases.items()):
        problem = ""
        for files, others, name in ((images, masks, image), (masks, images, mask)):
            if not files:
                problem = (
                    f"{others[0]}: there is no {name.replace('*', case)} for it; add it, or take this file away "
                    "(the parts that a challenge published without masks are of no use here)."
                )
            elif len(files) > 1:
                same = ", ".join(map(str, files[1:]))
                problem = f"{files[0]}: {same} would be the same case; keep one."
        either = [*images, *masks][0]
        pairs.append(Pair(case, group(case), (images or [either])[0], (masks or [either])[0], problem))
    return pairs


class VolumeRecipe(Recipe):
    """Volumes in files of their own, and their masks likewise."""

    unit = "mm"
    endings: ClassVar[tuple[str, ...]] = VOLUMES
    names_classes: ClassVar[bool] = False  # whether a file beside the volumes does

    @classmethod
    def read_image(cls, path: Path) -> Scan:
        """A volume, slices first, intensities scaled to [0, 1]."""
        return Scan.of(read_volume(path), path)

    def read_mask(self, path: Path, image: Volume) -> Volume:
        """The mask of an image, as class indices."""
        return read_volume(path)

    def load(self, item: Pair) -> Case:
        """Read image and mask, which must be of one size and in one place."""
        return self.case(item, self.classes)

    def case(self, pair: Pair, classes: tuple[str, ...]) -> Case:
        """The case of an image and its mask, which may tell more classes apart than the recipe does."""
        if pair.problem:
            raise UserError(pair.problem)
        scan = self.read_image(pair.image)
        volume, mask = scan.volume, self.read_mask(pair.mask, scan.volume)
        if len(mask.voxels) > 1:
            raise UserError(
                f"{pair.mask}: a mask with {len(mask.voxels)} channels; save it as one volume of class indices."
            )
        shape = volume.voxels.shape[1:]
        check_sizes(pair, shape, mask.voxels.shape[1:])
        check_places(pair, volume, mask)
        label = class_indices(mask.voxels[0], classes, pair.mask, self.thresholds, fixed=not self.names_classes)
        return Case(pair.id, pair.group, scan.image, scan.cut(label), scan.spacing)


def check_places(pair: Pair, image: Volume, mask: Volume) -> None:
    """Refuse a mask whose header puts it somewhere else in the body than its image."""
    ends = ((0, size - 1) for size in mask.voxels.shape[1:])
    corners = np.array([(*corner, 1) for corner in itertools.product(*ends)])
    apart = np.linalg.norm((corners @ (image.affine - mask.affine).T)[:, :3], axis=1).max()
    if apart <= nib.affines.voxel_sizes(image.affine).min() / 2:
        return
    unplaced = [path for path, volume in ((pair.image, image), (pair.mask, mask)) if not volume.is_placed()]
    if unplaced:
        raise UserError(
            f"{pair.mask}: how it lies on its image {pair.image} cannot be told, since the header of one, "
            f"{unplaced[0].name}, gives no place (qform_code and sform_code are 0), which programs take differently; "
            "save both anew by the program that drew the mask."
        )
    raise UserError(
        f"{pair.mask}: according to the headers it lies {apart:.3g} mm off its image {pair.image}; resample the mask "
        "onto the image's grid, or correct the header that is wrong."
    )


def nonzero_box(image: np.ndarray) -> Box:
    """The smallest box around the voxels of (channels, x, y, z) that are not zero; everything if all are."""
    inside = (image != 0).any(axis=0)
    if not inside.any():
        return (slice(None),) * 3
    spans = []
    for axis in range(3):
        used = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
        spans.append(slice(int(used[0]), int(used[-1]) + 1))
    return spans[0], spans[1], spans[2]


def with_problem(files: AnyFiles, problem: str) -> AnyFiles:
    """The files of a case, which cannot be used for this reason unless they had one before."""
    return replace(files, problem=files.problem or problem)
