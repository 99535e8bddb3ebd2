"""Preparing tasks of the Medical Segmentation Decathlon."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from semiseg.data.discovery import recipes
from semiseg.data.prepare import prepare
from semiseg.data.store import Dataset
from semiseg.data_prep.msd import Msd, MsdHeart, MsdHepaticVessel, MsdLiver, MsdProstate
from semiseg.errors import UserError, UserErrors

IMAGE = np.random.default_rng(0).normal(100, 20, (5, 6, 4, 2)).astype(np.float32)
LABEL = (IMAGE[..., 0] > 100).astype(np.uint8) * 2
AFFINE = np.diag([0.6, 0.6, 3.6, 1.0])


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def describe(source: Path, cases: list[str], **changes: Any) -> None:
    entries = [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in cases]
    told = {
        "name": "PROSTATE",
        "licence": "CC-BY-SA 4.0",
        "tensorImageSize": "4D",
        "modality": {"0": "T2", "1": "ADC"},
        "labels": {"0": "background", "1": "PZ", "2": "TZ"},
        "numTraining": len(cases),
        "training": entries,
        "test": ["./imagesTs/prostate_03.nii.gz"],
    }
    (source / "dataset.json").write_text(json.dumps(told | changes))


def case(source: Path, name: str) -> None:
    save(source / f"imagesTr/{name}.nii.gz", IMAGE)
    save(source / f"labelsTr/{name}.nii.gz", LABEL)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two cases of two channels, with what macOS leaves in the official archives."""
    folder = tmp_path / "Task05_Prostate"
    for name in ("prostate_00", "prostate_01"):
        case(folder, name)
        (folder / f"imagesTr/._{name}.nii.gz").write_bytes(b"Mac OS X")
    save(folder / "imagesTs/prostate_03.nii.gz", IMAGE)
    describe(folder, ["prostate_00", "prostate_01"])
    return folder


def prepared(source: Path, kind: type[Msd] = Msd) -> Dataset:
    return Dataset(prepare(kind(source), source.parent / "out")[0])


def complaints(source: Path) -> list[str]:
    with pytest.raises(UserErrors) as caught:
        prepared(source)
    assert not any("\n" in message for message in caught.value.messages)
    return caught.value.messages


def test_dataset_json_tells_names_channels_and_classes(source: Path) -> None:
    data = prepared(source)
    assert set(data.records) == {"prostate_00", "prostate_01"}
    assert data.records["prostate_00"].shape == (2, 4, 6, 5)
    assert data.records["prostate_00"].spacing == pytest.approx((3.6, 0.6, 0.6))
    assert data.info.classes == ("background", "PZ", "TZ")
    assert data.info.modality == "T2, ADC"
    assert data.info.name == "Task05_Prostate"
    assert prepared(source, MsdProstate).info.name == "msd_prostate"


def test_every_task_can_be_downloaded_by_its_name_and_is_checked() -> None:
    tasks = {name: kind for name, kind in recipes().items() if name.startswith("msd_")}
    assert len(tasks) == 10
    downloads = [item for kind in tasks.values() for item in kind.downloads]
    assert len({item.url for item in downloads}) == len({item.md5 for item in downloads}) == 10
    assert all(item.url.endswith(item.file) and len(item.md5) == 32 for item in downloads)
    assert not Msd.downloads


def test_every_task_says_beforehand_how_many_classes_it_has() -> None:
    tasks = [kind for name, kind in sorted(recipes().items()) if name.startswith("msd_")]
    counts = {kind.name.removeprefix("msd_"): len(kind.classes) for kind in tasks}
    two = dict.fromkeys(("colon", "heart", "lung", "spleen"), 2)
    three = dict.fromkeys(("hepatic_vessel", "hippocampus", "liver", "pancreas", "prostate"), 3)
    assert counts == {**two, **three, "brain_tumour": 4}


def test_the_folder_of_another_task_is_refused(source: Path) -> None:
    with pytest.raises(UserError, match="background, left atrium; name the folder of that task, Task02_Heart"):
        MsdHeart(source)


def test_the_folder_of_a_task_with_as_many_classes_is_refused_too(source: Path) -> None:
    with pytest.raises(UserError, match="names the classes background, PZ, TZ, but those of msd_liver"):
        MsdLiver(source)


def test_a_copy_that_spells_the_classes_otherwise_is_accepted(source: Path) -> None:
    describe(source, [], labels={"0": "Background", "1": "vessel", "2": "tumor"}, training=[{}])
    assert MsdHepaticVessel(source).classes == ("Background", "vessel", "tumor")


def test_list_and_folders_must_agree(source: Path) -> None:
    case(source, "extra")
    describe(source, ["prostate_00", "prostate_01", "lost"])
    extra, lost = complaints(source)
    assert "extra.nii.gz: is not listed" in extra
    assert "dataset.json: lists lost" in lost


def test_every_bad_file_is_reported_at_once(source: Path) -> None:
    names = ["cut", "flat", "holes", "lonely", "turned", "unknown"]
    for name in names:
        case(source, name)
    cut = source / "imagesTr/cut.nii.gz"
    cut.write_bytes(cut.read_bytes()[:200])
    save(source / "imagesTr/flat.nii.gz", IMAGE[..., 0])
    save(source / "imagesTr/holes.nii.gz", np.where(IMAGE > 110, np.nan, IMAGE))
    (source / "labelsTr/lonely.nii.gz").unlink()
    save(source / "labelsTr/turned.nii.gz", LABEL, AFFINE * [-1, 1, 1, 1])
    save(source / "labelsTr/unknown.nii.gz", LABEL * 3)
    describe(source, ["prostate_00", "prostate_01", *names])
    found = {Path(message.partition(": ")[0]).name.partition(".")[0]: message for message in complaints(source)}
    assert set(found) == set(names)
    assert "has 1 channels, but dataset.json names 2 (T2, ADC)" in found["flat"]
    assert "NaN" in found["holes"]
    assert "mm off" in found["turned"]


@pytest.mark.parametrize("key", ["labels", "modality", "training"])
def test_a_folder_that_is_no_task_is_refused(source: Path, key: str) -> None:
    describe(source, ["prostate_00", "prostate_01"], **{key: None})
    with pytest.raises(UserError, match=f'dataset.json: has no "{key}"'):
        Msd(source)
    (source / "dataset.json").unlink()
    with pytest.raises(UserError, match=r"dataset\.json: there is no such file"):
        Msd(source)
