"""Preparing ACDC from the challenge's own files."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from semiseg.data.prepare import prepare
from semiseg.data.recipe import MadeOnRequest
from semiseg.data.store import Dataset
from semiseg.data_prep.acdc import Acdc
from semiseg.errors import UserError, UserErrors

IMAGE = np.random.default_rng(0).integers(0, 400, (5, 6, 4)).astype(np.int16)
LABEL = (IMAGE // 100).astype(np.uint8)


def save(path: Path, array: np.ndarray, shift: float = 0.0) -> Path:
    """As in the challenge's files, the voxel size is in the qform alone, and the sform is preferred."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unit, true = np.diag([-1.0, -1.0, 1.0, 1.0]), np.diag([-1.5, -1.5, 10.0, 1.0])
    unit[0, 3] = true[0, 3] = shift
    image = nib.Nifti1Image(array, unit)
    image.set_sform(unit, 1)
    image.set_qform(true, 1)
    nib.save(image, path)
    return path


def patient(source: Path, number: int, part: str = "training") -> Path:
    folder = source / f"database/{part}/patient{number:03d}"
    for frame in (1, 12):
        save(folder / f"{folder.name}_frame{frame:02d}.nii.gz", IMAGE)
        save(folder / f"{folder.name}_frame{frame:02d}_gt.nii.gz", LABEL)
    save(folder / f"{folder.name}_4d.nii.gz", np.stack([IMAGE] * 2, axis=-1))
    (folder / "Info.cfg").write_text("ED: 1\nES: 12\nGroup: DCM\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n")
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A patient of either part."""
    patient(tmp_path / "ACDC", 1)
    patient(tmp_path / "ACDC", 101, "testing")
    return tmp_path / "ACDC"


def prepared(source: Path) -> Dataset:
    return Dataset(prepare(Acdc(source), source.parent / "out")[0])


def test_both_phases_of_a_patient_stay_together(source: Path) -> None:
    data = prepared(source)
    assert {record.id: record.group for record in data.records.values()} == {
        f"patient{number}_frame{frame}": f"patient{number}" for number in ("001", "101") for frame in ("01", "12")
    }
    assert data.info.grouping == "patient"


def test_a_second_download_need_not_equal_the_first_to_the_byte() -> None:
    assert all(isinstance(item, MadeOnRequest) for item in Acdc.downloads)


def test_the_voxel_size_is_the_one_that_was_measured(source: Path) -> None:
    data = prepared(source)
    record = data.records["patient001_frame01"]
    assert record.shape == (1, 4, 6, 5)
    assert record.spacing == pytest.approx((10, 1.5, 1.5))
    np.testing.assert_array_equal(data.label(record.id), LABEL[::-1, ::-1].transpose(2, 1, 0))


def test_every_bad_file_is_reported_at_once(source: Path) -> None:
    folder = source / "database/training"
    for number in range(2, 9):
        patient(source, number)
    cut = folder / "patient002/patient002_frame01.nii.gz"
    cut.write_bytes(cut.read_bytes()[:200])
    save(folder / "patient003/patient003_frame01_gt.nii.gz", LABEL, shift=30)
    save(folder / "patient004/patient004_frame01_gt.nii.gz", LABEL[1:])
    (folder / "patient005/patient005_frame01_gt.nii.gz").unlink()
    for kind in ("", "_gt"):
        (folder / f"patient006/patient006_frame12{kind}.nii.gz").unlink()
    save(source / "copy/patient007_frame01.nii", IMAGE)
    save(folder / "patient008/patient008_frame01_gt.nii.gz", LABEL + 1)
    with pytest.raises(UserErrors) as caught:
        prepared(source)
    messages = dict(zip((2, 3, 4, 5, 7, 8, 6), caught.value.messages, strict=True))
    assert all(f"patient00{number}" in message for number, message in messages.items())
    assert not any("\n" in message for message in messages.values())
    assert "truncated" in messages[2]
    assert "30 mm off" in messages[3]
    assert "4 × 6 × 4" in messages[4]
    assert "there is no patient005_frame01_gt.nii.gz" in messages[5]
    assert "Info.cfg: names patient006_frame12 as ES" in messages[6]
    assert "keep one" in messages[7]
    assert "values 4, but" in messages[8]


def test_an_unreadable_info_is_reported_with_the_rest(source: Path) -> None:
    (source / "database/training/patient001/Info.cfg").write_bytes(b"ED: \xff")
    (source / "database/testing/patient101/Info.cfg").write_text("ED: 1\n")
    with pytest.raises(UserErrors) as caught:
        prepared(source)
    assert ["patient101" in message for message in caught.value.messages] == [True, False]
    assert all("Info.cfg" in message for message in caught.value.messages)


def test_who_has_ssl4mis_files_is_told_how_to_prepare_them(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/patient001_frame01.h5").touch()
    with pytest.raises(UserError, match="semiseg prepare ssl4mis_folder"):
        prepared(tmp_path)
