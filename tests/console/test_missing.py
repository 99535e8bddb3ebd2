"""What a command says of a data set that is missing is a command that makes it."""

import re
import shlex
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from PIL import Image

from commands import call, in_this_process
from semiseg.console.missing import missing
from semiseg.executors import local

PIXELS = np.eye(16, dtype=np.uint8)


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    """An empty folder to work in."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("SEMISEG_DATA", raising=False)
    monkeypatch.setattr(local.Local, "carry_out", in_this_process)


def pictures(folder):
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
        for case in range(6):
            Image.fromarray(np.roll(PIXELS, case)).save(folder / part / f"{case}.png")


def volumes(folder):
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
        for case in range(6):
            nib.save(
                nib.Nifti1Image(np.repeat(np.roll(PIXELS, case)[None], 4, 0), np.eye(4)),
                folder / part / f"{case}.nii.gz",
            )


def benchmark(dataset, *methods):
    training = {"steps": 1, "size": [16, 16], "labeled_batch": 2, "unlabeled_batch": 2, "precision": "float32"}
    content = {"dataset": dataset, "methods": [*methods] or ["supervised"], "labels": ["20%"], "folds": [0]}
    Path("b.yaml").write_text(yaml.safe_dump(content | {"network": "unet_small", "training": training}))
    return "b.yaml"


def proposed(text):
    """The only command that a message proposes, as arguments."""
    (line,) = re.findall(r"make it with `semiseg (.*?)`", text)
    return shlex.split(line)


@pytest.mark.parametrize(
    ("make", "kind", "place"),
    [
        (pictures, "image_folder", "my frames"),
        (volumes, "nifti_folder", "scans"),
        (pictures, "image_folder", "data/raw/frames"),
    ],
)
def test_the_command_that_is_proposed_for_a_folder_of_ones_own_makes_it_and_the_benchmark_runs(
    make, kind, place, capfd
):
    make(Path(place))
    assert call("run", benchmark(Path(place).name), "--device", "cpu") == 2
    command = proposed(capfd.readouterr().err)
    assert command == ["prepare", kind, "--source", place]
    assert call(*command) == 0
    assert call("run", "b.yaml", "--device", "cpu") == 0


def test_data_elsewhere_are_made_there(tmp_path, capfd):
    pictures(Path("frames"))
    assert call("run", benchmark("frames"), "--data-dir", "other place") == 2
    assert call(*proposed(capfd.readouterr().err)) == 0
    assert Path("other place/frames.h5").exists()


def test_a_folder_that_lacks_something_is_read_by_what_knows_its_files():
    pictures(Path("frames"))
    Path("frames/masks").rename("frames/labels")
    assert proposed(str(missing("frames", Path("data")))) == ["prepare", "image_folder", "--source", "frames"]
    volumes(Path("scans"))
    Path("scans/labelsTr").rename("scans/masks")
    assert proposed(str(missing("scans", Path("data")))) == ["prepare", "nifti_folder", "--source", "scans"]


@pytest.mark.parametrize("source", [[], ["--source", "frames"]], ids=["alone", "with_source"])
def test_who_names_the_folder_in_place_of_a_recipe_is_told_which_one_reads_it(source, capfd):
    pictures(Path("frames"))
    assert call("prepare", "frames", *source) == 2
    assert "read the folder frames with `semiseg prepare image_folder --source frames`." in capfd.readouterr().err
    assert call("prepare", "image_folders", "--source", "frames") == 2
    assert "did you mean 'image_folder'?" in capfd.readouterr().err


def test_who_has_data_and_lacks_others_is_told_which_method_wants_them(capfd):
    pictures(Path("frames"))
    assert call("prepare", "image_folder", "--source", "frames") == 0
    capfd.readouterr()
    assert call("run", benchmark("frames", "supervised", "shape_guided")) == 2
    told = capfd.readouterr().err
    assert "semiseg: shape_guided draws from chase_db1, too: data/chase_db1.h5: there is no such data set" in told


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("kvasir_instrument", ["prepare", "kvasir_instrument"]),
        ("drive", ["prepare", "drive", "--source", "DIR"]),
        ("ACDC", ["prepare", "ssl4mis_folder", "--source", "DIR/ACDC"]),
        ("2018LA_Seg_Training Set", ["prepare", "ua_mt_folder", "--source", "DIR/2018LA_Seg_Training Set"]),
    ],
)
def test_a_known_data_set_is_made_by_its_recipe(name, command):
    (Path(name) / "images").mkdir(parents=True)  # whatever else is called so
    assert proposed(str(missing(name, Path("data")))) == command


def test_what_is_expected_of_a_folder_that_is_handed_out_is_said_of_that_folder():
    told = str(missing("ACDC", Path("data")))
    assert "Expected: DIR/ACDC/data/*.h5" in told
    assert "DIR/data" not in told


def test_files_where_the_recipe_looks_need_no_folder_to_be_named():
    Path("data/raw/drive").mkdir(parents=True)
    assert proposed(str(missing("drive", Path("data")))) == ["prepare", "drive"]


def test_a_name_that_is_nothing_here_leads_to_the_ways_there_are():
    Path("nothing").mkdir()
    Path("nothing/notes.txt").write_text("")
    for name in ("nothing", "absent", "image_folder"):
        told = str(missing(name, Path("data")))
        assert "\n" not in told
        assert f"`semiseg prepare image_folder --source DIR/{name}`" in told
        assert "nifti_folder" in told
        assert "dicom_folder" in told
        assert "msd" not in told


def test_embedded_data_are_generated_as_before(monkeypatch):
    made = []
    monkeypatch.setattr("semiseg.console.preparing.prepare_dataset", lambda name, *_: made.append(name))
    assert call("run", benchmark("phantom_cardiac")) == 2
    assert made == ["phantom_cardiac"]


def test_generated_data_that_a_method_draws_from_are_made_like_those_of_the_benchmark(monkeypatch):
    made = []
    monkeypatch.setattr("semiseg.console.preparing.prepare_dataset", lambda name, *_: made.append(name))
    other = {"shape_guided": {"shapes": "phantom_vessels_masks"}}
    assert call("run", benchmark("phantom_vessels", "supervised", other)) == 2
    assert made == ["phantom_vessels", "phantom_vessels_masks"]
    made.clear()
    assert call("run", "b.yaml", "--methods", "supervised") == 2
    assert made == ["phantom_vessels"], "what no run needs is not made"


def test_data_that_a_method_draws_from_lead_to_the_command_that_makes_them(monkeypatch, capfd):
    monkeypatch.setattr("semiseg.console.preparing.prepare_dataset", lambda *_: None)
    assert call("run", benchmark("phantom_vessels", "shape_guided")) == 2
    assert proposed(capfd.readouterr().err) == ["prepare", "chase_db1"]
