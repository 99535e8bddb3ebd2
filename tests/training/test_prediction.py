"""Masks for new images: on the grid of the image, whatever its size, orientation and number of axes."""

import hashlib
import json
from contextlib import suppress
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from semiseg.contract import CPU, tiny_dataset
from semiseg.data.cropping import Crop
from semiseg.data.recipe import Recipe
from semiseg.data.store import Dataset
from semiseg.data_prep.endovis17 import EndoVis17
from semiseg.errors import UserError
from semiseg.method import Task
from semiseg.methods.cross_teaching import CrossTeaching
from semiseg.methods.supervised import Supervised
from semiseg.networks import Output
from semiseg.settings import RunSpec, TrainingSettings
from semiseg.training.files import save_tensors, write_json
from semiseg.training.places import Places
from semiseg.training.prediction import Predictor, image_files, load_predictor, write_mask
from semiseg.training.run import execute


class Brightness(nn.Module):
    """Calls bright pixels foreground."""

    def forward(self, images):
        bright = images.mean(1, keepdim=True) - 0.5
        return Output(torch.cat([-bright, bright], 1) * 100)


def predictor(channels=1, size=(32, 32), volumetric=False, classes=2):
    return Predictor(Brightness(), Task(channels, classes, size, "none"), volumetric, "float32", CPU)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("P", 3)])
def test_a_picture_gets_a_mask_of_its_own_size(tmp_path, mode, channels):
    pixels = np.zeros((60, 90), np.uint8)
    pixels[:, 45:] = 255
    Image.fromarray(pixels).convert(mode).save(tmp_path / "one.png")
    write_mask(predictor(channels), tmp_path / "one.png", tmp_path / "masks")
    mask = np.asarray(Image.open(tmp_path / "masks" / "one.png"))
    assert mask.shape == (60, 90)
    assert set(np.unique(mask)) == {0, 255}
    assert (mask == pixels).mean() > 0.97


def test_more_classes_are_written_as_their_numbers(tmp_path):
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(tmp_path / "one.png")
    write_mask(predictor(classes=3), tmp_path / "one.png", tmp_path / "masks")
    assert set(np.unique(np.asarray(Image.open(tmp_path / "masks" / "one.png")))) == {1}


def volume(path, orientation="RAS", spacing=(1.0, 1.0, 4.0), shape=(30, 26, 10)):
    """A volume with a bright corner, stored in some orientation."""
    voxels = np.random.default_rng(0).random(shape).astype(np.float32) * 0.1
    voxels[: shape[0] // 2, : shape[1] // 3, : shape[2] // 2] += 0.8
    image = nib.Nifti1Image(voxels, np.diag([*spacing, 1.0]) + np.eye(4, k=3) * -7)
    wanted = nib.orientations.axcodes2ornt(orientation)
    turned = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted))
    turned.to_filename(path)
    return turned


@pytest.mark.parametrize("size", [(16, 16), (8, 16, 16)], ids=["slice-wise", "3d"])
@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "ASL"])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 4.0), (3.0, 1.0, 1.0), (1.0, 3.0, 1.0), (1.0, 1.0, 1.0)], ids=str)
def test_a_mask_lies_on_the_grid_of_its_volume(tmp_path, size, orientation, spacing):
    original = volume(tmp_path / "scan.nii.gz", orientation, spacing)
    write_mask(predictor(size=size, volumetric=True), tmp_path / "scan.nii.gz", tmp_path / "masks")
    mask = nib.load(tmp_path / "masks" / "scan.nii.gz")
    assert mask.shape == original.shape
    assert np.allclose(mask.affine, original.affine)
    assert mask.header.get_zooms() == pytest.approx(original.header.get_zooms())
    values = np.asarray(mask.dataobj)
    assert set(np.unique(values)) == {0, 1}
    assert (values == (original.get_fdata() > 0.5)).mean() > 0.9


def test_channels_must_be_those_of_the_training(tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "color.png")
    with pytest.raises(UserError, match=r"color\.png: has 3 channels, and the run was trained on 1; convert it"):
        write_mask(predictor(1), tmp_path / "color.png", tmp_path / "masks")


def test_a_damaged_image_is_refused(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(UserError, match=r"bad\.png"):
        write_mask(predictor(), tmp_path / "bad.png", tmp_path / "masks")
    (tmp_path / "bad.nii.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(UserError, match=r"bad\.nii\.gz"):
        write_mask(predictor(volumetric=True), tmp_path / "bad.nii.gz", tmp_path / "masks")


def test_only_images_of_the_right_kind_are_taken_from_a_folder(tmp_path):
    for name in ("b.PNG", "a.jpg", "c.nii.gz", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [f.name for f in image_files(predictor(), tmp_path)] == ["a.jpg", "b.PNG"]
    assert [f.name for f in image_files(predictor(volumetric=True), tmp_path)] == ["c.nii.gz"]
    for place, reason in ((tmp_path / "absent", "no such file or folder"), (tmp_path / "notes.txt", "holds no image")):
        with pytest.raises(UserError, match=reason):
            image_files(predictor(), place)


def test_masks_never_replace_the_images(tmp_path):
    path = tmp_path / "one.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(path)
    before = hashlib.sha256(path.read_bytes()).digest()
    with suppress(UserError):
        write_mask(predictor(), path, tmp_path)
    assert hashlib.sha256(path.read_bytes()).digest() == before


def test_two_images_of_one_name_do_not_share_a_mask(tmp_path):
    for name in ("a.png", "a.bmp"):
        Image.new("L", (8, 8)).save(tmp_path / name)
    try:
        for file in image_files(predictor(), tmp_path):
            write_mask(predictor(), file, tmp_path / "masks")
    except UserError:
        return
    assert len(list((tmp_path / "masks").iterdir())) == 2


@pytest.fixture
def finished(tmp_path):
    """The folder of a run that took a second."""
    return finish(tmp_path)


def finish(tmp_path, crop=None):
    """Carry out a run, and return its folder."""
    (tmp_path / "data").mkdir()
    tiny_dataset(tmp_path / "data" / "tiny.h5", 2)
    training = TrainingSettings(
        steps=6, size=(32, 32), labeled_batch=2, unlabeled_batch=2, learning_rate=0.1, precision="float32", crop=crop
    )
    spec = RunSpec(benchmark="b", dataset="tiny", method="cps", implementation="cps", config={}, labels=0.25, fold=0,
                   seed=0, network="unet_small", weights=None, training=training)  # fmt: skip
    places = Places(tmp_path / "results", tmp_path / "data", tmp_path / "splits")
    assert execute(spec, places, CPU)["status"] == "finished"
    return places.results / spec.folder


def test_a_finished_run_predicts_what_it_was_evaluated_with(finished, tmp_path):
    loaded, dataset = load_predictor(finished, "cpu"), Dataset(tmp_path / "data" / "tiny.h5")
    examples = np.load(finished / "examples.npz")
    assert len(examples["ids"]) == 2
    for case, prediction in zip(examples["ids"], examples["predictions"], strict=True):
        assert np.array_equal(loaded(dataset.image(str(case)), tmp_path), prediction)
    (finished / "model.safetensors").unlink()
    with pytest.raises(UserError, match="weights are missing"):
        load_predictor(finished, "cpu")


@pytest.mark.parametrize("crop", [Crop(window=(32, 36)), Crop(window=(32, 32), at="anywhere")], ids=lambda c: c.at)
def test_a_finished_run_crops_new_images_as_it_did_those_of_the_training(tmp_path, crop):
    run, dataset = finish(tmp_path, crop), Dataset(tmp_path / "data" / "tiny.h5")
    loaded, examples = load_predictor(run, "cpu"), np.load(run / "examples.npz")
    assert loaded.task.crop == crop
    for case, prediction in zip(examples["ids"], examples["predictions"], strict=True):
        assert np.array_equal(loaded(dataset.image(str(case)), tmp_path), prediction)
    Image.new("L", (50, 60), 255).save(tmp_path / "new.png")
    write_mask(replace(loaded, network=Brightness()), tmp_path / "new.png", tmp_path / "masks")
    bright = np.asarray(Image.open(tmp_path / "masks" / "new.png")) == 1
    expected = np.zeros((60, 50), bool)
    expected[(slice(14, 46), slice(7, 43)) if crop.at == "centre" else ...] = True
    assert np.array_equal(bright, expected)


def test_truncated_weights_are_refused(finished):
    weights = finished / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_predictor(finished, "cpu")


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="not the folder of a finished run"):
        load_predictor(tmp_path, "cpu")


def edit(run, change):
    """Change the record of a run."""
    record = json.loads((run / "run.json").read_text())
    change(record)
    (run / "run.json").write_text(json.dumps(record))


def test_a_run_tells_the_recipe_that_reads_its_images(finished):
    assert json.loads((finished / "run.json").read_text())["data"]["recipe"] == ""
    edit(finished, lambda record: record["data"].update(recipe="endovis17"))
    assert load_predictor(finished, "cpu").recipe is EndoVis17
    edit(finished, lambda record: record["data"].pop("recipe"))  # as earlier versions wrote it
    assert load_predictor(finished, "cpu").recipe is Recipe


def test_a_recipe_that_is_gone_is_named_in_one_line(finished):
    edit(finished, lambda record: record["data"].update(recipe="my_own"))
    with pytest.raises(UserError, match=r"the recipe 'my_own'.*put its file into data_prep/") as error:
        load_predictor(finished, "cpu")
    assert "\n" not in str(error.value)


def test_a_plugin_that_is_not_found_is_asked_for(finished, tmp_path):
    plugin = tmp_path / "plugins" / "my_cps.py"
    plugin.parent.mkdir()
    plugin.write_text(
        "from semiseg.methods.cps import *\n\n\nclass MyCps(CrossPseudoSupervision):\n    title = 'Mine'\n"
    )
    edit(finished, lambda record: record["spec"].update(implementation="my_cps"))
    with pytest.raises(UserError, match=r"'my_cps', which is not installed here; .* my_cps\.py, with --methods-dir"):
        load_predictor(finished, "cpu")
    assert load_predictor(finished, "cpu", plugin.parent).task.classes == 3


def test_what_a_gpu_trained_in_3d_predicts_on_a_cpu(tmp_path):
    training = TrainingSettings(size=(32, 16, 16), precision="bfloat16")
    spec = RunSpec(benchmark="b", dataset="tiny", method="m", implementation="supervised", config={}, labels=0.25,
                   fold=0, seed=0, network="unet_3d_small", weights=None, training=training)  # fmt: skip
    weights = Supervised(Task(1, 2, (32, 16, 16), "unet_3d_small")).state_dict()
    save_tensors(tmp_path / "model.safetensors", weights, {})
    data = {"channels": 1, "classes": ["background", "thing"], "volumetric": True}
    write_json(tmp_path / "run.json", {"status": "finished", "spec": spec.model_dump(mode="json"), "data": data})
    assert load_predictor(tmp_path, "cpu")(np.zeros((1, 32, 16, 16), np.uint8), tmp_path).shape == (32, 16, 16)


def test_files_of_initial_weights_are_not_needed_to_predict(tmp_path):
    training = TrainingSettings(size=(32, 32))
    spec = RunSpec(benchmark="b", dataset="tiny", method="m", implementation="cross_teaching",
                   config={"pretrained": "gone.pth"}, labels=0.25, fold=0, seed=0, network="unet_small",
                   weights="gone_too.pth", training=training)  # fmt: skip
    save_tensors(tmp_path / "model.safetensors", CrossTeaching(Task(1, 2, (32, 32), "unet_small")).state_dict(), {})
    data = {"channels": 1, "classes": ["background", "thing"], "volumetric": False}
    write_json(tmp_path / "run.json", {"status": "finished", "spec": spec.model_dump(mode="json"), "data": data})
    assert load_predictor(tmp_path, "cpu")(np.zeros((1, 40, 40), np.uint8), tmp_path).shape == (40, 40)
