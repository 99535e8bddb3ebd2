"""Preparing one's own DICOM series."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semiseg.data.prepare import prepare
from semiseg.data.store import Dataset
from semiseg.data_prep.dicom_folder import DicomFolder
from semiseg.errors import UserError, UserErrors

IMAGE = np.random.default_rng(0).integers(0, 900, (5, 6, 8)).astype(np.int16)  # z, y, x
LABEL = (IMAGE > 450).astype(np.uint8)
SPACING = (0.8, 0.8, 3.0)
ORIGIN = (-60.0, -50.0, 20.0)


def write_slice(
    path: Path,
    number: int,
    patient: str = "P1",
    series: str = "1.2.3",
    shift: tuple[float, float] = (0.0, 0.0),
    pixel: float = SPACING[0],
    wide: int = IMAGE.shape[2],
    direction: str = "1\\0\\0\\0\\1\\0",
) -> None:
    """Slice `number` of the image; `shift` moves it backward and upward from where it belongs."""
    image = sitk.GetImageFromArray(IMAGE[None, number, :, :wide])
    image.SetSpacing((pixel, pixel, SPACING[2]))
    position = (ORIGIN[0], ORIGIN[1] + shift[0], ORIGIN[2] + SPACING[2] * number + shift[1])
    for key, value in {
        "0008|0018": f"{series}.{number + 1}",
        "0008|0060": "MR",
        "0010|0020": patient,
        "0020|000d": "1.2",
        "0020|000e": series,
        "0020|0032": "\\".join(map(str, position)),
        "0020|0037": direction,
    }.items():
        image.SetMetaData(key, value)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(path))
    writer.Execute(image)


def write_series(folder: Path, patient: str = "P1", series: str = "1.2.3", tilt: float = 0.0) -> Path:
    """One file per slice, named so that their order is not that of the body."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(len(IMAGE)):
        path = folder / f"{len(IMAGE) - number:02d}_{series}.dcm"
        write_slice(path, number, patient, series, shift=(tilt * number, 0))
    return folder


def write_mask(path: Path, array: np.ndarray = LABEL, shift: float = 0.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = sitk.GetImageFromArray(array)
    mask.SetSpacing(SPACING)
    mask.SetOrigin((ORIGIN[0] + shift, *ORIGIN[1:]))
    sitk.WriteImage(mask, str(path))


def scan(source: Path, case: str, patient: str = "P1", ending: str = ".nii.gz") -> Path:
    write_mask(source / f"labels/{case}{ending}")
    return write_series(source / "images" / case, patient)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two scans of one patient and one of another."""
    for case, patient, ending in (("a", "Doe^Jane", ".nii.gz"), ("b", "Roe", ".nrrd"), ("c", "Doe^Jane", ".mha")):
        scan(tmp_path / "knees", case, patient, ending)
    return tmp_path / "knees"


def prepared(source: Path) -> Dataset:
    return Dataset(prepare(DicomFolder(source), source.parent / "out")[0])


def test_slices_are_stacked_as_they_lie_in_the_body(source: Path) -> None:
    data = prepared(source)
    record = data.records["a"]
    assert record.shape == (1, 5, 6, 8)
    assert record.spacing == pytest.approx((3.0, 0.8, 0.8))
    np.testing.assert_array_equal(data.label("a"), LABEL[:, ::-1, ::-1])
    image = data.image("a")[0]
    voxels = IMAGE[:, ::-1, ::-1]
    low, high = np.percentile(IMAGE, (0.5, 99.5))
    np.testing.assert_allclose(image, np.clip((voxels - low) / (high - low), 0, 1), atol=1e-5)


def test_scans_of_a_patient_stay_together_and_the_patient_id_stays_here(source: Path) -> None:
    data = prepared(source)
    assert [data.records[case].group for case in "abc"] == ["patient1", "patient2", "patient1"]
    assert data.info.grouping == "patient"
    assert b"Doe" not in data.path.read_bytes()


def test_ids_that_were_all_made_the_same_are_no_patients(source: Path) -> None:
    write_series(source / "images/b", "Doe^Jane")
    data = prepared(source)
    assert [data.records[case].group for case in "abc"] == ["a", "b", "c"]
    assert not data.info.grouping


def test_a_scan_without_a_patient_does_not_part_those_of_the_others(source: Path) -> None:
    scan(source, "d", "")
    with pytest.raises(UserErrors, match=r"d: its slices name no patient, and those of others do; write .*groups\.csv"):
        prepared(source)
    (source / "groups.csv").write_text("case,group\na,x\nb,y\nc,x\nd,z\n")
    assert [prepared(source).records[case].group for case in "abcd"] == ["x", "y", "x", "z"]


def test_capitals_in_an_ending_hide_no_mask(source: Path) -> None:
    (source / "labels/a.nii.gz").rename(source / "labels/a.NII.GZ")
    assert set(prepared(source).records) == {"a", "b", "c"}


def test_a_scan_without_a_patient_among_ids_that_are_none_is_taken(source: Path) -> None:
    write_series(source / "images/b", "")
    write_series(source / "images/c", "Doe^Jane")
    assert not prepared(source).info.grouping


def test_a_table_of_groups_outranks_the_headers(source: Path) -> None:
    (source / "groups.csv").write_text("case,group\na,x\nb,x\n")
    with pytest.raises(UserError, match=r"groups\.csv: has no line for the case 'c'"):
        prepared(source)
    (source / "groups.csv").write_text("case,group\na,x\nb,x\nc,y\n")
    assert [prepared(source).records[case].group for case in "abc"] == ["x", "x", "y"]


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("case,group\na,x\na,y\nb,x\nc,z\n", "line 3 gives 'a' the group 'y' and 'x' before"),
        ("case;group\na;x\n", "must be `case,group`"),
        ("case,group\na,x\nb,x\nc,y\nd,y\n", "names d, but"),
    ],
)
def test_a_bad_table_of_groups_is_reported_beside_a_bad_series(source: Path, table: str, complaint: str) -> None:
    (source / "groups.csv").write_text(table)
    (source / "images/b/03_1.2.3.dcm").write_text("no slice")
    with pytest.raises(UserErrors) as caught:
        prepared(source)
    told, damaged = caught.value.messages
    assert complaint in told
    assert "not a readable DICOM slice" in damaged


def test_files_without_the_ending_are_slices_too(source: Path) -> None:
    for file in list((source / "images/a").iterdir()):
        file.rename(file.with_suffix(""))
    assert prepared(source).records["a"].shape == (1, 5, 6, 8)


def test_every_bad_series_is_reported_at_once(source: Path) -> None:
    for case in ("cut", "dark", "drawn", "empty", "gap", "lonely", "mixed", "moved", "seg", "short", "tilted", "twice"):
        scan(source, case)
    images, labels = source / "images", source / "labels"
    cut = images / "cut/03_1.2.3.dcm"
    cut.write_bytes(cut.read_bytes()[:300])
    (images / "dark/03_1.2.3.dcm").write_text("no slice")
    half = labels / "drawn.nii.gz"
    half.write_bytes(half.read_bytes()[:-40])
    for file in (images / "empty").iterdir():
        file.unlink()
    (images / "gap/03_1.2.3.dcm").unlink()
    (labels / "lonely.nii.gz").unlink()
    write_series(images / "mixed", series="1.2.4")
    write_mask(labels / "moved.nii.gz", shift=9)
    (labels / "seg.nii.gz").rename(labels / "seg.dcm")
    (images / "short/01_1.2.3.dcm").unlink()
    write_series(images / "tilted", tilt=1.0)
    write_slice(images / "twice/99.dcm", 2)
    with pytest.raises(UserErrors) as caught:
        prepared(source)
    bad = sorted(path.name for path in images.iterdir() if path.name not in ("a", "b", "c", "dark"))
    messages = dict(zip(bad, caught.value.messages, strict=True))
    assert not any("\n" in message for message in messages.values())
    assert all(case in message for case, message in messages.items())
    assert "cut/03_1.2.3.dcm (one of 2, like dark/03_1.2.3.dcm): not a readable DICOM slice" in messages["cut"]
    assert "drawn.nii.gz: not a readable" in messages["drawn"]
    assert "empty: holds no slices" in messages["empty"]
    assert "04_1.2.3.dcm and 02_1.2.3.dcm are 6 mm apart, others 3 mm; add the slice" in messages["gap"]
    assert "there is no labels/lonely.nii.gz" in messages["lonely"]
    assert "mixes 2 series (5 and 5 slices)" in messages["mixed"]
    assert "9 mm off" in messages["moved"]
    assert "seg.dcm: not a readable DICOM segmentation" in messages["seg"]
    assert "8 × 6 × 4" in messages["short"]
    assert "shifted against each other by 4 mm" in messages["tilted"]
    assert "lies where" in messages["twice"]


def test_slices_of_another_kind_are_named_one_by_one(source: Path) -> None:
    folder = source / "images/a"
    write_slice(folder / "03_1.2.3.dcm", 2, pixel=0.9)
    write_slice(folder / "02_1.2.3.dcm", 3, wide=7)
    with pytest.raises(UserErrors) as caught:
        prepared(source)
    narrow, coarse = caught.value.messages
    assert "02_1.2.3.dcm: its size is 7 × 6, that of 01_1.2.3.dcm 8 × 6" in narrow
    assert "03_1.2.3.dcm: its pixel spacing is 0.9" in coarse


def test_directions_that_differ_by_rounding_are_alike(source: Path) -> None:
    folder = source / "images/a"
    write_slice(folder / "03_1.2.3.dcm", 2, direction="1\\-0.000000001\\0\\0.0004\\1\\0")
    assert len(prepared(source).records) == 3
    write_slice(folder / "02_1.2.3.dcm", 3, direction="0.995\\0.1\\0\\-0.1\\0.995\\0")
    with pytest.raises(UserError, match=r"02_1\.2\.3\.dcm: its direction is 0\.995 × 0\.1"):
        prepared(source)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no image"):
        prepared(tmp_path)
