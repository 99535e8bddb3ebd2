"""Crops: what of an image is trained on is what is predicted, pixel for pixel, and nothing else."""

import numpy as np
import pytest
import torch
from torch import nn

from semiseg.contract import CPU, MethodContract, tiny_dataset
from semiseg.data.cropping import Crop
from semiseg.data.splits import Partition
from semiseg.data.store import Case, Dataset, DatasetInfo, write_dataset
from semiseg.errors import UserError
from semiseg.method import Task
from semiseg.methods.supervised import Supervised
from semiseg.networks import Output
from semiseg.settings import TrainingSettings
from semiseg.training.evaluation import predict_case
from semiseg.training.sampling import TrainingSet
from semiseg.validation import validate


class Oracle(nn.Module):
    """Knows that what is bright is the mask, and remembers what it was shown."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def forward(self, images):
        self.shown.append(images.clone())
        return Output(torch.cat([0.5 - images, images - 0.5], 1) * 1000)


def predicted(image, size, crop, network=None):
    (mask,) = predict_case([network or Oracle()], image, Task(1, 2, size, "none", crop=crop), CPU, "float32")
    return mask


def mask(*space):
    return np.random.default_rng(0).integers(0, 2, space).astype(np.uint8)


def kept(mask, window):
    """The mask with zeros outside its central window: as much is lost on both sides, or one more at the end."""
    lost = [max(0, have - want) for have, want in zip(mask.shape[-2:], window, strict=True)]
    inside = mask.copy()
    for axis, number in zip((-2, -1), lost, strict=True):
        lines = inside.swapaxes(axis, 0)
        lines[: number // 2] = 0
        lines[len(lines) - (number - number // 2) :] = 0
    return inside


def items(tmp_path, images, labels, size, crop):
    """A training set of these images, all labelled."""
    info = DatasetInfo("toy", "Toy", "none", ("background", "thing"), "CC0", "")
    pairs = enumerate(zip(images, labels, strict=True))
    cases = [Case(f"{i}", f"{i}", image[None], label, (1.0,) * image.ndim) for i, (image, label) in pairs]
    path = tmp_path / "toy.h5"
    if not path.exists():
        write_dataset(path, info, cases)
    dataset = Dataset(path)
    return TrainingSet(dataset, Partition(tuple(sorted(dataset.records)), (), ()), size, CPU, 0, 4, 0, crop=crop)


@pytest.mark.parametrize("space", [(24, 24), (40, 33), (41, 70), (11, 50), (50, 9), (7, 8), (3, 40, 17)], ids=str)
def test_a_central_window_is_predicted_to_the_pixel_and_all_else_is_background(space):
    truth = mask(*space)
    result = predicted(truth[None] * 255, (24, 24), Crop(window=(24, 24)))
    assert result.dtype == np.uint8
    assert np.array_equal(result, kept(truth, (24, 24)))


@pytest.mark.parametrize("space", [(40, 33), (13, 50), (7, 8)], ids=str)
@pytest.mark.parametrize("size", [(24, 16), (12, 16)], ids=str)
def test_a_network_sees_of_new_images_what_it_saw_of_training_images(tmp_path, space, size):
    image = np.random.default_rng(1).integers(0, 256, space).astype(np.uint8)
    crop, network = Crop(window=(24, 32)), Oracle()
    data = items(tmp_path, [image], [image // 128], size, crop)
    result = predicted(image[None], size, crop, network)
    # In training, images are rounded to bytes once they are resized.
    assert torch.allclose(network.shown[0], data.images[0] / 255, atol=0.51 / 255)
    assert result.shape == space
    assert not result[kept(np.ones(space, np.uint8), crop.window) == 0].any()


def test_masks_are_cut_like_their_images(tmp_path):
    images = [mask(40, 33), mask(9, 60), mask(10, 10)]
    data = items(tmp_path, [255 * x for x in images], images, (24, 24), Crop(window=(24, 24)))
    for step in range(5):
        x, y = data.batch(step)
        assert torch.equal((x[:, 0] == 255).long(), y)
        assert y.any(2).any(1).all()


def test_patches_of_images_lie_within_them_and_reach_all_of_them(tmp_path):
    values = np.arange(8 * 9, dtype=np.uint8).reshape(8, 9)
    data = items(tmp_path, [values], [values % 2], (4, 5), Crop(window=(4, 5), at="anywhere"))
    corners = set()
    for step in range(100):
        images, labels = data.batch(step)
        for patch, label in zip(images, labels, strict=True):
            y, x = np.unravel_index(int(patch[0, 0, 0]), values.shape)
            assert np.array_equal(patch[0].numpy(), values[y : y + 4, x : x + 5])
            assert np.array_equal(label.numpy(), values[y : y + 4, x : x + 5] % 2)
            corners.add((int(y), int(x)))
    assert len(corners) == 5 * 5


def test_patches_depend_on_seed_and_step_alone(tmp_path):
    images = [np.random.default_rng(i).integers(0, 256, (30 + i, 40)).astype(np.uint8) for i in range(5)]
    crop = Crop(window=(16, 20), at="anywhere")
    one, other = (items(tmp_path, images, [x // 128 for x in images], (8, 10), crop) for _ in range(2))
    earlier = [one.batch(step) for step in range(7)]
    assert all(torch.equal(a, b) for a, b in zip(earlier[3], other.batch(3), strict=True))
    assert earlier[3][0].shape == (4, 1, 8, 10)
    other.seed = 1
    assert not torch.equal(earlier[3][0], other.batch(3)[0])


@pytest.mark.parametrize("space", [(16, 16), (40, 33), (17, 70), (11, 50), (7, 8), (70, 21, 17)], ids=str)
def test_sliding_windows_over_a_slice_find_all_of_its_mask(space):
    truth, network = mask(*space), Oracle()
    assert np.array_equal(predicted(truth[None] * 255, (16, 16), Crop(window=(16, 16), at="anywhere"), network), truth)
    assert {tuple(images.shape[2:]) for images in network.shown} == {(16, 16)}


@pytest.mark.parametrize("space", [(64, 96), (57, 41), (20, 90)], ids=str)
def test_windows_larger_than_what_is_trained_are_seen_at_its_scale(tmp_path, space):
    truth, network = np.zeros(space, np.uint8), Oracle()
    truth[5 : space[0] // 2, space[1] // 3 :] = 1
    crop = Crop(window=(32, 48), at="anywhere")
    result = predicted(truth[None] * 255, (16, 24), crop, network)
    assert (result == truth).mean() > 0.97
    (item,) = items(tmp_path, [255 * truth], [truth], (16, 24), crop).images
    assert item.shape == (1, max(16, round(space[0] / 2)), max(24, round(space[1] / 2)))
    assert torch.allclose(network.shown[0][0, 0], item[0, :16, :24] / 255, atol=0.51 / 255)


@pytest.mark.parametrize(("window", "depth"), [((12, 16), slice(0, 7)), ((4, 12, 16), slice(1, 5))])
def test_in_3d_patches_come_from_the_centre_and_all_else_is_background(tmp_path, window, depth):
    truth, crop = np.ones((7, 20, 31), np.uint8), Crop(window=window)
    truth[depth] = 1 + kept(truth, (12, 16))[depth]  # 2 is what should be seen
    data = items(tmp_path, [truth * 100], [truth - 1], (4, 10, 12), crop)
    for step in range(10):
        images, labels = data.batch(step)
        assert images.shape == (4, 1, 4, 10, 12)
        assert (images == 200).all()
        assert (labels == 1).all()
    assert np.array_equal(predicted(truth[None] * 100, (4, 10, 12), crop), truth - 1)
    everywhere = predicted(np.full((1, 7, 20, 31), 255, np.uint8), (4, 10, 12), crop)
    assert np.array_equal(everywhere, truth - 1)


def test_the_next_run_of_a_process_gets_the_items_of_its_own_crop(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (32, 32)).astype(np.uint8)
    crops = None, Crop(window=(16, 16)), Crop(window=(24, 24)), Crop(window=(16, 16), at="anywhere")
    shown = [items(tmp_path, [image], [image // 128], (16, 16), crop).images[0] for crop in crops]
    assert torch.equal(shown[1][0], torch.tensor(image[8:24, 8:24]))
    assert not any(torch.equal(a, b) for i, a in enumerate(shown) for b in shown[:i])


def test_without_a_crop_whole_slices_are_resized(tmp_path):
    dataset = tiny_dataset(tmp_path / "tiny.h5", 2)
    data = TrainingSet(dataset, Partition(("case00",), (), ()), (40, 40), CPU, 0, 1, 0)
    assert np.array_equal(data.batch(0)[0][0].numpy(), dataset.image("case00"))
    assert not data.cuts_patches


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"size": [64, 64], "crop": {"window": [63, 80]}}, r"crop\.window \[63, 80\] .* as large as size \[64, 64\]"),
        ({"size": [4, 8, 8], "crop": {"window": [8, 7]}}, r"crop\.window \[8, 7\] .* as large as size \[4, 8, 8\]"),
        ({"size": [8, 8], "crop": {"window": [8, 8, 8]}}, r"crop\.window \[8, 8, 8\] should be \[height, width\]"),
        ({"size": [8, 8], "crop": {"window": [8]}}, r"crop\.window \[8\] should be \[height, width\]"),
        ({"size": [4, 8, 8], "crop": {"window": [8, 8], "at": "anywhere"}}, "in 3D, patches .* use crop.at centre"),
        ({"size": [8, 8], "crop": [8, 8]}, r"crop: write \{window: \[height, width\].*\}, not \[8, 8\]"),
        ({"size": [8, 8], "crop": {"window": [8, 8], "at": "center"}}, r"crop\.at: .*'centre' or 'anywhere'"),
        ({"size": [8, 8], "crop": {"window": [8, 8], "where": 1}}, r"unknown key 'crop\.where'"),
        ({"size": [8, 8], "crop": {"at": "centre"}}, r"crop\.window: Field required"),
    ],
)
def test_a_crop_that_cannot_be_is_refused_in_one_line(settings, reason):
    with pytest.raises(UserError, match=reason) as error:
        validate(TrainingSettings, settings, "training")
    assert "\n" not in str(error.value)


def test_a_run_trains_and_predicts_with_the_crop_of_its_settings(tmp_path):
    contract, crop = MethodContract("supervised", Supervised, 2, tmp_path), Crop(window=(32, 32))
    spec = contract.spec()
    training = spec.training.model_copy(update={"crop": crop})
    trainer = contract.trainer("run", spec.model_copy(update={"training": training}))
    dataset = contract.dataset
    centres = {dataset.image(case)[0, 4:36, 4:36].tobytes() for case in dataset.records}
    assert {image.numpy().tobytes() for image in trainer.data.images} <= centres
    assert trainer.method.task.crop == crop
