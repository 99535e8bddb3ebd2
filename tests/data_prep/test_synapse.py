"""Preparing the multi-organ folder that TransUNet distributes."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from semiseg.data.prepare import prepare
from semiseg.data.protocol import Protocol, official_splits
from semiseg.data.store import Dataset
from semiseg.data_prep.synapse import Synapse
from semiseg.errors import UserError, UserErrors

RNG = np.random.default_rng(0)
IMAGES = {name: RNG.random((12, 6, 5), np.float32) for name in ("case0005", "case0031", "case0008")}
LABELS = {name: RNG.integers(0, 9, (12, 6, 5)) for name in IMAGES}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two training cases in slices, of which one is listed first, and a test volume."""
    folder = tmp_path / "Synapse"
    for name in ("train_npz", "test_vol_h5", "lists_Synapse"):
        (folder / name).mkdir(parents=True)
    for case in ("case0005", "case0031"):
        for number in range(12):
            arrays = {"image": IMAGES[case][number], "label": LABELS[case][number].astype(np.float32)}
            np.savez(folder / f"train_npz/{case}_slice{number:03d}.npz", **arrays)
    with h5py.File(folder / "test_vol_h5/case0008.npy.h5", "w") as file:
        file["image"], file["label"] = IMAGES["case0008"], LABELS["case0008"].astype(np.float32)
    lines = [
        f"{case}_slice{number:03d}" for case in ("case0031", "case0005") for number in (3, *range(3), *range(4, 12))
    ]
    (folder / "lists_Synapse/train.txt").write_text("\n".join(lines))
    (folder / "lists_Synapse/test_vol.txt").write_text("case0008\n")
    return folder


def prepared(source: Path) -> Dataset:
    return Dataset(prepare(Synapse(source), source.parent / "out")[0])


def test_slices_become_volumes_in_numeric_order_and_organs_keep_their_numbers(source):
    data = prepared(source)
    assert set(data.records) == set(IMAGES)
    for case in IMAGES:
        np.testing.assert_array_equal(data.image(case), IMAGES[case][None])
        np.testing.assert_array_equal(data.label(case), LABELS[case])
    assert (data.info.classes[1], data.info.classes[8], len(data.info.classes)) == ("aorta", "stomach", 9)


def test_a_protocol_labels_in_the_order_of_the_list_and_tests_the_volumes(source):
    data = prepared(source)
    groups = {record.id: record.group for record in data.records.values()}
    part = official_splits(data, Protocol(test="test_vol")).partition(0, "1 patient", groups)
    assert (part.labeled, part.unlabeled, part.test) == (("case0031",), ("case0005",), ("case0008",))


def test_lists_that_lie_beside_the_data_as_their_code_has_them_are_found(source):
    home = source.parent / "TransUNet/data"
    home.mkdir(parents=True)
    source.rename(home / "Synapse")
    (home.parent / "lists").mkdir()
    (home / "Synapse/lists_Synapse").rename(home.parent / "lists/lists_Synapse")
    assert Synapse(home / "Synapse").lists()["train"][0] == "case0031_slice003"


def test_without_lists_the_two_folders_say_what_is_tested(source):
    for name in ("train", "test_vol"):
        (source / f"lists_Synapse/{name}.txt").unlink()
    data = prepared(source)
    assert data.lists["test_vol"] == ["case0008"]
    assert official_splits(data, Protocol(test="test_vol")).folds[0].train == ("case0005", "case0031")


def test_every_bad_file_is_named_with_its_remedy(source):
    (source / "train_npz/case0005_slice007.npz").unlink()
    (source / "train_npz/case0031_slice002.npz").write_bytes(b"PK")
    with h5py.File(source / "test_vol_h5/case0009.npy.h5", "w") as file:
        file["image"], file["label"] = np.zeros((2, 4, 4)), np.full((2, 4, 4), 9)
    with h5py.File(source / "test_vol_h5/case0031.npy.h5", "w") as file:
        file["image"], file["label"] = np.zeros((2, 4, 4)), np.zeros((2, 4, 4))
    with pytest.raises(UserErrors) as caught:
        prepared(source)
    messages = "\n".join(caught.value.messages)
    for part in ("case0005 lacks slice 7", "case0031_slice002.npz: not a readable NPZ", "case0009", "keep one of them"):
        assert part in messages


def test_another_folder_is_told_what_is_expected(tmp_path):
    with pytest.raises(UserError, match=r"train_npz/CASE_slice000\.npz"):
        Synapse(tmp_path).items()


def test_the_same_layout_with_other_organs_is_told_by_its_class_names(source: Path) -> None:
    names = [
        "background",
        "spleen",
        "right kidney",
        "left kidney",
        "gallbladder",
        "liver",
        "stomach",
        "aorta",
        "pancreas",
    ]
    (source / "classes.txt").write_text("\n".join(names))
    assert Synapse(source).info().classes == tuple(names)
    (source / "classes.txt").unlink()
    assert Synapse(source).info().classes[1] == "aorta"
