"""`image_folder`: 2D images and masks of one's own, paired by file name."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semiseg.data.formats import PICTURES, open_picture, read_image
from semiseg.data.recipe import Recipe
from semiseg.data.store import Case, DatasetInfo
from semiseg.errors import UserError


class ImageFolder(Recipe):
    """A folder of images, a folder of masks, and optionally who is on them and what the classes are."""

    name = "image_folder"
    summary = "2D images and masks of your own (PNG, JPEG, BMP, TIFF)"
    layout = (
        "DIR/images/*.png (or .jpg, .bmp, .tif) and DIR/masks/ with the same names; optional: "
        "DIR/classes.txt (one class name per line, background first), "
        "DIR/groups.csv (columns case,group)"
    )

    def __init__(self, source: Path | None = None) -> None:
        super().__init__(source)
        self.classes = read_classes(self.source)

    def info(self) -> DatasetInfo:
        """Named after the source folder."""
        name = self.source.resolve().name
        return DatasetInfo(
            name=name,
            title=name,
            modality="images",
            classes=self.classes,
            licence="unknown",
            source="a folder of images and masks",
            grouping=grouping(self.source),
        )

    def items(self) -> list["Pair"]:
        """One pair of files per case, by name."""
        return find_pairs(self.source, "images", "masks", PICTURES)

    def load(self, item: "Pair") -> Case:
        """Read image and mask, which must be of one size."""
        if item.problem:
            raise UserError(item.problem)
        image, label = read_image(item.image), read_mask(item.mask, self.classes)
        check_sizes(item, image.shape[1:], label.shape)
        return Case(item.id, item.group, image, label, (1.0, 1.0))


@dataclass(frozen=True)
class Pair:
    """The files of one case, or why they are none."""

    id: str
    group: str
    image: Path
    mask: Path
    problem: str = ""


def find_pairs(source: Path, images: str, masks: str, suffixes: tuple[str, ...]) -> list[Pair]:
    """Match the files of two folders by name; a file without partner becomes a pair with a problem.

    Problems are reported when the pair is loaded, together with those of all other pairs.
    """
    found = {folder: _files_by_stem(source / folder, suffixes) for folder in (images, masks)}
    if not any(found.values()):
        raise UserError(
            f"{source / images}: holds no {', '.join(suffixes)} file; put the images there "
            f"and their masks into {source / masks}."
        )
    groups = read_groups(source)
    pairs = []
    for stem in sorted(found[images].keys() | found[masks].keys()):
        files = {folder: found[folder].get(stem, []) for folder in (images, masks)}
        problem = ""
        for folder, other in ((images, masks), (masks, images)):
            if not files[folder]:
                problem = (
                    f"{files[other][0]}: there is no {stem}{suffixes[0]} for it in {source / folder}; "
                    "add it or take this file away."
                )
            elif len(files[folder]) > 1:
                others = ", ".join(file.name for file in files[folder][1:])
                problem = f"{files[folder][0]}: {others} beside it would be the same case; keep one."
        if not problem and groups and stem not in groups:
            problem = f"{source / 'groups.csv'}: has no line for the case {stem!r}; add one with its group."
        image, mask = (next(iter(files[folder]), source / folder / stem) for folder in (images, masks))
        pairs.append(Pair(stem, groups.get(stem, stem), image, mask, problem))
    return pairs


def _files_by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
    try:
        files = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    except FileNotFoundError as error:
        raise UserError(f"{folder}: there is no such folder; create it, or point --source to its parent.") from error
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be listed ({error.strerror}); check the folder and its permissions."
        ) from error
    stems: dict[str, list[Path]] = {}
    for file in files:
        suffix = next((s for s in suffixes if file.name.lower().endswith(s)), None)
        if suffix:
            stems.setdefault(file.name[: -len(suffix)], []).append(file)
    return stems


def read_text(path: Path) -> str:
    """A small text file, as spreadsheet programs write them too (with a byte order mark)."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); make it a readable UTF-8 text file.") from error


def read_classes(source: Path, default: tuple[str, ...] = ("background", "foreground")) -> tuple[str, ...]:
    """The class names in `classes.txt`, or the default where there is no such file."""
    path = source / "classes.txt"
    if not path.exists():
        return default
    names = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    if not 2 <= len(set(names)) == len(names) <= 256:
        raise UserError(
            f"{path}: holds the class names {list(names)}; write 2 to 256 different names, "
            "one per line, the background first."
        )
    return names


def read_groups(source: Path) -> dict[str, str]:
    """The group of each case according to `groups.csv`; empty where there is no such file."""
    path = source / "groups.csv"
    if not path.exists():
        return {}
    rows = csv.DictReader(read_text(path).splitlines(), skipinitialspace=True)
    groups: dict[str, str] = {}
    if not {"case", "group"} <= set(rows.fieldnames or ()):
        raise UserError(f"{path}: the first line must be `case,group`, with commas; it is {rows.fieldnames}.")
    for row in rows:
        case, group = (row["case"] or "").strip(), (row["group"] or "").strip()
        if not case or not group or groups.setdefault(case, group) != group:
            raise UserError(
                f"{path}, line {rows.line_num}: give each case one group; {case!r} has {group!r} "
                f"here{f' and {groups[case]!r} before' if case in groups else ''}."
            )
    if not groups:
        raise UserError(f"{path}: lists no case; add a line per case or delete the file.")
    return groups


def grouping(source: Path) -> str:
    """What keeps cases on one side of a split; nothing is known without `groups.csv`."""
    return "group" if (source / "groups.csv").exists() else ""


def read_mask(path: Path, classes: tuple[str, ...]) -> np.ndarray:
    """A mask image as class indices, (height, width); a palette's indices are the classes."""
    mask = np.asarray(open_picture(path))
    if mask.ndim == 3:
        if (mask != mask[..., :1]).any():
            raise UserError(f"{path}: a color mask; save it as a grey image of class indices, or black and white.")
        mask = mask[..., 0]
    return class_indices(mask, classes, path)


def class_indices(mask: np.ndarray, classes: tuple[str, ...], path: Path) -> np.ndarray:
    """A mask as uint8 class indices; with two classes 255 also stands for the foreground."""
    values = np.unique(mask).tolist()
    if len(classes) == 2 and 255 in values and set(values) <= {0, 255}:
        return (mask == 255).astype(np.uint8)
    unknown = [value for value in values if value not in range(len(classes))]
    if unknown:
        listed = f"{', '.join(f'{value:g}' for value in unknown[:6])}{', ...' * (len(unknown) > 6)}"
        named = ", ".join(f"{index} {name}" for index, name in enumerate(classes))
        raise UserError(
            f"{path}: the mask holds the values {listed}, but the classes are {named}; name "
            "every class in classes.txt, or, if smooth edges or JPEG made these values, "
            "save the mask as PNG without smoothing."
        )
    return mask.astype(np.uint8)


def check_sizes(pair: Pair, image: tuple[int, ...], mask: tuple[int, ...]) -> None:
    """Refuse a mask that was not drawn on this image."""
    if image != mask:
        raise UserError(
            f"{pair.image}: the image is {' × '.join(map(str, image))}, its mask {pair.mask} is "
            f"{' × '.join(map(str, mask))}; provide a mask of the image's size."
        )
