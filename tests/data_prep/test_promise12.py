"""Preparing PROMISE12 from the challenge's own files."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semiseg.data.prepare import prepare
from semiseg.data.store import Dataset
from semiseg.data_prep.promise12 import Promise12
from semiseg.errors import UserError, UserErrors

IMAGE = np.random.default_rng(0).integers(0, 900, (4, 5, 6)).astype(np.int16)  # z, y, x
LABEL = (IMAGE > 450).astype(np.int8)


def save(path: Path, array: np.ndarray, origin: float = -60.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetOrigin((origin, -50, 20))
    image.SetSpacing((0.625, 0.625, 3.6))
    sitk.WriteImage(image, str(path))
    return path


def man(folder: Path, number: int) -> None:
    save(folder / f"Case{number:02d}.mhd", IMAGE)
    save(folder / f"Case{number:02d}_segmentation.mhd", LABEL)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Cases of two parts, and a test case of the same name as one of them."""
    man(tmp_path / "PROMISE12/TrainingData_Part1", 0)
    man(tmp_path / "PROMISE12/TrainingData_Part2", 17)
    save(tmp_path / "PROMISE12/TestData/Case00.mhd", IMAGE)
    return tmp_path / "PROMISE12"


def prepared(source: Path) -> Dataset:
    return Dataset(prepare(Promise12(source), source.parent / "out")[0])


def test_training_cases_of_all_parts_are_read_and_test_cases_are_not(source: Path) -> None:
    data = prepared(source)
    assert set(data.records) == {"Case00", "Case17"}
    record = data.records["Case00"]
    assert record.shape == (1, 4, 5, 6)
    assert record.spacing == pytest.approx((3.6, 0.625, 0.625))
    np.testing.assert_array_equal(data.label("Case00"), LABEL[:, ::-1, ::-1])


def test_a_folder_named_test_above_the_source_hides_nothing(source: Path) -> None:
    source = source.rename(source.with_name("my_tests"))
    assert set(prepared(source).records) == {"Case00", "Case17"}


def test_every_bad_file_is_reported_at_once(source: Path) -> None:
    folder = source / "TrainingData_Part1"
    for number in range(1, 7):
        man(folder, number)
    cut = folder / "Case01.raw"
    cut.write_bytes(cut.read_bytes()[:-60])
    (folder / "Case02_segmentation.raw").unlink()
    (folder / "Case03_segmentation.mhd").unlink()
    save(folder / "Case04_segmentation.mhd", LABEL, origin=-90)
    save(folder / "Case05_segmentation.mhd", LABEL[1:])
    man(source / "copy", 6)
    with pytest.raises(UserErrors) as caught:
        prepared(source)
    messages = dict(enumerate(caught.value.messages, start=1))
    assert all(f"Case0{number}" in message for number, message in messages.items())
    assert len(messages) == 6
    assert not any("\n" in message for message in messages.values())
    assert "truncated" in messages[1]
    assert "its voxels should be in Case02_segmentation.raw" in messages[2]
    assert "there is no Case03_segmentation.mhd" in messages[3]
    assert "30 mm off" in messages[4]
    assert "3 × 5 × 6" in messages[5] or "6 × 5 × 3" in messages[5]
    assert "keep one" in messages[6]


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no image"):
        prepared(tmp_path)
