"""Cephalometric radiographs: both layouts give the same points, and what is wrong names its file."""

import csv

import numpy as np
import pytest
from PIL import Image

from semiseg.data.store import check_case
from semiseg.data_prep.cephalometric import Cephalometric
from semiseg.errors import UserError

POINTS = [(10.0 + 2 * n, 30.0 + n) for n in range(19)]  # (x, y)


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((120, 100), 90, np.uint8)).save(path)


def as_owner(root, numbers=(1, 160), points=POINTS):
    for number in numbers:
        part = "TrainingData" if number <= 150 else "Test1Data"
        picture(root / "RawImage" / part / f"{number:03d}.bmp")
        text = root / "AnnotationsByMD" / "400_senior" / f"{number:03d}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("\n".join(f"{x},{y}" for x, y in points) + "\n1\n")
    return root


def as_table(root, points=POINTS):
    for part, number in (("train", 1), ("test1", 160)):
        picture(root / "images" / f"{number:03d}.jpg")
        with (root / f"{part}_senior.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image_path", *(f"{n}_{axis}" for n in range(1, 20) for axis in "xy")])
            writer.writerow([f"{number:03d}.jpg", *(value for point in points for value in point)])
    return root


@pytest.mark.parametrize("layout", [as_owner, as_table])
def test_both_layouts_give_points_in_pixels_and_a_film_of_240_mm(tmp_path, layout):
    recipe = Cephalometric(layout(tmp_path))
    first, second = recipe.items()
    assert (first.id, second.id) == ("001", "160")
    case = recipe.load(first)
    check_case(case, recipe.info())
    assert case.label is None
    assert np.array_equal(case.fields["points"], [(y, x) for x, y in POINTS])
    assert case.spacing == (2.0, 2.0)
    assert recipe.lists() == {"train": ["001"], "test1": ["160"]}
    assert len(recipe.classes) == 20
    assert recipe.info().task == "localization"


def test_a_landmark_outside_of_its_image_is_refused(tmp_path):
    recipe = Cephalometric(as_owner(tmp_path, points=[(500.0, 3.0), *POINTS[1:]]))
    with pytest.raises(UserError, match=r"001\.bmp: a landmark lies outside"):
        recipe.load(recipe.items()[0])


def test_a_missing_landmark_or_file_is_named_once_the_case_is_loaded(tmp_path):
    root = as_owner(tmp_path, points=POINTS[:-2])
    (root / "AnnotationsByMD" / "400_senior" / "160.txt").unlink()
    recipe = Cephalometric(root)
    for film, reason in zip(recipe.items(), ("has 18 landmarks|lacks|cannot be read", "cannot be read"), strict=True):
        with pytest.raises(UserError, match=reason):
            recipe.load(film)


def test_an_empty_folder_says_what_was_expected(tmp_path):
    with pytest.raises(UserError, match="holds no landmarks where they are expected"):
        Cephalometric(tmp_path).items()


@pytest.mark.parametrize("place", ["cepha400", "cepha400/cepha400"])
def test_films_may_lie_where_the_tables_are_passed_on_with_them(tmp_path, place):
    root = as_table(tmp_path / "root")
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / "images").rename(root / place)
    assert Cephalometric(root).load(Cephalometric(root).items()[0]).id == "001"
    next((root / place).glob("001*")).unlink()
    with pytest.raises(UserError, match=r"001\.jpg: there is no such file; restore it"):
        Cephalometric(root).load(Cephalometric(root).items()[0])
