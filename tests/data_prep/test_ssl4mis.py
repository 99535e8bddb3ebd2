"""Preparing the folders that users of SSL4MIS and UA-MT have."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from semiseg.data.prepare import prepare
from semiseg.data.recipe import Recipe
from semiseg.data.store import Dataset
from semiseg.data_prep.ssl4mis import Ssl4misFolder, UaMtFolder
from semiseg.errors import UserError, UserErrors

IMAGE = np.random.default_rng(0).random((12, 5, 6), np.float32)
LABEL = (IMAGE * 4).astype(np.uint8)


def save(path: Path, image: np.ndarray = IMAGE, label: np.ndarray = LABEL) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["image"] = image
        file["label"] = label
    return path


def save_slices(source: Path, case: str, first: int = 1) -> None:
    for number, (image, label) in enumerate(zip(IMAGE, LABEL, strict=True), start=first):
        save(source / f"data/slices/{case}_slice_{number}.h5", image, label)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An empty source folder."""
    (tmp_path / "ACDC").mkdir()
    return tmp_path / "ACDC"


def prepared(recipe: Recipe) -> Dataset:
    return Dataset(prepare(recipe, recipe.source.parent / "out")[0])


def test_two_frames_of_a_patient_stay_together(source: Path) -> None:
    for case in ("patient001_frame01", "patient001_frame02", "patient002_frame01"):
        save(source / f"data/{case}.h5")
    data = prepared(Ssl4misFolder(source))
    assert [record.group for record in data.records.values()] == ["patient001", "patient001", "patient002"]
    assert data.info.grouping == "patient"


def test_volumes_within_the_unit_range_are_not_changed(source: Path) -> None:
    save(source / "data/patient001_frame01.h5")
    data = prepared(Ssl4misFolder(source))
    np.testing.assert_array_equal(data.image("patient001_frame01"), IMAGE[None])
    np.testing.assert_array_equal(data.label("patient001_frame01"), LABEL)


@pytest.mark.parametrize("first", [0, 1])
def test_slice_ten_is_stacked_after_slice_nine(source: Path, first: int) -> None:
    save_slices(source, "patient001_frame01", first)
    data = prepared(Ssl4misFolder(source))
    np.testing.assert_array_equal(data.image("patient001_frame01"), IMAGE[None])
    np.testing.assert_array_equal(data.label("patient001_frame01"), LABEL)


def test_a_volume_and_its_slices_are_one_case(source: Path) -> None:
    save_slices(source, "patient001_frame01")
    save(source / "data/patient001_frame01.h5")
    assert set(prepared(Ssl4misFolder(source)).records) == {"patient001_frame01"}


def test_training_cases_that_only_a_list_of_slices_names_are_not_lost(source: Path) -> None:
    """As SSL4MIS's loader reads the folder: train_slices.list, val.list, test.list, and no train.list."""
    save_slices(source, "patient001_frame01")
    for case in ("patient002_frame01", "patient003_frame01", "patient004_frame01"):
        save(source / f"data/{case}.h5")
    slices = [f"patient00{p}_frame01_slice_{n}" for p in (2, 1) for n in (3, 1, 2)]
    (source / "train_slices.list").write_text("\n".join(slices))
    (source / "val.list").write_text("patient003_frame01\n")
    data = prepared(Ssl4misFolder(source))
    assert set(data.records) == {"patient001_frame01", "patient002_frame01", "patient003_frame01"}
    np.testing.assert_array_equal(data.image("patient001_frame01"), IMAGE[None])


def test_the_folders_own_lists_are_kept_in_their_order_and_change_no_hash(source: Path) -> None:
    for number in (1, 2, 3):
        save(source / f"data/patient00{number}_frame01.h5")
    before = prepared(Ssl4misFolder(source))
    assert before.lists == {}
    many = [f"patient00{p}_frame01_slice_{n}" for p in (3, 1) for n in range(2000)]  # more than an attribute can hold
    (source / "train_slices.list").write_text("\n".join(many))
    (source / "test.list").write_text("patient002_frame01\n")
    after = prepared(Ssl4misFolder(source))
    assert after.lists == {"test": ["patient002_frame01"], "train_slices": many}
    assert after.hash == before.hash


def test_lists_say_what_belongs_to_the_data_set(source: Path) -> None:
    for number in (1, 2, 3):
        save(source / f"data/patient00{number}_frame01.h5")
    (source / "train.list").write_text("patient001_frame01\n")
    (source / "test.list").write_text("patient003_frame01.h5\n\n")
    assert set(prepared(Ssl4misFolder(source)).records) == {"patient001_frame01", "patient003_frame01"}
    (source / "val.list").write_text("patient004_frame01\n")
    with pytest.raises(UserErrors, match=r"val\.list: names patient004_frame01"):
        prepared(Ssl4misFolder(source))


def test_lists_of_brats_end_in_txt(source: Path) -> None:
    (source / "classes.txt").write_text("background\none\ntwo\nthree\n")
    for case in ("BraTS19_1", "BraTS19_2", "BraTS19_3"):
        save(source / f"data/{case}.h5")
    (source / "train.txt").write_text("BraTS19_2\n")
    (source / "test.txt").write_text("BraTS19_1\n")
    data = prepared(Ssl4misFolder(source))
    assert data.lists == {"train": ["BraTS19_2"], "test": ["BraTS19_1"]}
    assert set(data.records) == {"BraTS19_1", "BraTS19_2"}


def test_lists_that_lie_beside_the_folder_as_ua_mt_has_them_are_found(tmp_path: Path) -> None:
    source = tmp_path / "2018LA_Seg_Training Set"
    for case in "ABC":
        save(source / case / "mri_norm2.h5", label=(LABEL > 1).astype(np.uint8))
    (tmp_path / "test.txt").write_text("milk\n")  # of somebody else
    assert set(prepared(UaMtFolder(source)).records) == set("ABC")
    (tmp_path / "test.txt").unlink()
    (tmp_path / "train.list").write_text("C\n")
    (tmp_path / "test.list").write_text("A\n")
    data = prepared(UaMtFolder(source))
    assert data.lists == {"train": ["C"], "test": ["A"]}
    assert set(data.records) == set("AC")


def test_what_is_known_of_acdc_is_not_claimed_of_other_data(source: Path) -> None:
    for case in ("patient001_frame01", "BraTS19_1", "BraTS19_2"):
        save(source / f"data/{case}.h5")
    with pytest.raises(UserError, match=r"holds BraTS19_1, BraTS19_2, not named like cases of ACDC .*classes\.txt"):
        prepared(Ssl4misFolder(source))
    (source / "classes.txt").write_text("background\nedema\ncore\nenhancing\n")
    info = prepared(Ssl4misFolder(source)).info
    assert info.classes[1] == "edema"
    assert (info.modality, info.licence, info.grouping, info.citation) == ("unknown", "unknown", "", "")


def test_every_bad_volume_is_reported_at_once(source: Path) -> None:
    (source / "classes.txt").write_text("background\nRV\nmyocardium\nLV\n")
    cut = save(source / "data/cut.h5")
    cut.write_bytes(cut.read_bytes()[:-100])
    with h5py.File(source / "data/keyless.h5", "w") as file:
        file["image"] = IMAGE
    holes = IMAGE.copy()
    holes[0, 0, 0] = np.nan
    save(source / "data/holes.h5", holes)
    save(source / "data/short.h5", IMAGE, LABEL[1:])
    save(source / "data/flat.h5", IMAGE[0], LABEL[0])
    save(source / "data/unknown.h5", IMAGE, LABEL + 1)
    save(source / "data/fine.h5")
    with pytest.raises(UserErrors) as caught:
        prepared(Ssl4misFolder(source))
    assert {Path(message.partition(": ")[0]).stem for message in caught.value.messages} == {
        "cut",
        "keyless",
        "holes",
        "short",
        "flat",
        "unknown",
    }
    assert not any("\n" in message for message in caught.value.messages)


def test_a_missing_slice_is_not_closed_up(source: Path) -> None:
    save_slices(source, "patient001_frame01")
    (source / "data/slices/patient001_frame01_slice_7.h5").unlink()
    save(source / "data/slices/patient002.h5", IMAGE[0], LABEL[0])
    with pytest.raises(UserErrors, match="lacks slice 7;") as caught:
        prepared(Ssl4misFolder(source))
    assert any("patient002.h5: the name does not end" in message for message in caught.value.messages)


@pytest.mark.parametrize("recipe", [Ssl4misFolder, UaMtFolder])
def test_an_empty_folder_is_named(source: Path, recipe: type[Recipe]) -> None:
    with pytest.raises(UserError, match=r"ACDC.*holds no HDF5 volumes"):
        prepared(recipe(source))


def test_a_left_atrium_is_turned_slices_first_and_scaled(source: Path) -> None:
    save(source / "2018LA_Seg_Training Set/06SR/mri_norm2.h5", IMAGE * 8 - 4, LABEL // 2)
    save(source / "2018LA_Seg_Training Set/1D7C/mri_norm2.h5", IMAGE, LABEL)
    (source / "train.list").write_text("06SR\n")
    data = prepared(UaMtFolder(source))
    assert set(data.records) == {"06SR"}
    image = data.image("06SR")
    assert image.shape == (1, 6, 5, 12)
    assert (image.min(), image.max()) == (0, 1)
    np.testing.assert_array_equal(data.label("06SR"), (LABEL // 2).transpose(2, 1, 0))
    low, high = np.quantile(IMAGE, (0.01, 0.99))
    inner = (low < IMAGE) & (high > IMAGE)
    order = np.argsort(IMAGE[inner])
    assert (np.diff(image[0].transpose(2, 1, 0)[inner][order]) >= 0).all()


def test_linked_folders_of_cases_are_not_lost(source: Path, tmp_path: Path) -> None:
    save(source / "Training Set/06SR/mri_norm2.h5", IMAGE, LABEL // 2)
    save(tmp_path / "elsewhere/1D7C/mri_norm2.h5", IMAGE, LABEL // 2)
    (source / "Training Set/1D7C").symlink_to(tmp_path / "elsewhere/1D7C")
    assert [item.id for item in UaMtFolder(source).items()] == ["06SR", "1D7C"]
    assert len(UaMtFolder.find_images(source)) == 2


def test_two_scans_of_one_name_are_refused(source: Path) -> None:
    for folder in ("one", "two"):
        save(source / folder / "06SR/mri_norm2.h5", IMAGE, LABEL // 2)
    with pytest.raises(UserErrors, match=r"two/06SR/mri_norm2\.h5: .*one/06SR.* is case '06SR' too"):
        prepared(UaMtFolder(source))
