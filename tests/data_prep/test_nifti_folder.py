"""Preparing one's own volumes."""

import json
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from semiseg.data.formats import USUAL, slices_first, unit_range
from semiseg.data.prepare import prepare
from semiseg.data.store import Dataset
from semiseg.data_prep.nifti_folder import NiftiFolder
from semiseg.errors import UserError, UserErrors

AXIAL = np.diag([1.0, 1.0, 3.0, 1.0])
VOXELS = np.random.default_rng(0).normal(100, 20, (4, 5, 6)).astype(np.float32)
LABELS = (VOXELS > 100).astype(np.uint8)


def save(path: Path, array: np.ndarray, affine: np.ndarray = AXIAL) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """One good case."""
    save(tmp_path / "heads/imagesTr/a.nii.gz", VOXELS)
    save(tmp_path / "heads/labelsTr/a.nii.gz", LABELS)
    return tmp_path / "heads"


def prepared(source: Path) -> Dataset:
    return Dataset(prepare(NiftiFolder(source), source.parent / "out")[0])


def complaint(source: Path) -> str:
    """The only complaint about a source, which is one line."""
    with pytest.raises(UserError) as caught:
        prepared(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_slices_come_first_and_spacing_follows_them(source: Path) -> None:
    data = prepared(source)
    assert data.records["a"].shape == (1, 6, 5, 4)
    assert data.records["a"].spacing == (3.0, 1.0, 1.0)
    np.testing.assert_array_equal(data.label("a"), LABELS.transpose(2, 1, 0))


@pytest.fixture
def nnunet(tmp_path: Path) -> Path:
    """Two cases as nnU-Net wants them."""
    for case in ("a", "b"):
        save(tmp_path / f"Dataset001_Heads/imagesTr/{case}_0000.nii.gz", VOXELS)
        save(tmp_path / f"Dataset001_Heads/labelsTr/{case}.nii.gz", LABELS)
    told = {"channel_names": {"0": "T2"}, "labels": {"background": 0, "tumor": 1}, "file_ending": ".nii.gz"}
    (tmp_path / "Dataset001_Heads/dataset.json").write_text(json.dumps(told))
    return tmp_path / "Dataset001_Heads"


def test_a_folder_of_nnunet_is_read_as_it_is(nnunet: Path) -> None:
    data = prepared(nnunet)
    assert [*data.records] == ["a", "b"]
    assert (data.info.classes, data.info.modality) == (("background", "tumor"), "T2")
    np.testing.assert_array_equal(data.label("b"), LABELS.transpose(2, 1, 0))


def test_volumes_without_masks_are_unlabelled_ones_with_or_without_the_number_of_a_channel(nnunet: Path) -> None:
    save(nnunet / "unlabeled/c_0000.nii.gz", VOXELS[::-1])
    save(nnunet / "unlabeled/d.nii.gz", VOXELS[:, ::-1])
    data = prepared(nnunet)
    assert [*data.records] == ["a", "b", "c", "d"]
    assert [*data.annotated] == ["a", "b"]
    assert data.records["d"].spacing == data.records["a"].spacing
    np.testing.assert_allclose(data.image("d"), data.image("a")[:, :, ::-1])
    save(nnunet / "unlabeled/e_0001.nii.gz", VOXELS * 2)
    assert "e_0001.nii.gz: a second channel" in complaint(nnunet)
    (nnunet / "unlabeled/e_0001.nii.gz").unlink()
    save(nnunet / "unlabeled/b_0000.nii.gz", VOXELS + 1)
    assert "unlabeled/b_0000.nii.gz: there is a case b in" in complaint(nnunet)


def test_what_lacks_in_a_folder_of_nnunet_is_called_as_it_should_be(nnunet: Path) -> None:
    (nnunet / "imagesTr/a_0000.nii.gz").unlink()
    assert "there is no a_0000.nii.gz for it in" in complaint(nnunet)
    (nnunet / "labelsTr/a.nii.gz").rename(nnunet / "labelsTr/c.nii.gz")
    (nnunet / "imagesTr/b_0000.nii.gz").rename(nnunet / "imagesTr/c_0000.nii.gz")
    assert "labelsTr/b.nii.gz: there is no b_0000.nii.gz for it in" in complaint(nnunet)


def test_channels_in_files_of_their_own_are_not_taken_for_cases(nnunet: Path) -> None:
    save(nnunet / "imagesTr/a_0001.nii.gz", VOXELS)
    assert "merge those of each case into one file with four axes" in complaint(nnunet)


def test_masks_that_are_numbered_like_their_images_keep_the_names_of_cases(source: Path) -> None:
    for folder in ("imagesTr", "labelsTr"):
        (source / folder / "a.nii.gz").rename(source / folder / "a_0000.nii.gz")
    assert [*prepared(source).records] == ["a_0000"]
    save(source / "imagesTr/a_0000.nii", VOXELS)
    (source / "imagesTr/a_0000.nii.gz").unlink()
    assert [*prepared(source).records] == ["a_0000"], "one of them may be compressed"


def test_cases_of_nnunet_may_be_numbered_with_four_digits(nnunet: Path) -> None:
    for number, case in enumerate(("a", "b")):
        (nnunet / f"imagesTr/{case}_0000.nii.gz").rename(nnunet / f"imagesTr/amos_000{number}_0000.nii.gz")
        (nnunet / f"labelsTr/{case}.nii.gz").rename(nnunet / f"labelsTr/amos_000{number}.nii.gz")
    assert [*prepared(nnunet).records] == ["amos_0000", "amos_0001"]


def test_how_a_scanner_stored_the_axes_does_not_turn_the_patient(source: Path) -> None:
    # The same head, stored with x mirrored and z as the first axis.
    stored = np.array([[0, 0, -1, 3], [0, 1, 0, 0], [3, 0, 0, 0], [0, 0, 0, 1]], float)
    save(source / "imagesTr/b.nii", VOXELS[::-1].transpose(2, 1, 0), stored)
    save(source / "labelsTr/b.nii", LABELS[::-1].transpose(2, 1, 0), stored)
    data = prepared(source)
    np.testing.assert_array_equal(data.image("a"), data.image("b"))
    np.testing.assert_array_equal(data.label("a"), data.label("b"))
    assert data.records["a"].spacing == data.records["b"].spacing


def test_depth_is_the_axis_whose_spacing_stands_out() -> None:
    assert slices_first((0.8, 0.8, 0.7)) == (2, 1, 0), "thin slices are slices, too"
    assert slices_first((0.7, 0.8, 0.8)) == (0, 2, 1)
    assert slices_first((1.0, 3.0, 2.0)) == (1, 2, 0)
    assert slices_first((5.0, 1.0, 1.0)) == (0, 2, 1)
    assert slices_first((1.0, 5.0, 1.0)) == (1, 2, 0)
    assert slices_first((1.0, 1.0, 5.0)) == (2, 1, 0)
    assert slices_first((1.001, 1.0, 1.0)) == (2, 1, 0)


def test_one_bright_voxel_does_not_darken_the_volume(source: Path) -> None:
    bright = np.tile(VOXELS, (4, 4, 4))
    bright[0, 0, 0] = 1e6
    save(source / "imagesTr/a.nii.gz", bright)
    save(source / "labelsTr/a.nii.gz", np.tile(LABELS, (4, 4, 4)))
    image = prepared(source).image("a")
    assert image.dtype == np.float32
    assert (image.min(), image.max()) == (0, 1)
    assert 0.3 < np.median(image) < 0.7


def test_channels_are_scaled_one_by_one(source: Path) -> None:
    save(source / "imagesTr/a.nii.gz", np.stack([VOXELS, 1000 * VOXELS], axis=-1))
    image = prepared(source).image("a")
    assert image.shape == (2, 6, 5, 4)
    np.testing.assert_allclose(image[0], image[1], atol=1e-5)


@pytest.mark.parametrize("labels", [{"0": "background", "1": "head"}, {"background": 0, "head": 1}])
def test_classes_are_named_by_dataset_json(source: Path, labels: dict[str, object]) -> None:
    (source / "dataset.json").write_text(json.dumps({"name": "Heads", "labels": labels, "licence": "CC0"}))
    info = prepared(source).info
    assert info.name == "heads"
    assert info.title == "Heads"
    assert info.licence == "CC0"
    assert info.classes == ("background", "head")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"labels": {"0": "background", "2": "head"}}',
        '{"labels": {"background": 0, "whole": [1, 2]}}',
        '{"labels": {"0": "background", "1": "tumor", "2": "tumor"}}',
        '{"labels": {"0": "background", "1": {"name": "tumor"}}}',
        json.dumps({"labels": {str(value): f"part {value}" for value in range(300)}}),
        '{"labels": ["a", "b"]}',
        '{"labels": {"background": 0, "head": 1, "ignore": 2}}',
    ],
)
def test_an_unusable_dataset_json_is_refused(source: Path, text: str) -> None:
    (source / "dataset.json").write_text(text)
    assert "dataset.json" in complaint(source)


def test_plain_folder_names_work_too(source: Path) -> None:
    (source / "imagesTr").rename(source / "images")
    (source / "labelsTr").rename(source / "labels")
    assert set(prepared(source).records) == {"a"}


def test_every_bad_file_is_reported_at_once(source: Path) -> None:
    images, labels = source / "imagesTr", source / "labelsTr"
    for case in ("cut", "holes", "moved", "short", "unknown", "flat", "alone", "many"):
        save(images / f"{case}.nii.gz", VOXELS)
        save(labels / f"{case}.nii.gz", LABELS)
    cut = images / "cut.nii.gz"
    cut.write_bytes(cut.read_bytes()[:200])
    holes = VOXELS.copy()
    holes[0, 0, 0] = np.nan
    save(images / "holes.nii.gz", holes)
    shift = AXIAL.copy()
    shift[0, 3] = 7
    save(labels / "moved.nii.gz", LABELS, shift)
    save(labels / "short.nii.gz", LABELS[1:])
    save(labels / "unknown.nii.gz", LABELS * 7)
    save(images / "flat.nii.gz", VOXELS[0])
    (labels / "alone.nii.gz").unlink()
    save(labels / "many.nii.gz", np.stack([LABELS, LABELS], axis=-1))
    with pytest.raises(UserErrors) as caught:
        prepared(source)
    found = {Path(message.partition(": ")[0]).name.partition(".")[0]: message for message in caught.value.messages}
    assert set(found) == {"cut", "holes", "moved", "short", "unknown", "flat", "alone", "many"}
    assert not any("\n" in message for message in caught.value.messages)
    assert "truncated" in found["cut"]
    assert "1 of its values are NaN" in found["holes"]
    assert "7 mm off" in found["moved"]
    assert "values 7, but" in found["unknown"]


def test_lengths_in_microns_are_told_in_millimetres(source: Path) -> None:
    for place in ("imagesTr", "labelsTr"):
        path = source / place / "a.nii.gz"
        stored = nib.load(path)
        image = nib.Nifti1Image(np.asarray(stored.dataobj), np.diag([20.0, 20.0, 60.0, 1.0]))
        image.header.set_xyzt_units("micron")
        nib.save(image, path)
    assert prepared(source).records["a"].spacing == pytest.approx((0.06, 0.02, 0.02))
    save(source / "labelsTr/a.nii.gz", LABELS, np.diag([0.02, 0.02, 0.06, 1.0]))  # as a program that reads the unit
    assert set(prepared(source).records) == {"a"}


def test_a_mask_on_an_image_without_a_place_is_refused_by_the_reason(source: Path) -> None:
    """Programs give a file without one another place each, which no resampling changes."""
    unplaced = nib.Nifti1Image(VOXELS, AXIAL)
    unplaced.set_qform(None, 0)
    unplaced.set_sform(None, 0)
    nib.save(unplaced, source / "imagesTr/a.nii.gz")
    assert "gives no place (qform_code and sform_code are 0)" in complaint(source)


def test_scaling_a_large_volume_takes_no_multiple_of_its_memory() -> None:
    volume = np.random.default_rng(0).random((1, 48, 64, 64), np.float32)
    tracemalloc.start()
    scaled = unit_range(volume, Path("volume"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3.5 * volume.nbytes
    low, high = np.percentile(volume, USUAL)
    np.testing.assert_array_equal(scaled, np.clip((volume - low) / (high - low), 0, 1).astype(np.float32))
