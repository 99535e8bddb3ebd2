"""`image_folder`: 2D images and masks of one's own, paired by file name."""

import csv
import re
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from semiseg.data.formats import PICTURES, check_turned_alike, open_picture
from semiseg.data.masks import Thresholds, class_indices
from semiseg.data.recipe import Recipe
from semiseg.data.store import Case, DatasetInfo
from semiseg.errors import UserError, UserErrors

SYSTEM = ("Thumbs.db", "desktop.ini")  # what Windows leaves in folders
UNLABELED = "unlabeled"  # the folder of images that nobody has drawn on
COMPARISONS = 1000  # of names; where more lack a partner, it is not one misspelling


class ImageFolder(Recipe):
    """A folder of images, a folder of masks, and optionally who is on them and what the classes are."""

    name = "image_folder"
    summary = "2D images and masks of your own (PNG, JPEG, BMP, TIFF)"
    task = "what you drew in your 2D images"
    layout = (
        "DIR/images/*.png (or .jpg, .bmp, .tif) and DIR/masks/ with the same names "
        "(a palette's indices are the classes); optional: "
        "DIR/classes.txt (one class name per line, background first), "
        f"DIR/groups.csv (columns case,group), DIR/{UNLABELED}/ (images without masks)"
    )

    endings = PICTURES
    thresholds: Thresholds | None = ()

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
            unit="pixels",
            masks=self.masks_are(),
        )

    def items(self) -> list["Pair | Alone"]:
        """One pair of files per case, by name, and images without masks."""
        return find_cases(self.source, "images", "masks", PICTURES)

    def load(self, item: "Pair | Alone") -> Case:
        """Read image and mask, which must be of one size."""
        if item.problem:
            raise UserError(item.problem)
        if isinstance(item, Alone):
            return Case(item.id, item.group, self.read_image(item.image).image, None, (1.0, 1.0))
        image, label = self.read_image(item.image).image, read_mask(item.mask, self.classes, self.thresholds)
        check_sizes(item, image.shape[1:], label.shape)
        check_turned_alike(item.image, item.mask)
        return Case(item.id, item.group, image, label, (1.0, 1.0))


@dataclass(frozen=True)
class Pair:
    """The files of one case, or why they are none."""

    id: str
    group: str
    image: Path
    mask: Path
    problem: str = ""


@dataclass(frozen=True)
class Alone:
    """The file of a case without a mask, or why it is none."""

    id: str
    group: str
    image: Path
    problem: str = ""


def find_cases(
    source: Path, images: str, masks: str, suffixes: tuple[str, ...], of_images: tuple[str, ...] = ()
) -> list[Pair | Alone]:
    """Match the files of two folders by name; a file without partner becomes a pair with a problem.

    Those of the folder `UNLABELED`, if there is one, need no partner. Problems are reported when the case is loaded,
    together with those of all others.

    Args:
        suffixes: what names end in.
        of_images: the same of images, where these end otherwise than masks.
    """
    endings = {images: of_images or suffixes, masks: suffixes}
    if absent := [folder for folder in (images, masks) if not (source / folder).exists()]:
        raise UserError(
            f"{source / absent[0]}: there is no such folder; put the images into {source / images} and their masks "
            f"into {source / masks}, or point --source to the folder that holds both."
        )
    found = {folder: _files_by_stem(source / folder, endings[folder]) for folder in (images, masks)}
    if not any(found.values()):
        raise UserError(
            f"{source / images}: holds no {', '.join(suffixes)} file; put the images there "
            f"and their masks into {source / masks}."
        )
    unlabeled = _unlabeled(source, endings[images])
    named = found[images].keys() | found[masks].keys()
    groups, wrong = told_groups(source, images, named | unlabeled.keys())
    pairs: list[Pair | Alone] = [*wrong]
    alone = (found[images].keys() - found[masks].keys(), found[masks].keys() - found[images].keys())
    namesakes = _namesakes(*map(sorted, alone))
    for stem in sorted(named - set(namesakes.values())):
        files = {folder: found[folder].get(stem, []) for folder in (images, masks)}
        if stem in namesakes:
            mask, same = found[masks][namesakes[stem]][0], stem.casefold() == namesakes[stem].casefold()
            problem = _misnamed(files[images][0], mask, capitals=same)
        elif not files[images]:
            problem = _unpaired(files[masks][0], source / images, stem + endings[images][0], "take this file away")
        elif not files[masks]:
            move = f"move this image to {source / UNLABELED}, where none has a mask"
            problem = _unpaired(files[images][0], source / masks, stem + endings[masks][0], move)
        else:
            problem = _no_one_file(files[images], suffixes) or _no_one_file(files[masks], suffixes)
        image, mask = (next(iter(files[folder]), source / folder / stem) for folder in (images, masks))
        pairs.append(Pair(stem, groups.get(stem, stem), image, mask, problem or ungrouped(source, stem, groups)))
    for stem, (first, *others) in sorted(unlabeled.items()):
        problem = _no_one_file([first, *others], suffixes)
        if stem in found[images]:
            problem = f"{first}: there is a case {stem} in {source / images}, too; rename one, or take one away."
        elif stem in named:
            continue  # its mask is told of already
        pairs.append(Alone(stem, groups.get(stem, stem), first, problem or ungrouped(source, stem, groups)))
    return pairs


def _misnamed(image: Path, mask: Path, capitals: bool) -> str:
    """What is wrong with an image and a mask whose names differ in capitals alone, or hardly."""
    if capitals:
        return f"{image}: its mask is called {mask.name}; name both alike, capitals count."
    return f"{image}: has no mask of its name; if {mask.name} is it, name both alike, or else take both away."


def _unpaired(file: Path, folder: Path, partner: str, otherwise: str) -> str:
    """What is wrong with a file that has no partner."""
    return f"{file}: there is no {partner} for it in {folder}; add it or {otherwise}."


def _unlabeled(source: Path, endings: tuple[str, ...]) -> dict[str, list[Path]]:
    """The images without masks, by name without suffix."""
    folder, british = source / UNLABELED, source / UNLABELED.replace("led", "lled")
    if british.exists():
        raise UserError(f"{british}: is not read; call this folder {UNLABELED}.")
    if not folder.exists():
        return {}
    found = _files_by_stem(folder, endings)
    if not found:
        raise UserError(f"{folder}: holds no {', '.join(endings)} file; put images there, or delete the folder.")
    return found


def _no_one_file(files: list[Path], suffixes: tuple[str, ...]) -> str:
    """What is wrong with the files of one name."""
    if len(files) > 1:
        return f"{files[0]}: {', '.join(file.name for file in files[1:])} beside it would be the same case; keep one."
    if not files[0].name.lower().endswith(suffixes):
        return f"{files[0]}: is none of {', '.join(suffixes)}; convert it or take it away."
    return ""


def _namesakes(images: list[str], masks: list[str]) -> dict[str, str]:
    """The mask that each image without one may have: called alike but for capitals, or nearly so if there are few.

    Names with other numbers are of other cases.
    """
    folded = {mask.casefold(): mask for mask in masks}
    found = {image: folded[image.casefold()] for image in images if image.casefold() in folded}
    if len(images) * len(masks) <= COMPARISONS:
        for image in (image for image in images if image not in found):
            free = [mask for mask in masks if mask not in found.values() and _numbers(mask) == _numbers(image)]
            if close := get_close_matches(image, free, n=1):
                found[image] = close[0]
    return found


def _numbers(name: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"[0-9]+", name)]


def _files_by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
    """The files by name without suffix; those of another kind only where no other file has the name."""
    try:
        files = sorted(file for file in folder.iterdir() if not file.name.startswith(".") and file.name not in SYSTEM)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be listed ({error.strerror}); check the folder and its permissions."
        ) from error
    stems: dict[str, list[Path]] = {}
    others: dict[str, list[Path]] = {}
    for file in files:
        suffix = next((s for s in suffixes if file.name.lower().endswith(s)), None)
        if suffix:
            stems.setdefault(file.name[: -len(suffix)], []).append(file)
        else:
            others.setdefault(file.stem, []).append(file)
    return (others | stems) if stems else {}


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


def told_groups(source: Path, images: str, cases: Collection[str]) -> tuple[dict[str, str], list[Pair]]:
    """The groups that `groups.csv` tells, and what is wrong with it, as pairs to be reported with the others."""
    table = source / "groups.csv"
    try:
        groups, problems = read_groups(source), []
    except UserErrors as errors:
        groups, problems = {}, errors.messages
    except UserError as error:
        groups, problems = {}, [str(error)]
    if unknown := sorted(groups.keys() - cases):
        listed = f"{', '.join(unknown[:5])}{', ...' * (len(unknown) > 5)}"
        problems = [f"{table}: names {listed}, but {source / images} holds no such case; correct or delete that."]
    return groups, [Pair("", "", table, table, problem) for problem in problems]


def ungrouped(source: Path, case: str, groups: Collection[str]) -> str:
    """What is wrong with a case that `groups.csv`, if there is one, leaves out."""
    if not groups or case in groups:
        return ""
    return f"{source / 'groups.csv'}: has no line for the case {case!r}; add one with its group."


def read_groups(source: Path) -> dict[str, str]:
    """The group of each case according to `groups.csv`; empty where there is no such file."""
    path = source / "groups.csv"
    if not path.exists():
        return {}
    rows = csv.DictReader(read_text(path).splitlines(), skipinitialspace=True)
    groups: dict[str, str] = {}
    problems = []
    try:
        if not {"case", "group"} <= set(rows.fieldnames or ()):
            raise UserError(f"{path}: the first line is {rows.fieldnames}; it must be `case,group`, with commas.")
        for row in rows:
            case, group = (row["case"] or "").strip(), (row["group"] or "").strip()
            if not case or not group or groups.setdefault(case, group) != group:
                before = f" and {groups[case]!r} before" if case in groups else ""
                problems.append(
                    f"{path}: line {rows.line_num} gives {case!r} the group {group!r}{before}; give it one."
                )
    except csv.Error as error:
        raise UserError(f"{path}: not a table of commas ({error}); save it as CSV again.") from error
    if problems:
        raise UserErrors(problems)
    if not groups:
        raise UserError(f"{path}: lists no case; add a line per case or delete the file.")
    return groups


def grouping(source: Path) -> str:
    """What keeps cases on one side of a split; nothing is known without `groups.csv`."""
    return "group" if (source / "groups.csv").exists() else ""


def read_mask(path: Path, classes: tuple[str, ...], thresholds: Thresholds | None = None) -> np.ndarray:
    """A mask image as class indices, (height, width); without thresholds a palette's indices are the classes."""
    picture = open_picture(path)
    if thresholds and picture.mode in ("1", "P"):
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    mask = np.asarray(picture)
    if picture.mode == "P" and len(classes) == 2:
        brightness = np.asarray(picture.convert("L"))
        if brightness[mask == 0].max(initial=0) > brightness[mask != 0].min(initial=255):
            raise UserError(
                f"{path}: its palette shows class 0, the background, brighter than class 1; "
                "save it as a black and white image with a black background."
            )
    if mask.ndim == 3:
        if (mask != mask[..., :1]).any():
            raise UserError(f"{path}: a colour mask; save it as a grey image of class indices, or black and white.")
        mask = mask[..., 0]
    return class_indices(mask, classes, path, thresholds)


def check_sizes(pair: Pair, image: tuple[int, ...], mask: tuple[int, ...]) -> None:
    """Refuse a mask that was not drawn on this image."""
    if image != mask:
        turned = ", drawn on it as viewers show it" if image == mask[::-1] else ""
        raise UserError(
            f"{pair.image}: the image is {' × '.join(map(str, image))}, its mask {pair.mask} is "
            f"{' × '.join(map(str, mask))}; provide a mask of the image's size{turned}."
        )
