"""Localization: points are found where maps are highest, to a part of a pixel, and scored by their distance."""

import numpy as np
import pytest
import torch
from torch import nn

from semiseg.contract import CPU, tiny_dataset
from semiseg.data.cropping import Crop
from semiseg.data.store import Case, Dataset, DatasetInfo, write_dataset
from semiseg.method import Task
from semiseg.networks import Output
from semiseg.tasks import task_kind
from semiseg.tasks.localization import discs, peaks

KIND = task_kind("localization")


class Brightest(nn.Module):
    """Says that every landmark is where the image is brightest."""

    def forward(self, images):
        return Output(images.expand(-1, 3, -1, -1))


def dataset(path, points, shape=(30, 50), spacing=(0.5, 2.0)):
    """One image whose brightest spot is its only landmark's; the other landmark lies elsewhere."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    blob = np.exp(-((y - points[0][0]) ** 2 + (x - points[0][1]) ** 2) / 18).astype(np.float32)[None]
    info = DatasetInfo("spots", "Spots", "none", ("background", "one", "two"), "CC0", "", task="localization")
    case = Case("a", "a", blob, None, spacing, {"points": np.array(points, np.float32)})
    write_dataset(path, info, [case])
    return Dataset(path)


def test_a_peak_between_pixels_is_found_to_a_tenth_of_one():
    y, x = torch.arange(20.0)[:, None], torch.arange(30.0)
    places = torch.tensor([[7.3, 11.8], [0.0, 29.0], [12.5, 3.2]])
    maps = torch.stack([-((y - a) ** 2 + (x - b) ** 2) for a, b in places.tolist()])
    found = ((peaks(maps) + 1) * torch.tensor([20, 30]) - 1) / 2
    assert torch.allclose(found, places, atol=0.01)


@pytest.mark.parametrize("crop", [None, Crop(window=(20, 40))])
def test_errors_are_distances_in_the_unit_of_the_data(tmp_path, crop):
    data = dataset(tmp_path / "s.h5", [[14.0, 20.0], [14.0, 22.0]])
    task = Task(1, 3, (20, 40), "none", crop=crop)
    (found,) = KIND.predict([Brightest()], data.image("a"), task, CPU, "float32")
    assert found[0] == pytest.approx([14.0, 20.0], abs=0.6)
    rows = KIND.rows(data, "a", np.array([[14.0, 20.0], [17.0, 21.0]]))
    assert [row["class_name"] for row in rows] == ["one", "two"]
    assert [row["radial_error"] for row in rows] == pytest.approx([0, np.hypot(3 * 0.5, 1 * 2.0)])
    assert [[row[m.name] for m in KIND.metrics[:4]] for row in rows] == [[1, 1, 1, 1], [0, 1, 1, 1]]


def test_a_central_window_finds_what_lies_in_it_at_the_image_s_pixel(tmp_path):
    data = dataset(tmp_path / "s.h5", [[10.0, 33.0], [0.0, 0.0]], shape=(41, 60))
    for size in ((20, 30), (40, 60)):
        task = Task(1, 3, size, "none", crop=Crop(window=(40, 30)))
        (found,) = KIND.predict([Brightest()], data.image("a"), task, CPU, "float32")
        assert found[0] == pytest.approx([10.0, 33.0], abs=0.6)


class Layer(nn.Module):
    """The same by a convolution, whose outputs bfloat16 rounds."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 3, 1)
        nn.init.ones_(self.convolution.weight)
        nn.init.constant_(self.convolution.bias, 100.0)

    def forward(self, images):
        return Output(self.convolution(images).float())


def test_a_landmark_lies_where_it_lies_whatever_the_precision_of_the_training(tmp_path):
    data = dataset(tmp_path / "s.h5", [[14.0, 20.0], [14.0, 22.0]])
    task, network = Task(1, 3, (30, 50), "none"), Layer()
    exact, rounded = (KIND.predict([network], data.image("a"), task, CPU, p)[0] for p in ("float32", "bfloat16"))
    assert exact[0] == pytest.approx([14.0, 20.0], abs=0.1)
    assert np.array_equal(exact, rounded)


def test_landmarks_are_drawn_as_discs_of_their_class():
    mask = discs(np.array([[10.0, 10.0], [30.0, 80.0]]), (60, 100))
    assert (mask[10, 10], mask[30, 80], mask[50, 50]) == (1, 2, 0)
    assert 3 <= (mask == 1).sum() <= 13


def test_what_is_scored_has_every_metric_of_the_task(tmp_path):
    data = tiny_dataset(tmp_path / "tiny.h5", 2, kind=KIND)
    row = KIND.rows(data, "case00", np.zeros((2, 2)))[0]
    assert {"case", "group", "class", "class_name"} | {m.name for m in KIND.metrics} == set(row)
