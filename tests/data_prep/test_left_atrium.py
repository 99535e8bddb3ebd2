"""Preparing the 2018 atrial segmentation challenge from its own files."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semiseg.data.prepare import prepare
from semiseg.data.store import Dataset
from semiseg.data_prep.left_atrium import LeftAtrium
from semiseg.errors import UserError, UserErrors

IMAGE = np.random.default_rng(0).integers(1, 200, (4, 5, 6)).astype(np.uint8)  # z, y, x
LABEL = np.uint8(255) * (IMAGE > 150)


def save(path: Path, array: np.ndarray, origin: float = 0.0, spacing: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetOrigin((origin, 0, 0))
    image.SetSpacing((spacing,) * 3)
    sitk.WriteImage(image, str(path))
    return path


def scan(source: Path, case: str, mask: np.ndarray = LABEL, part: str = "Training Set") -> Path:
    save(source / part / case / "lgemri.nrrd", IMAGE)
    save(source / part / case / "laendo.nrrd", mask)
    save(source / part / case / "lawall.nrrd", mask)
    return source / part / case


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A scan of either part."""
    scan(tmp_path / "LA", "A1B2")
    scan(tmp_path / "LA", "C3D4", np.roll(LABEL, 1), part="Testing Set")
    return tmp_path / "LA"


def prepared(source: Path) -> Dataset:
    return Dataset(prepare(LeftAtrium(source), source.parent / "out")[0])


def test_volumes_are_whole_and_of_the_size_that_the_challenge_tells(source: Path) -> None:
    data = prepared(source)
    assert set(data.records) == {"A1B2", "C3D4"}
    record = data.records["A1B2"]
    assert record.shape == (1, 4, 5, 6)
    assert record.spacing == (0.625, 0.625, 0.625)
    np.testing.assert_array_equal(data.label("A1B2"), LABEL[:, ::-1, ::-1] // 255)


def test_a_voxel_size_in_the_header_is_believed(source: Path) -> None:
    for name, array in (("lgemri", IMAGE), ("laendo", LABEL)):
        save(source / f"Training Set/A1B2/{name}.nrrd", array, spacing=0.5)
    assert prepared(source).records["A1B2"].spacing == (0.5, 0.5, 0.5)


def test_scans_with_the_same_mask_are_never_on_two_sides_of_a_split(source: Path) -> None:
    scan(source, "E5F6")
    data = prepared(source)
    assert {record.id: record.group for record in data.records.values()} == {
        "A1B2": "A1B2",
        "C3D4": "C3D4",
        "E5F6": "A1B2",
    }
    assert not data.info.grouping


def test_every_bad_file_is_reported_at_once(source: Path) -> None:
    cut = scan(source, "cut") / "lgemri.nrrd"
    cut.write_bytes(cut.read_bytes()[:-60])
    save(scan(source, "moved") / "laendo.nrrd", LABEL, origin=7)
    save(scan(source, "short") / "laendo.nrrd", LABEL[1:])
    (scan(source, "alone") / "laendo.nrrd").unlink()
    save(scan(source, "grey") / "laendo.nrrd", IMAGE)
    save(scan(source, "holes") / "lgemri.nrrd", np.where(LABEL, np.nan, IMAGE).astype(np.float32))
    scan(source, "A1B2", part="copy")
    with pytest.raises(UserErrors) as caught:
        prepared(source)
    found = {Path(message.partition(": ")[0]).parent.name: message for message in caught.value.messages}
    assert set(found) == {"cut", "moved", "short", "alone", "grey", "holes", "A1B2"}
    assert len(caught.value.messages) == 7
    assert not any("\n" in message for message in caught.value.messages)
    assert "truncated" in found["cut"]
    assert "7 mm off" in found["moved"]
    assert "there is no laendo.nrrd" in found["alone"]
    assert "NaN" in found["holes"]
    assert "keep one" in found["A1B2"]


def test_who_has_ua_mt_files_is_told_how_to_prepare_them(tmp_path: Path) -> None:
    (tmp_path / "A1B2").mkdir()
    (tmp_path / "A1B2/mri_norm2.h5").touch()
    with pytest.raises(UserError, match="semiseg prepare ua_mt_folder"):
        prepared(tmp_path)


def test_a_class_that_the_data_set_does_not_have_is_not_asked_to_be_named(source: Path) -> None:
    """No file beside the volumes is read for names."""
    scan(source, "E5F6", np.uint8(2) * (IMAGE > 150))
    with pytest.raises(UserErrors, match="they are the data set's: take its owner's masks"):
        prepared(source)
