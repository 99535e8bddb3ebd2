"""What the recipes of volumes share: finding files, pairing an image with its mask, and making a case of them."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from semiseg.data.formats import slices_first, unit_range
from semiseg.data.itk import Volume
from semiseg.data.pairs import visible_files
from semiseg.data.store import Case
from semiseg.errors import UserError

from .image_folder import Pair, check_sizes, class_indices

Box = tuple[slice, slice, slice]


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


def volume_case(
    pair: Pair,
    read: Callable[[Path], Volume],
    classes: tuple[str, ...],
    crop: Callable[[np.ndarray], Box] | None = None,
    read_mask: Callable[[Path, Volume], Volume] | None = None,
) -> Case:
    """Read image and mask, slices first, intensities scaled to [0, 1].

    Args:
        read: reads a file, that of the mask too unless `read_mask` does, which is given the image as well.
        crop: the box to keep, given the image (channels, x, y, z); it never sees the mask.
    """
    if pair.problem:
        raise UserError(pair.problem)
    volume = image, affine, spacing = read(pair.image)
    mask, mask_affine, _ = read_mask(pair.mask, volume) if read_mask else read(pair.mask)
    if len(mask) > 1:
        raise UserError(f"{pair.mask}: a mask with {len(mask)} channels; save it as one volume of class indices.")
    check_sizes(pair, image.shape[1:], mask.shape[1:])
    check_places(pair, affine, mask_affine, image.shape[1:], min(spacing))
    label = class_indices(mask[0], classes, pair.mask)
    if crop:
        box = crop(image)
        image, label = image[:, *box], label[box]
    order = slices_first(spacing)
    image = unit_range(image, pair.image).transpose(0, *(axis + 1 for axis in order))
    return Case(
        pair.id,
        pair.group,
        np.ascontiguousarray(image),
        np.ascontiguousarray(label.transpose(order)),
        tuple(spacing[axis] for axis in order),
    )


def check_places(pair: Pair, image: np.ndarray, mask: np.ndarray, shape: tuple[int, ...], voxel: float) -> None:
    """Refuse a mask whose header puts it somewhere else in the body than its image."""
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, size - 1) for size in shape))])
    apart = np.linalg.norm((corners @ (image - mask).T)[:, :3], axis=1).max()
    if not apart <= voxel / 2:
        raise UserError(
            f"{pair.mask}: according to the headers it lies {apart:.3g} mm off its image "
            f"{pair.image}; resample the mask onto the image's grid, "
            "or correct the header that is wrong."
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


def with_problem(pair: Pair, problem: str) -> Pair:
    """The pair, which cannot be used for this reason unless it had one before."""
    return replace(pair, problem=pair.problem or problem)
