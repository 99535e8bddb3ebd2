"""Preparing DRIVE."""

from pathlib import Path

import numpy as np
import pytest

from pictures import COLOR, LEFT, RIGHT, complaints, prepared, save
from semiseg.data_prep.drive import Drive


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An image of each set; the labels of the test set are withheld."""
    for part, case in (("training", "21"), ("test", "01")):
        save(tmp_path / f"raw/DRIVE/{part}/images/{case}_{part}.tif", COLOR)
        save(tmp_path / f"raw/DRIVE/{part}/mask/{case}_{part}_mask.gif", LEFT | RIGHT)
    save(tmp_path / "raw/DRIVE/training/1st_manual/21_manual1.gif", LEFT)
    return tmp_path / "raw"


def test_test_images_whose_labels_are_withheld_are_left_out(source: Path) -> None:
    data = prepared(Drive(source))
    assert set(data.records) == {"21"}
    np.testing.assert_array_equal(data.label("21"), LEFT)
    np.testing.assert_array_equal(data.image("21"), COLOR.transpose(2, 0, 1))


def test_the_first_observer_of_the_older_release_is_read(source: Path) -> None:
    save(source / "DRIVE/test/1st_manual/01_manual1.gif", LEFT)
    save(source / "DRIVE/test/2nd_manual/01_manual2.gif", RIGHT)
    np.testing.assert_array_equal(prepared(Drive(source)).label("01"), LEFT)


def test_field_of_view_and_second_observer_stand_beside_the_label(source: Path) -> None:
    save(source / "DRIVE/test/1st_manual/01_manual1.gif", LEFT)
    save(source / "DRIVE/test/2nd_manual/01_manual2.gif", RIGHT)
    data = prepared(Drive(source))
    np.testing.assert_array_equal(data.field("01", "second_observer"), RIGHT)
    np.testing.assert_array_equal(data.field("21", "field_of_view"), LEFT | RIGHT)
    assert {case: {*record.fields} for case, record in data.records.items()} == {
        "01": {"field_of_view", "second_observer"},
        "21": {"field_of_view"},
    }


def test_a_field_of_view_of_another_size_or_twice_is_reported(source: Path) -> None:
    save(source / "DRIVE/training/mask/21_training_mask.gif", LEFT[1:])
    assert "its mask" in complaints(Drive(source))[0]
    save(source / "again/mask/21_training_mask.gif", LEFT | RIGHT)
    assert "21_training_mask.gif beside it would be the same case" in complaints(Drive(source))[0]


def test_a_training_image_without_label_is_reported(source: Path) -> None:
    save(source / "DRIVE/training/images/22_training.tif", COLOR)
    assert "22_training.tif: there is no mask of vessel" in complaints(Drive(source))[0]
