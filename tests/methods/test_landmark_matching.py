"""Landmark Matching: correlation and averages against sums over windows, and a marked place is found again."""

import numpy as np
import pytest
import torch
from torch import nn

from regions import listen
from semiseg.discrimination import Pixels
from semiseg.method import Batch, Progress, Task
from semiseg.methods.landmark_matching import LandmarkMatching, Similarity, Templates, averaged, bell, correlation
from semiseg.tasks.localization import peaks


def test_correlation_is_that_of_every_window():
    generator = torch.Generator().manual_seed(0)
    images, templates = torch.rand(2, 3, 9, 11, generator=generator), torch.rand(2, 3, 5, 5, generator=generator)
    found = correlation(images, templates)
    padded = torch.nn.functional.pad(images, [2] * 4, mode="replicate")
    for b, k, y, x in [(0, 0, 0, 0), (1, 1, 4, 5), (0, 1, 8, 10), (1, 0, 3, 9)]:
        window = padded[b, :, y : y + 5, x : x + 5].flatten()
        expected = np.corrcoef(window, templates[k].flatten())[0, 1]
        assert found[b, k, y, x].item() == pytest.approx(expected, abs=1e-4)


def test_averages_are_weighted_sums_of_neighbours_as_unit_vectors():
    vectors = torch.randn(1, 4, 12, 12, generator=torch.Generator().manual_seed(0))
    found = averaged(vectors, bell(1.5))
    mean = torch.zeros(4)
    for dy in range(-3, 4):
        for dx in range(-3, 4):
            mean += np.exp(-(dy**2 + dx**2) / (2 * 1.5**2)) * vectors[0, :, 6 + dy, 5 + dx]
    assert torch.allclose(found[0, :, 6, 5], mean / mean.norm(), atol=1e-5)
    assert torch.allclose(found.norm(dim=1), torch.ones(1, 12, 12))


class Coloured(nn.Module):
    """Takes an image's channels for its vectors."""

    def forward(self, images):
        return torch.nn.functional.normalize(images - 0.5, dim=1), None


@pytest.mark.parametrize("by", ["vectors", "templates"])
def test_a_marked_place_is_found_in_a_shifted_image(by):
    scene = torch.rand(1, 4, 60, 60, generator=torch.Generator().manual_seed(1))
    scene = torch.nn.functional.avg_pool2d(scene, 3, 1, 1) * 3 - 1
    marked = torch.tensor([[20.0, 31.0], [40.0, 14.0]])
    support, other = scene[..., :48, :48], scene[..., 5:53, 3:51]
    points = 2 * (marked + 0.5) / 48 - 1
    matcher = Similarity(Coloured(), support, points, bell(1.5)) if by == "vectors" else Templates(support, points, 9)
    logits = matcher(other).logits
    assert logits.shape == (1, 3, 48, 48)
    found = ((peaks(logits[0, 1:]) + 1) * 48 - 1) / 2
    assert torch.allclose(found, marked - torch.tensor([5.0, 3.0]), atol=0.3)


def support_batch(labels):
    images = torch.rand(1, 1, 32, 32)
    return images, Batch({"plain": images}, labels)


def test_the_labelled_image_is_kept_as_it_is_and_learns_nothing():
    torch.manual_seed(0)
    method = LandmarkMatching(Task(1, 3, (32, 32), "unet_small"))
    points = torch.tensor([[[0.1, 0.2], [-0.5, 0.4]]])
    image, support = support_batch(points)
    others = Batch({name: torch.rand(4, 1, 32, 32) for name in ("weak", "strong")}, torch.zeros(0, 2, 2))
    for step, drawn in ((0, support), (1, support_batch(points + 0.1)[1])):
        streams = {"support": drawn, "others": others}
        batch = Batch({}, torch.zeros(1, 2, 2), draw=streams.__getitem__)
        losses = method.losses(batch, Progress(step, 10))
    assert torch.equal(method.image, image)
    assert torch.equal(method.points, points[0])
    sum(losses.values()).backward()
    assert isinstance(method.pixels, Pixels)
    assert all(p.grad is None for p in method.pixels.clustering.parameters())


def test_patches_of_the_two_views_are_compared_which_are_never_turned():
    """Turned or mirrored, a landmark would lie where its partner on the other side does."""
    method = LandmarkMatching(Task(1, 3, (32, 32), "unet_small"), LandmarkMatching.Config(patches=4, temperature=0.3))
    _, support = support_batch(torch.tensor([[[0.1, 0.2], [-0.5, 0.4]]]))
    others = Batch({name: torch.rand(4, 1, 32, 32) for name in ("weak", "strong")}, torch.zeros(0, 2, 2))
    calls = listen(method.pixels)
    streams = {"support": support, "others": others}
    method.losses(Batch({}, torch.zeros(1, 2, 2), draw=streams.__getitem__), Progress(0, 10))
    ((given, _),) = calls
    assert torch.equal(given["first"], others.images("weak"))
    assert torch.equal(given["second"], others.images("strong"))
    assert (given["patches"], given["temperature"], given["turns"]) == (4, 0.3, False)


def test_windows_are_as_wide_as_the_longer_side_says_and_all_are_read_out():
    method = LandmarkMatching(Task(1, 3, (32, 64), "unet_small"))
    read = method.predictors()
    assert list(read) == ["vectors", "even", "pixels", "templates"]
    offsets = np.arange(-4, 5)  # two sigma of a 32nd of 64 pixels
    expected = np.exp(-((offsets / 2) ** 2) / 2)
    np.testing.assert_allclose(read["vectors"].window, expected / expected.sum(), rtol=1e-5)
    np.testing.assert_allclose(read["even"].window, np.full(9, 1 / 9), rtol=1e-5)
    vectors = torch.nn.functional.normalize(torch.randn(1, 4, 6, 6), dim=1)
    assert torch.equal(averaged(vectors, read["pixels"].window), torch.nn.functional.normalize(vectors, dim=1))
