"""Pairs the pictures of a data set with their masks, by the names that its owner gave the files."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from semiseg.data.files import visible_files
from semiseg.data.formats import PICTURES, check_turned_alike, open_picture, read_image
from semiseg.data.original import Still
from semiseg.data.recipe import Recipe
from semiseg.data.store import Case
from semiseg.errors import UserError

ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".rar", ".7z")


@dataclass(frozen=True)
class Picture:
    """The files of one case, or why they are none."""

    id: str
    group: str
    image: Path
    masks: tuple[Path, ...]
    problem: str = ""
    fields: tuple[tuple[str, Path], ...] = ()


class PairedPictures(Recipe):
    """Pictures whose masks are files of their own, described by patterns.

    A pattern is a regular expression for the end of a path, from the beginning of a folder's or the file's name;
    capitals do not matter. Its group `case` names the case, the same in the image's and the masks' pattern. The
    group `group`, if the image's pattern has one, says what the case belongs to. So it does not matter how many
    folders an archive has around everything. Each mask is painted over those before it. What lies `beside` them, such
    as the field of view, becomes a field of the case, uint8 zeros and ones; a case may lack it.
    """

    unit = "pixels"
    endings: ClassVar[tuple[str, ...]] = PICTURES
    images: ClassVar[str]
    masks: ClassVar[tuple[tuple[str, int], ...]]  # patterns, each with the class that its masks show
    beside: ClassVar[dict[str, str]] = {}  # patterns of further black and white pictures by the name of the field
    unlabeled: ClassVar[str] = "(?!)"  # images for which the owner may have published no mask; by default none
    spacing: ClassVar[tuple[float, float]] = (1.0, 1.0)  # in the unit

    def items(self) -> list[Picture]:
        """One item per case, by name; a file without partner becomes an item with a problem."""
        paths = list(visible_files(self.source))
        masks = [matches(paths, pattern) for pattern, _ in self.masks]
        beside = {name: matches(paths, pattern) for name, pattern in self.beside.items()}
        taken = {match.string for found in (*masks, *beside.values()) for same in found.values() for match in same}
        images = matches((path for path in paths if path not in taken), self.images)
        if not images:
            raise UserError(nothing_found(self.source, paths, self.expected()))
        cases = sorted(images.keys() | {case for found in masks for case in found})
        pictures = (
            self._picture(
                case,
                images.get(case, []),
                [found.get(case, []) for found in masks],
                {name: found[case] for name, found in beside.items() if case in found},
            )
            for case in cases
        )
        return [picture for picture in pictures if picture]

    def _picture(
        self,
        case: str,
        images: list[re.Match[str]],
        masks: list[list[re.Match[str]]],
        beside: dict[str, list[re.Match[str]]],
    ) -> Picture | None:
        """The case of these files; None if its owner published no mask for it."""
        files = [match for same in (images, *masks) for match in same]
        twice = next((same for same in (images, *masks, *beside.values()) if len(same) > 1), [])
        absent = next((label for (_, label), same in zip(self.masks, masks, strict=True) if not same), None)
        problem = ""
        if twice:
            others = ", ".join(match.string for match in twice[1:])
            problem = f"{self.source / twice[0].string}: {others} beside it would be the same case; keep one."
        elif not images:
            problem = f"{self.source / files[0].string}: there is no image for this mask; add it or take the mask away."
        elif absent is not None and not any(masks) and matches([images[0].string], self.unlabeled):
            return None
        elif absent is not None:
            problem = (
                f"{self.source / images[0].string}: there is no mask of {self.classes[absent]} for it; "
                f"add it or take the image away. Expected: {self.layout}"
            )
        group = files[0].groupdict().get("group") or case
        paths = tuple(self.source / match.string for same in masks for match in same)
        fields = tuple((name, self.source / same[0].string) for name, same in beside.items())
        return Picture(case, group, self.source / files[0].string, paths, problem, fields)

    def load(self, item: Picture) -> Case:
        """Read image and masks, which must be of one size."""
        if item.problem:
            raise UserError(item.problem)
        image = self.read_image(item.image).image
        label = self.read_label(item, image.shape[1:])
        fields: dict[str, np.ndarray | str] = {
            name: self.read_beside(item, path, image.shape[1:]) for name, path in item.fields
        }
        for mask in (*item.masks, *(path for _, path in item.fields)):
            if {item.image.suffix.lower(), mask.suffix.lower()} <= set(PICTURES):
                check_turned_alike(item.image, mask)
        return Case(item.id, item.group, image, label, self.spacing, fields)

    @classmethod
    def read_image(cls, path: Path) -> Still:
        """The image, (channels, height, width)."""
        return Still(read_image(path))

    def read_mask(self, path: Path) -> np.ndarray:
        """Where a mask is white, (height, width), boolean."""
        return foreground(open_picture(path), path)

    def read_label(self, item: Picture, space: tuple[int, ...]) -> np.ndarray:
        """The classes (height, width) that the masks of an item show; all must be of the image's size."""
        label = np.zeros(space, np.uint8)
        for path, (_, index) in zip(item.masks, self.masks, strict=True):
            label[self.read_beside(item, path, space) > 0] = index
        return label

    def read_beside(self, item: Picture, path: Path, space: tuple[int, ...]) -> np.ndarray:
        """Ones where a black and white picture is white, which must be of the image's size."""
        mask = self.read_mask(path)
        if mask.shape != space:
            raise UserError(
                f"{item.image}: the image is {' × '.join(map(str, space))}, its mask {path} is "
                f"{' × '.join(map(str, mask.shape))}; provide a mask of the image's size."
            )
        return mask.astype(np.uint8)


def foreground(picture: Image.Image, path: Path) -> np.ndarray:
    """Where a black and white picture is white, as JPEG and smooth edges leave it: above the middle."""
    if picture.mode not in ("1", "L", "P", "RGB"):
        raise UserError(f"{path}: colour mode {picture.mode} is not that of a mask; save it as black and white.")
    # By the brightest channel: a mask may be drawn in any color.
    values = np.asarray(picture.convert("L" if picture.mode in ("1", "L") else "RGB"))
    values = values.max(-1) if values.ndim == 3 else values
    counts = np.array(Image.fromarray(values).histogram())
    present = np.flatnonzero(counts)
    if set(present[:-1].tolist()) <= {0}:  # black and one other value, whatever the owner chose for white
        return values > 0
    if present[-1] < 128 or counts[64:192].sum() > values.size / 4:
        raise UserError(f"{path}: much of it is neither black nor white; is it a mask? Replace it by the mask.")
    return values >= 128


def matches(paths: Iterable[str], pattern: str) -> dict[str, list[re.Match[str]]]:
    """What a pattern finds, by the name of the case."""
    found: dict[str, list[re.Match[str]]] = {}
    whole = re.compile(rf"(?:.*/)?(?:{pattern})", re.IGNORECASE)
    for path in paths:
        if match := whole.fullmatch(path):
            found.setdefault(match.groupdict().get("case") or path, []).append(match)
    return found


def nothing_found(source: Path, paths: Iterable[str], expected: str) -> str:
    """Why a source holds no case; the common reason is an archive inside that nobody has unpacked."""
    packed = [path for path in paths if path.lower().endswith(ARCHIVES)]
    if packed:
        listed = f"{', '.join(packed[:3])}{', ...' * (len(packed) > 3)}"
        return f"{source}: holds no image, but {listed}; unpack that where it is. {expected}"
    return f"{source}: holds no image where one is expected. {expected}"
