"""Published protocols: the cases that public scripts take, and nobody in two lists."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from semiseg.data.prepare import prepare
from semiseg.data.protocol import OfficialPartition, Protocol, official_splits
from semiseg.data.store import Case, Dataset, DatasetInfo, write_dataset
from semiseg.data_prep.ssl4mis import Ssl4misFolder
from semiseg.errors import UserError

ACDC = Protocol(train="train_slices", validation="val", test="test")
ORDER = dict.fromkeys(("patient012", "patient003", "patient030", "patient001"), (3, 4))  # as in the list, not by name
PUBLIC = {"patient099": 16, "patient038": 8, "patient050": 10, "patient100": 8, "patient058": 9, "patient021": 10,
          "patient049": 7, "patient020": 8}  # fmt: skip
RNG = np.random.default_rng(0)


def write(folder: Path, order: dict[str, tuple[int, int]] = ORDER) -> Path:
    """A folder as SSL4MIS has it: two frames of everybody, training cases listed by slice."""
    (folder / "data").mkdir(parents=True)
    everybody = [*order, "patient140", "patient141", "patient150"]
    slices = []
    for patient in everybody:
        for frame, depth in zip(("frame01", "frame09"), order.get(patient, (3, 4)), strict=True):
            with h5py.File(folder / f"data/{patient}_{frame}.h5", "w") as file:
                file["image"] = RNG.random((depth, 16, 16), np.float32)
                file["label"] = RNG.integers(0, 4, (depth, 16, 16)).astype(np.uint8)
            if patient in order:
                slices += [f"{patient}_{frame}_slice_{number}" for number in range(depth, 0, -1)]
    (folder / "train_slices.list").write_text("\n".join(slices))
    for name, patients in (("val", everybody[-3:-2]), ("test", everybody[-2:])):
        (folder / f"{name}.list").write_text("\n".join(f"{p}_{f}" for p in patients for f in ("frame01", "frame09")))
    return folder


def prepared(folder: Path) -> Dataset:
    return Dataset(prepare(Ssl4misFolder(folder), folder.parent / "out")[0])


def groups(data: Dataset) -> dict[str, str]:
    return {record.id: record.group for record in data.records.values()}


@pytest.mark.parametrize(("labels", "slices"), [("1 patient", 7), ("3 patients", 21)])
def test_the_labelled_slices_are_the_first_of_the_list(tmp_path, labels, slices):
    data = prepared(write(tmp_path / "ACDC"))
    part = official_splits(data, ACDC).partition(0, labels, groups(data))
    depth = {case: record.shape[1] for case, record in data.records.items()}
    assert sum(depth[case] for case in part.labeled) == slices
    public = {line.partition("_slice")[0] for line in data.lists["train_slices"][:slices]}
    assert set(part.labeled) == public
    assert set(part.unlabeled) == {case for case in depth if case.partition("_")[0] in ORDER} - public
    assert {case.partition("_")[0] for case in part.test} == {"patient141", "patient150"}
    assert isinstance(part, OfficialPartition)
    assert part.chooses("validation") == ("patient140_frame01", "patient140_frame09")
    assert part.chooses("validation and test") == part.validation + part.test
    assert part.chooses("test") == part.test


@pytest.mark.parametrize(("labels", "slices"), [("3 patients", 68), ("7 patients", 136)])
def test_acdc_labels_as_many_slices_as_the_public_scripts(tmp_path, labels, slices):
    """Their table says 68 and 136; the list as it is distributed begins with these patients, each with two frames."""
    data = prepared(write(tmp_path / "ACDC", {patient: (depth, depth) for patient, depth in PUBLIC.items()}))
    part = official_splits(data, ACDC).partition(0, labels, groups(data))
    assert sum(data.records[case].shape[1] for case in part.labeled) == slices
    assert set(part.labeled) == {line.partition("_slice")[0] for line in data.lists["train_slices"][:slices]}


def test_a_list_that_is_not_there_is_asked_for(tmp_path):
    folder = write(tmp_path / "ACDC")
    (folder / "val.list").unlink()
    with pytest.raises(UserError, match=r"holds no list 'val', it has test, train_slices; add it to the original"):
        official_splits(prepared(folder), ACDC)


def test_nobody_is_trained_on_and_tested(tmp_path):
    folder = write(tmp_path / "ACDC")
    with (folder / "test.list").open("a") as file:
        file.write("\npatient003_frame01")
    with pytest.raises(UserError, match="patient003 is in the lists 'train_slices' and 'test'"):
        official_splits(prepared(folder), ACDC)


def test_a_case_of_which_only_some_slices_are_listed_is_refused(tmp_path):
    folder = write(tmp_path / "ACDC")
    lines = (folder / "train_slices.list").read_text().splitlines()
    (folder / "train_slices.list").write_text("\n".join(lines[1:]))
    with pytest.raises(UserError, match="names 2 of 3 slices of patient012_frame01"):
        official_splits(prepared(folder), ACDC)


def test_a_rule_needs_the_cases_that_it_looks_at():
    with pytest.raises(ValueError, match="add validation: LIST"):
        Protocol(selected_on=("validation and test",))


def test_images_without_masks_take_no_part_and_a_list_that_names_one_is_refused(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (8, 1, 4, 4)).astype(np.uint8)
    cases = [Case(f"c{n}", f"c{n}", pixels[n], np.zeros((4, 4), np.uint8), (1.0, 1.0)) for n in range(7)]
    cases.append(Case("bare", "bare", pixels[7], None, (1.0, 1.0)))
    info, names = DatasetInfo("toy", "Toy", "none", ("background", "thing"), "CC0", ""), [f"c{n}" for n in range(7)]
    lists = {"train": names[:4], "val": names[4:5], "test": names[5:], "more": [*names[:4], "bare"]}
    write_dataset(tmp_path / "toy.h5", info, cases, lists=lists)
    data = Dataset(tmp_path / "toy.h5")
    part = official_splits(data, Protocol(train="train", validation="val", test="test")).partition(0, 0.5, groups(data))
    assert (part.labeled, part.unlabeled, part.test) == (("c0", "c1"), ("c2", "c3"), ("c5", "c6"))
    assert part.chooses("validation") == ("c4",)
    with pytest.raises(UserError, match="the list 'more' names bare, which has no mask"):
        official_splits(data, Protocol(train="more", validation="val", test="test"))
