"""Evaluation asks every network once, and every predictor gets what it would get alone."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from semiseg.contract import CPU, tiny_dataset, tiny_task
from semiseg.data.cropping import Crop
from semiseg.method import Ensemble, Task
from semiseg.networks import Output
from semiseg.tasks import task_kind
from semiseg.training.evaluation import predict_case


class Counted(nn.Module):
    """A small network that counts the images which it is shown."""

    def __init__(self, dims: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer = (nn.Conv2d, nn.Conv3d)[dims - 2](1, 3, 3, padding=1)
        self.images = 0

    def forward(self, images: Tensor) -> Output:
        self.images += len(images)
        return Output(10 * self.layer(images))


class Several:
    """Stands for a method: three networks, one of which is named twice, and two means."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.networks = [Counted(task.dims, seed) for seed in range(3)]

    def predictors(self) -> dict[str, nn.Module]:
        first, second, third = self.networks
        both = {"two": Ensemble([first, second]), "three": Ensemble(self.networks)}
        return {"first": first, "second": second, "third": third, "exemplar": second, **both}


@pytest.fixture(params=["2D", "2D, windows", "2D, centre", "3D"])
def case(request):
    """A task and an image."""
    dims = 3 if request.param == "3D" else 2
    crop = {"2D, windows": Crop(window=(20, 20), at="anywhere"), "2D, centre": Crop(window=(20, 20), at="centre")}
    size = (16, 16, 16) if dims == 3 else (16, 16)
    image = np.random.default_rng(0).random((1, 20, 40, 30), np.float32)
    return Task(1, 3, size, "none", crop=crop.get(request.param)), image


def test_every_predictor_gets_what_it_would_get_alone(case):
    task, image = case
    predictors = list(Several(task).predictors().values())
    together = predict_case(predictors, image, task, CPU, "float32")
    assert len({mask.tobytes() for mask in together}) == 5  # the exemplar is one of the others
    for predictor, mask in zip(predictors, together, strict=True):
        (alone,) = predict_case([predictor], image, task, CPU, "float32")
        assert alone.shape == image.shape[1:]
        assert np.array_equal(alone, mask)


def test_a_mean_is_that_of_the_probabilities_which_its_networks_have(case):
    task, image = case
    method = Several(task)
    mask = predict_case([method.predictors()["three"]], image, task, CPU, "float32")[0]

    class Forward(nn.Module):
        """The ensemble's own forward pass, taken for a network."""

        def forward(self, images: Tensor) -> Output:
            return method.predictors()["three"](images)

    (other,) = predict_case([Forward()], image, task, CPU, "float32")
    assert (mask == other).mean() > 0.999  # rounding may decide a tie


@pytest.mark.parametrize("dims", [2, 3])
def test_a_network_sees_a_case_once_however_many_predictors_share_it(dims, tmp_path):
    method, dataset = Several(tiny_task(dims)), tiny_dataset(tmp_path / "tiny.h5", dims)
    names = list(dataset.records)[:2]
    rows = task_kind("segmentation").evaluate(method, dataset, names, CPU, "float32")
    alone = Several(tiny_task(dims)).networks[0]
    for name in names:
        predict_case([alone], dataset.image(name), method.task, CPU, "float32")
    assert [network.images for network in method.networks] == [alone.images] * 3
    found = {(row["predictor"], row["networks"]) for row in rows.predictors}
    assert found == {("second", 1), ("third", 1), ("exemplar", 1), ("two", 2), ("three", 3)}
    dice = {
        name: [row["dice"] for row in rows.predictors if row["predictor"] == name] for name in ("second", "exemplar")
    }
    assert dice["second"] == dice["exemplar"]
    assert {row["case"] for row in rows.cases} == {*names}


def test_windows_of_a_volume_overlap_by_half_and_weigh_most_in_their_middle():
    """What two windows say of a voxel is their mean by a Gaussian, not that of the last, nor an even one."""

    class Place(nn.Module):
        """Class 1 in the first window, with little certainty, and class 0 in the second, with much."""

        def __init__(self) -> None:
            super().__init__()
            self.windows: list[float] = []

        def forward(self, images: Tensor) -> Output:
            self.windows += images[:, 0, 0, 0, 0].tolist()
            first = (images[:, :1, :1, :1, :1] < 0.1).float().expand_as(images)
            return Output(torch.cat([3 * (1 - first), 2 * first], 1))

    depth = 24
    image = np.linspace(0, 1, depth, dtype=np.float32)[None, :, None, None].repeat(16, 2).repeat(16, 3)
    network = Place()
    (mask,) = predict_case([network], image, Task(1, 2, (16, 16, 16), "none"), CPU, "float32")
    assert sorted(network.windows) == pytest.approx([0.0, 8 / 23])
    assert mask[:8].all()
    assert not mask[16:].any()
    switch = int(mask[:, 8, 8].sum())  # between the middles of the windows weights decide
    weight = np.exp(-0.5 * ((np.arange(16) - 7.5) / (0.125 * 16)) ** 2)
    first, second = 1 / (1 + np.exp(-np.array([2.0, -3.0])))
    both = zip(weight[8:], weight[:8], strict=True)
    expected = [(a * first + b * second) / (a + b) > 0.5 for a, b in both]
    assert switch == 8 + sum(expected)
    assert 9 < switch < 15
    network, longer = Place(), np.linspace(0, 1, 32, dtype=np.float32)[None, :, None, None].repeat(16, 2).repeat(16, 3)
    predict_case([network], longer, Task(1, 2, (16, 16, 16), "none"), CPU, "float32")
    assert sorted(network.windows) == pytest.approx([0, 8 / 31, 16 / 31])
