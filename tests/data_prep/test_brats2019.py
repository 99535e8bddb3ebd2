"""Preparing BraTS 2019 from the challenge's own files."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from semiseg.data.prepare import prepare
from semiseg.data.store import Dataset
from semiseg.data_prep.brats2019 import Brats2019
from semiseg.errors import UserError, UserErrors

AFFINE = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])
IMAGE = np.zeros((9, 10, 11), np.int16)
IMAGE[2:7, 3:8, 1:6] = np.random.default_rng(0).integers(1, 500, (5, 5, 5))
LABEL = np.zeros(IMAGE.shape, np.uint8)
LABEL[4, 4, 2], LABEL[4, 4, 3], LABEL[4, 4, 4] = 1, 2, 4


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def patient(source: Path, name: str, grade: str = "HGG", ending: str = ".nii.gz") -> Path:
    folder = source / f"MICCAI_BraTS_2019_Data_Training/{grade}/{name}"
    for kind in ("flair", "t1", "t1ce", "t2"):
        save(folder / f"{name}_{kind}{ending}", IMAGE)
    save(folder / f"{name}_seg{ending}", LABEL)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A patient of either grade, with either ending."""
    patient(tmp_path / "BraTS", "BraTS19_2013_10_1")
    patient(tmp_path / "BraTS", "BraTS19_2013_0_1", "LGG", ".nii")
    return tmp_path / "BraTS"


def prepared(source: Path) -> Dataset:
    return Dataset(prepare(Brats2019(source), source.parent / "out")[0])


def test_all_regions_are_one_tumor_and_the_air_is_cut_off(source: Path) -> None:
    data = prepared(source)
    assert set(data.records) == {"BraTS19_2013_10_1", "BraTS19_2013_0_1"}
    assert data.records["BraTS19_2013_10_1"].shape == (1, 5, 5, 5)
    expected = (LABEL > 0)[2:7, 3:8, 1:6][::-1, ::-1].transpose(2, 1, 0)
    np.testing.assert_array_equal(data.label("BraTS19_2013_10_1"), expected)
    assert data.info.classes == ("background", "whole tumor")


def test_the_mask_has_no_say_in_what_is_cut_off(source: Path) -> None:
    folder = source / "MICCAI_BraTS_2019_Data_Training/HGG/BraTS19_2013_10_1"
    outside = LABEL.copy()
    outside[0, 0, 0] = 2
    before = prepared(source).image("BraTS19_2013_10_1")
    save(folder / "BraTS19_2013_10_1_seg.nii.gz", outside)
    np.testing.assert_array_equal(prepared(source).image("BraTS19_2013_10_1"), before)


def test_every_bad_file_is_reported_at_once(source: Path) -> None:
    cut = patient(source, "cut") / "cut_seg.nii.gz"
    cut.write_bytes(cut.read_bytes()[:100])
    save(patient(source, "turned") / "turned_seg.nii.gz", LABEL, np.eye(4))
    save(patient(source, "short") / "short_seg.nii.gz", LABEL[1:])
    (patient(source, "alone") / "alone_flair.nii.gz").unlink()
    save(patient(source, "unknown") / "unknown_seg.nii.gz", LABEL * 3)
    holes = IMAGE.astype(np.float32)
    holes[4, 4, 4] = np.nan
    save(patient(source, "holes") / "holes_flair.nii.gz", holes)
    patient(source, "BraTS19_2013_0_1")
    with pytest.raises(UserErrors) as caught:
        prepared(source)
    found = {Path(message.partition(": ")[0]).parent.name: message for message in caught.value.messages}
    assert set(found) == {"cut", "turned", "short", "alone", "unknown", "holes", "BraTS19_2013_0_1"}
    assert len(caught.value.messages) == 7
    assert not any("\n" in message for message in caught.value.messages)
    assert "mm off" in found["turned"]
    assert "there is no alone_flair.nii.gz" in found["alone"]
    assert "keep one" in found["BraTS19_2013_0_1"]


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no image"):
        prepared(tmp_path)
