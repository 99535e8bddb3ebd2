"""`cephalometric`: 19 landmarks in lateral radiographs of the skull (ISBI 2015)."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semiseg.data.recipe import Recipe
from semiseg.data.store import POINTS, Case
from semiseg.errors import UserError

HEIGHT = 240.0  # of a film in mm; it was scanned at 0.1 mm
PARTS = {"train": ("TrainingData", range(1, 151)), "test1": ("Test1Data", range(151, 301)),
         "test2": ("Test2Data", range(301, 401))}  # fmt: skip


class Film(NamedTuple):
    """A radiograph and what its reader marked, or why there is nothing."""

    id: str
    image: Path
    points: tuple[tuple[float, float], ...]  # (y, x)
    problem: str = ""


class Cephalometric(Recipe):
    """400 radiographs of as many patients, marked by the senior reader.

    Read are the owner's folders, or tables as those who pass on smaller versions write them; a film is 240 mm high
    in either. The challenge's own lists (150 to train, 150 and 100 to test) are kept beside the cases.
    """

    name = "cephalometric"
    summary = "lateral skull radiographs (BMP, JPEG) with 19 landmarks (text)"
    task = "landmarks in lateral radiographs of the skull"
    layout = (
        "DIR/RawImage/TrainingData/*.bmp, Test1Data, Test2Data and DIR/AnnotationsByMD/400_senior/*.txt, or "
        "DIR/images/ or DIR/cepha400/ and DIR/train_senior.csv, test1_senior.csv, test2_senior.csv "
        "(image_path,1_x,1_y,...)"
    )
    classes = (
        "background", "sella", "nasion", "orbitale", "porion", "subspinale", "supramentale", "pogonion", "menton",
        "gnathion", "gonion", "lower incisor", "upper incisor", "upper lip", "lower lip", "subnasale",
        "soft tissue pogonion", "posterior nasal spine", "anterior nasal spine", "articulare",
    )  # fmt: skip
    licence = "research only"
    registration = "https://figshare.com/s/37ec464af8e81ae6ebbf"
    title = "Cephalometric X-rays (ISBI 2015)"
    modality = "radiography of the skull"
    page = "https://figshare.com/s/37ec464af8e81ae6ebbf"
    citation = "Wang et al., Medical Image Analysis 31 (2016), doi:10.1016/j.media.2016.02.004"
    grouping = "patient"
    unit = "mm"
    learns = "localization"

    def items(self) -> list[Film]:
        """One radiograph of each patient."""
        films = [film for part in PARTS for film in (*self._of_table(part), *self._of_folder(part))]
        if not films:
            raise UserError(f"{self.source}: holds no landmarks where they are expected. {self.expected()}")
        return films

    def lists(self) -> dict[str, list[str]]:
        """Those of the challenge, as far as their radiographs are there."""
        there = {film.id for film in self.items()}
        lists = {part: [f"{n:03d}" for n in numbers if f"{n:03d}" in there] for part, (_, numbers) in PARTS.items()}
        return {part: cases for part, cases in lists.items() if cases}

    def load(self, item: Film) -> Case:
        """Read a radiograph; its landmarks must lie on it."""
        if item.problem:
            raise UserError(item.problem)
        image = self.read_image(item.image).image[:1]
        points = np.array(item.points, np.float32)
        if (points < 0).any() or (points > np.array(image.shape[1:]) - 1).any():
            raise UserError(f"{item.image}: a landmark lies outside of the image; are table and images of one size?")
        spacing = HEIGHT / image.shape[1]
        return Case(item.id, item.id, image, None, (spacing, spacing), {POINTS: points})

    def _of_folder(self, part: str) -> list[Film]:
        folder, films = self.source / "RawImage" / PARTS[part][0], []
        for image in sorted(folder.glob("*.bmp")):
            text = self.source / "AnnotationsByMD" / "400_senior" / f"{image.stem}.txt"
            try:
                rows = text.read_text(encoding="utf-8").split()[: len(self.classes) - 1]
                films.append(self._film(image, [tuple(map(float, row.split(","))) for row in rows], str(text)))
            except (OSError, ValueError) as error:
                films.append(Film(image.stem, image, (), f"{text}: cannot be read ({error}); restore the file."))
        return films

    def _of_table(self, part: str) -> list[Film]:
        table, films = self.source / f"{part}_senior.csv", []
        if not table.exists():
            return []
        with table.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                image = self._images / (row.get("image_path") or "")
                try:
                    numbers = range(1, len(self.classes))
                    points = [(float(row[f"{n}_x"]), float(row[f"{n}_y"])) for n in numbers]
                    films.append(self._film(image, points, str(table)))
                except (KeyError, ValueError, TypeError) as error:
                    reason = f"{table}: the row of {image.name} lacks a number ({error}); restore the file."
                    films.append(Film(image.stem, image, (), reason))
        return films

    @property
    def _images(self) -> Path:
        """Where those who pass on smaller versions have the films, once or twice below each other."""
        folders = [self.source / name for name in ("images", "cepha400/cepha400", "cepha400")]
        return next((folder for folder in folders if folder.is_dir()), folders[0])

    def _film(self, image: Path, points: Sequence[tuple[float, ...]], where: str) -> Film:
        """A film of points (x, y)."""
        if len(points) != len(self.classes) - 1:
            problem = f"{where}: has {len(points)} landmarks for {image.name}, not {len(self.classes) - 1}; restore it."
            return Film(image.stem, image, (), problem)
        return Film(image.stem, image, tuple((y, x) for x, y in points))
