"""What a batch shows: labels are where their images are, whatever the task and the augmentation."""

import numpy as np
import pytest
import torch

from semiseg.contract import CPU, MethodContract
from semiseg.data.splits import Partition
from semiseg.data.store import Case, Dataset, DatasetInfo, write_dataset
from semiseg.method import Task
from semiseg.registry import find_methods
from semiseg.settings import TrainingSettings
from semiseg.training import showing
from semiseg.training.sampling import TrainingSet
from semiseg.training.showing import Showing
from semiseg.views import view


def batches(name, folder):
    """A trainer of a method that sees two labelled and three unlabelled images a step."""
    contract = MethodContract(name, find_methods()[name], 2, folder)
    spec = contract.spec()
    return contract.trainer(
        "one", spec.model_copy(update={"training": spec.training.model_copy(update={"unlabeled_batch": 3})})
    )


@pytest.mark.parametrize("augmentation", ["customary", "strong"])
@pytest.mark.parametrize("dims", [2, 3])
def test_masks_follow_their_images_into_the_batch(tmp_path, augmentation, dims):
    """Images are their masks, so that a mask that stayed behind, or went elsewhere, differs."""
    space = (32, 32) if dims == 2 else (8, 32, 32)
    info = DatasetInfo("same", "Same", "none", ("background", "half"), "CC0", "")
    cases = []
    for number in range(4):
        mask = np.zeros(space, np.uint8)
        mask[..., 4 : 14 + number, 3:20] = 1
        cases.append(Case(f"{number}", f"{number}", mask[None] * np.float32(0.9), mask, (1.0,) * dims))
    write_dataset(tmp_path / "same.h5", info, cases)
    data = TrainingSet(Dataset(tmp_path / "same.h5"), Partition(tuple("0123"), (), ()), space, CPU, 0, 4, 0)
    settings = TrainingSettings(size=space, augmentation=augmentation)
    supervised = find_methods()["supervised"](Task(1, 2, space, "unet_small" if dims == 2 else "unet_3d_small"))
    shown = Showing(supervised, data, settings, 0, CPU)
    moved = 0
    for step in range(10):
        batch = shown.batch(step)
        images = batch.labeled("plain")[:, 0]
        middle = (images.flatten(1).amax(1) + images.flatten(1).amin(1)).view(-1, *[1] * dims) / 2
        agree = ((images > middle) == batch.labels.bool()).flatten(1).float().mean(1)
        assert agree.min() > 0.9
        moved += sum(not torch.equal(a, b) for a, b in zip(data.batch(step)[1], batch.labels, strict=True))
    assert moved > 20, "most are turned, mirrored or rotated"


@pytest.mark.parametrize("augmentation", ["customary", "strong"])
def test_points_follow_their_images_into_the_batch(tmp_path, augmentation):
    contract = MethodContract("heatmap_regression", find_methods()["heatmap_regression"], 2, tmp_path)
    spec = contract.spec()
    training = spec.training.model_copy(update={"augmentation": augmentation})
    shown, bright = contract.trainer("one", spec.model_copy(update={"training": training})), []
    for step in range(12):
        batch = shown.batch(step)
        for image, (light, dark) in zip(batch.labeled()[:, 0], batch.labels, strict=True):
            pixels = [((p + 1) * 16 - 0.5).round().long().tolist() for p in (light, dark)]
            if all(0 <= c < 32 for p in pixels for c in p):  # neither was moved out of the image
                bright.append(bool(image[tuple(pixels[0])] > image[tuple(pixels[1])]))
    assert len(bright) > 12
    assert np.mean(bright) > 0.85, "the first point lies on a bright box, and the second on a dark one"


def test_a_view_that_nobody_asks_for_is_not_made_and_one_that_is_asked_for_twice_is_made_once(tmp_path, monkeypatch):
    made = []

    def counted(images, name, *rest):
        made.append((len(images), name))
        return view(images, name, *rest)

    monkeypatch.setattr(showing, "view", counted)
    batch = batches("fixmatch", tmp_path).batch(0)
    assert made == []
    labeled, unlabeled, again = batch.labeled("weak"), batch.unlabeled("strong"), batch.unlabeled("strong")
    assert made == [(2, "weak"), (3, "strong")]
    assert again is unlabeled
    assert torch.equal(batch.images("weak")[:2], labeled)
    assert made == [(2, "weak"), (3, "strong"), (3, "weak")]
    halves = [batch.part(number, 2) for number in (0, 1)]
    assert torch.equal(halves[1].labeled("strong"), batch.labeled("strong")[1::2])
    assert halves[1].unlabeled("strong").is_contiguous(), "a method may reshape it"
    assert made[3:] == [(2, "strong")]


def test_a_view_is_the_same_wherever_in_a_step_it_is_asked_for(tmp_path):
    trainer = batches("unimatch", tmp_path)
    first, second = trainer.batch(3), trainer.batch(3)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        within = {name: second.unlabeled(name) for name in reversed(trainer.method.views)}
    for name in trainer.method.views:
        assert torch.equal(within[name], first.images(name)[2:])
        assert not within[name].is_inference(), "no gradient could pass a network that sees it"
