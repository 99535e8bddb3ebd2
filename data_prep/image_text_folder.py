"""`image_text_folder` and `image_text_masks`: images of one's own with texts, and with masks besides."""

import csv
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from semiseg.data.formats import PICTURES, check_turned_alike, is_deep, is_grey, open_picture, pixels, read_image
from semiseg.data.pairs import foreground
from semiseg.data.recipe import Recipe
from semiseg.data.store import Case, DatasetInfo
from semiseg.errors import UserError
from semiseg.tasks.alignment import DIRECTIONS
from semiseg.texts import STUDY, TEXT

TABLE = "notes.csv"
LOOKED_AT = 50  # images, spread over the table, that tell whether there are colours


class Note(NamedTuple):
    """A row of the table, or why it is none."""

    id: str
    patient: str
    study: str
    text: str
    image: Path
    masks: tuple[Path | None, ...]
    problem: str = ""


class ImageTextFolder(Recipe):
    """A table with an image and a text in every row; whose they are, and which belong to one study, if it says so."""

    name = "image_text_folder"
    summary = "2D images and texts of your own (PNG, JPEG, BMP, TIFF; CSV)"
    task = "which of your texts belongs to which image"
    learns = "alignment"
    endings = PICTURES
    layout = (
        f"DIR/{TABLE} (columns image,text, optional patient,study) and DIR/images/; a column that is called like a "
        "folder beside it, such as lungs, names masks there"
    )

    def __init__(self, source: Path | None = None) -> None:
        super().__init__(source)
        self.classes = ("background", *DIRECTIONS[:2])

    def info(self) -> DatasetInfo:
        """Named after the source folder."""
        name = self.source.resolve().name
        named = {(row.get("patient") or "").strip() for row in self.rows} - {""}
        grouped = all(note.patient in named for note in self.notes)
        return DatasetInfo(
            name=name, title=name, modality="images", classes=self.classes, licence="unknown", unit="pixels",
            source="a folder of images and texts", grouping="patient" if grouped else "", task=self.learns,
        )  # fmt: skip

    @property
    def table(self) -> Path:
        """Where the texts are."""
        return self.source / TABLE

    @cached_property
    def structures(self) -> list[str]:
        """The columns that name masks."""
        known = {"image", "text", "patient", "study", "", ".", ".."}  # the empty one is of pandas' row numbers
        return [column for column in self.rows[0] if column not in known and (self.source / column).is_dir()]

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """The table."""
        try:
            with self.table.open(newline="", encoding="utf-8-sig") as file:
                rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{self.table}: cannot be read ({error}). {self.expected()}") from error
        if not rows or not {"image", "text"} <= rows[0].keys():
            raise UserError(f"{self.table}: needs the columns image and text, and a row for each image.")
        for number, row in enumerate(rows, start=2):
            if None in row:
                raise UserError(
                    f"{self.table}, line {number}: has more cells than the first line; put texts with commas into "
                    "quotation marks."
                )
            if not row["image"]:
                raise UserError(f"{self.table}, line {number}: names no image; complete the row or take it away.")
        return rows

    @cached_property
    def notes(self) -> list[Note]:
        """The first row of every image; a later one, with another patient, says that both patients are one."""
        files = {row["image"] for row in self.rows}
        stems = [Path(file).stem for file in files]
        notes: dict[str, Note] = {}
        same: dict[str, str] = {}  # as whom a patient is known already
        cells = [[(row.get(column) or "").strip() for column in ("study", "patient")] for row in self.rows]
        whose = {study: patient for study, patient in cells if study and patient}

        def known(patient: str) -> str:
            while patient in same:
                patient = same[patient]
            return patient

        for number, row in enumerate(self.rows, start=2):
            image, text = self.source / "images" / row["image"], " ".join((row["text"] or "").split())
            name = image.stem if stems.count(image.stem) == 1 else image.name  # a.jpg and a.png are two images
            study = (row.get("study") or "").strip()
            alone = f"study {study}" if study else name
            patient, problem = (row.get("patient") or "").strip() or whose.get(study) or alone, ""
            if row["image"] in notes:
                one, other = known(patient), known(notes[row["image"]].patient)
                same |= {one: other} if one != other else {}
                continue
            if not image.is_file():
                problem = f"{self.table}, line {number}: there is no {image}; add the image or take the row away."
            elif not text:
                problem = f"{self.table}, line {number}: {image.name} has no text; write one or take the row away."
            masks = tuple(self.source / column / row[column] if row[column] else None for column in self.structures)
            notes[row["image"]] = Note(name, patient, study or name, text, image, masks, problem)
        return [note._replace(patient=known(note.patient)) for note in notes.values()]

    @cached_property
    def colored(self) -> bool:
        """Whether all images have colours; if some have none, all are read as grey ones."""
        files = [note.image for note in self.notes if not note.problem]
        spread = files[:: max(1, len(files) // LOOKED_AT)]
        return all(_mode(file) in ("RGB", "RGBA", "P", "") for file in files) and not all(map(_shows_greys, spread))

    def items(self) -> list[tuple[Note, bool]]:
        """One row of the table each, and whether images have colours."""
        return [(note, self.colored) for note in self.notes]

    def load(self, item: tuple[Note, bool]) -> Case:
        """Read an image with its text."""
        note, colored = item
        if note.problem:
            raise UserError(note.problem)
        picture = open_picture(note.image)
        image = pixels(picture if colored or is_deep(picture) else picture.convert("L"), note.image)
        label = self.read_masks(note, image.shape[1:])
        return Case(note.id, note.patient, image, label, (1.0, 1.0), {TEXT: note.text, STUDY: note.study})

    def read_masks(self, note: Note, shape: tuple[int, ...]) -> np.ndarray | None:
        """None here."""
        return None


class ImageTextMasks(ImageTextFolder):
    """The rows that name a mask, to be segmented; their texts stay with them, for a start that reads them."""

    name = "image_text_masks"
    summary = "2D images with texts and masks of your own (PNG, JPEG, BMP, TIFF; CSV)"
    task = "what you drew in your 2D images, which have texts"
    learns = "segmentation"

    def __init__(self, source: Path | None = None) -> None:
        super().__init__(source)
        self.classes = ("background", *self.structures)

    def info(self) -> DatasetInfo:
        """Named after the source folder, and told apart from what has no masks."""
        info = super().info()
        return DatasetInfo(**(vars(info) | {"name": f"{info.name}_masks", "title": f"{info.title}, masks"}))

    def items(self) -> list[tuple[Note, bool]]:
        """The rows that name every mask."""
        if not self.structures:
            raise UserError(f"{self.table}: no column is called like a folder of masks beside it. {self.expected()}")
        return [(note, self.colored) for note in self.notes if all(note.masks)]

    def read_masks(self, note: Note, shape: tuple[int, ...]) -> np.ndarray | None:
        """One class for each column, later ones on top."""
        label = np.zeros(shape, np.uint8)
        for index, path in enumerate(note.masks, start=1):
            assert path is not None
            if not path.is_file():
                raise UserError(f"{self.table}: {note.image.name} has no mask {path}; add it or empty the cell.")
            mask = foreground(open_picture(path), path)
            if mask.shape != shape:
                raise UserError(f"{path}: is {mask.shape} and {note.image.name} {shape}; provide a mask of its size.")
            check_turned_alike(note.image, path)
            label[mask] = index
        return label


def _mode(file: Path) -> str:
    """How a picture holds its colours; nothing where it cannot be read, which is told when it is loaded."""
    try:
        with Image.open(file) as picture:
            return picture.mode
    except OSError:
        return ""


def _shows_greys(file: Path) -> bool:
    """Whether a picture has no colour; one that cannot be read has none."""
    try:
        image = read_image(file)
    except UserError:
        return True
    return len(image) == 1 or is_grey(image)
