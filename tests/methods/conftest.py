"""A small random batch, in 2D and in 3D, for the tests of single methods."""

from dataclasses import replace

import pytest
import torch

from semiseg.contract import tiny_task
from semiseg.method import Batch
from semiseg.views import VIEWS


@pytest.fixture(params=[2, 3], ids=["2d", "3d"])
def task(request):
    task = tiny_task(request.param)
    return task if request.param == 2 else replace(task, size=(8, 24, 24))  # a plane that may be turned


@pytest.fixture
def batch(task):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, task.channels, *task.size, generator=generator)
    labels = torch.randint(task.classes, (2, *task.size), generator=generator)
    views = {name: (images + 0.02 * k).clamp(0, 1) for k, name in enumerate([*VIEWS["camera"], "strong-2"])}
    return Batch(views, labels)
