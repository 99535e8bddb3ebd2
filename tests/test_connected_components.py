"""Largest components: equal to SciPy's on noise, blobs, spirals and ties, with and without an early end."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from semiseg import connected_components
from semiseg.connected_components import component_roots, largest_by_roots, largest_components


def by_scipy(labels, classes):
    labels = labels.numpy()
    kept = np.zeros_like(labels)
    for image, result in zip(labels, kept, strict=True):
        for index in range(1, classes):
            numbered, count = ndimage.label(image == index, np.ones((3,) * image.ndim))
            if count:
                result[numbered == np.bincount(numbered.ravel())[1:].argmax() + 1] = index
    return torch.from_numpy(kept)


def spiral(side):
    """One arm, one pixel wide, that winds to the center and has no shortcut."""
    image = np.zeros((side, side), dtype=np.int64)
    y, x, dy, dx = 0, 0, 0, 1
    image[0, 0] = 1
    while True:
        for _ in range(2):
            ahead, beyond = (y + dy, x + dx), (y + 2 * dy, x + 2 * dx)
            inside = all(0 <= v < side for v in ahead)
            free = not all(0 <= v < side for v in beyond) or image[beyond] == 0
            if inside and free:
                break
            dy, dx = dx, -dy
        else:
            return image
        y, x = ahead
        image[y, x] = 1


@pytest.fixture(params=[False, True], ids=["early_end", "all_rounds"])
def rounds(request, monkeypatch):
    """All rounds are what an accelerator computes."""
    if request.param:
        monkeypatch.setattr(connected_components, "_settled", lambda new, old: False)


@pytest.fixture(params=[largest_components, largest_by_roots], ids=["host", "device"])
def largest(request):
    """On a host, and without waiting for a device."""
    return request.param


@pytest.mark.usefixtures("rounds")
@pytest.mark.parametrize("smoothing", [0, 1, 3])
@pytest.mark.parametrize("shape", [(5, 31, 20), (3, 64, 64), (2, 6, 17, 12), (1, 1, 9), (2, 1, 1)], ids=str)
def test_what_remains_is_what_scipy_keeps(shape, smoothing, largest):
    scores = np.random.default_rng(0).normal(size=(4, *shape))
    scores = ndimage.gaussian_filter(scores, (0, 0, *[smoothing] * (len(shape) - 1)))
    labels = torch.from_numpy(scores.argmax(0))
    expected = by_scipy(labels, 4)
    assert torch.equal(largest(labels, 4), expected)
    assert labels[0].numel() < 10 or not torch.equal(labels, expected)


@pytest.mark.usefixtures("rounds")
@pytest.mark.parametrize("density", [0.3, 0.4, 0.5])
def test_sparse_noise_with_its_winding_components_is_followed_to_the_end(density, largest):
    for seed in range(5):
        labels = torch.from_numpy((np.random.default_rng(seed).random((2, 96, 80)) < density).astype(np.int64))
        assert torch.equal(largest(labels, 2), by_scipy(labels, 2))


@pytest.mark.usefixtures("rounds")
@pytest.mark.parametrize("turns", range(4))
def test_a_spiral_is_one_component(turns, largest):
    labels = torch.from_numpy(spiral(61))[None].rot90(turns, (1, 2))
    assert labels.sum() > 1500
    assert torch.equal(largest(labels, 2), labels)
    assert (component_roots(labels)[labels > 0]).unique().numel() == 1


def test_of_equal_components_the_first_stays(largest):
    labels = torch.tensor([[[0, 0, 0, 1], [1, 1, 0, 1], [0, 0, 0, 0], [2, 0, 2, 0]]])
    expected = torch.tensor([[[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0], [2, 0, 0, 0]]])
    assert torch.equal(largest(labels, 3), expected)


def test_an_absent_class_keeps_nothing_of_another(largest):
    labels = torch.tensor([[[2, 0, 2, 2]]])
    assert torch.equal(largest(labels, 4), torch.tensor([[[0, 0, 2, 2]]]))


def test_images_do_not_touch_each_other():
    labels = torch.tensor([[[0, 0], [1, 1]], [[1, 1], [0, 0]]])
    assert torch.equal(component_roots(labels)[labels > 0], torch.tensor([2, 2, 0, 0]))
