"""Discriminating patches and regions: the formulas, and that turned patches meet their partners."""

import math

import numpy as np
import pytest
import torch

from regions import bits, told_apart
from semiseg.contract import tiny_task
from semiseg.discrimination import (
    Pixels,
    binary_entropy,
    discrimination_loss,
    field_of_view,
    region_loss,
    region_probabilities,
    rolled,
    turned,
)
from semiseg.networks import Output, build_network


def units(*shape, dim=1):
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(0)), dim=dim)


def test_patches_are_told_apart_as_the_formula_says():
    first, second = units(6, 4).chunk(2)
    x = torch.cat([first, second]).double().numpy()
    number, expected = len(x), 0.0
    for i in range(number):
        partner = (i + number // 2) % number
        e = [math.exp(x[i] @ x[j] / 0.1) if j != i else 0.0 for j in range(number)]
        p = np.array(e) / sum(e)
        expected -= math.log(p[partner])
        expected -= sum(math.log(1 - p[j]) for j in range(number) if j not in (i, partner))
    assert discrimination_loss(first, second, 0.1).item() == pytest.approx(expected / number, rel=1e-5)


def test_rows_that_are_looked_at_get_no_gradient():
    first, second = units(4, 8).requires_grad_(), units(4, 8, dim=0)
    discrimination_loss(first, second, 0.1).backward()
    anchors = first.detach().clone().requires_grad_()
    everything = torch.cat([first.detach(), second])
    scores = anchors @ everything.T / 0.1
    scores = scores.masked_fill(torch.eye(4, 8, dtype=torch.bool), -1e9).log_softmax(1)
    own = scores[range(4), range(4, 8)].sum()
    others = torch.log1p(-scores.exp().clamp(max=1 - 1e-6)).scatter(1, torch.arange(4, 8)[:, None], 0.0).sum()
    (-(own + others) / 8).backward()
    torch.testing.assert_close(first.grad, anchors.grad)


def test_regions_are_told_apart_as_the_formula_says():
    vectors, clusters = units(2, 4, 3, 3), torch.rand(2, 3, 3, 3).softmax(1)
    assert region_loss(vectors, clusters, 0.2).item() == pytest.approx(told_apart(vectors, clusters, 0.2), rel=1e-5)


def test_regions_that_are_alike_are_a_guess():
    same = units(1, 4, 1, 1).expand(2, 4, 3, 3)
    assert region_loss(same, torch.rand(2, 5, 3, 3).softmax(1), 0.2).item() == pytest.approx(math.log(5), rel=1e-5)


def test_an_even_chance_has_one_bit():
    assert binary_entropy(torch.full((2, 2), 0.5)).item() == pytest.approx(1.0)
    assert binary_entropy(torch.tensor([0.0, 1.0])).item() == pytest.approx(0.0, abs=1e-4)
    uneven = torch.tensor([0.2, 0.9])
    assert binary_entropy(uneven).item() == pytest.approx(bits(uneven), rel=1e-5)
    assert bits(uneven[:1]) == pytest.approx(0.7219, abs=1e-4)  # where 4 p (1 − p) is 0.64


def test_all_eight_turns_differ_and_can_be_undone():
    image = torch.rand(1, 1, 6, 6)
    moves = torch.tensor([[bool(code >> bit & 1) for code in range(8)] for bit in range(3)])
    eight = turned(image.expand(8, 1, 6, 6), moves)
    assert len({tuple(t.flatten().tolist()) for t in eight}) == 8
    assert torch.equal(turned(eight, moves, back=True), image.expand(8, 1, 6, 6))


def test_pixels_lean_to_the_regions_of_their_own_image_as_the_formula_says():
    vectors, clusters = units(2, 4, 3, 3), torch.rand(2, 3, 3, 3, generator=torch.Generator().manual_seed(1)).softmax(1)
    f, a = vectors.double().numpy(), clusters.double().numpy()
    expected = np.zeros((2, 3, 3, 3))
    for x in range(2):
        means = [sum(a[x, k, i, j] * f[x, :, i, j] for i in range(3) for j in range(3)) for k in range(3)]
        r = [mean / np.linalg.norm(mean) for mean in means]
        for i in range(3):
            for j in range(3):
                e = [math.exp(r[k] @ f[x, :, i, j] / 0.2) for k in range(3)]
                expected[x, :, i, j] = np.array(e) / sum(e)
    found = region_probabilities(vectors, clusters, 0.2)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)
    alone = region_probabilities(vectors[1:], clusters[1:], 0.2)
    torch.testing.assert_close(alone, found[1:])


def pixels(clusters=5):
    task = tiny_task(2)
    network = build_network(task.network, task.channels, task.classes, task.size)
    return Pixels(network, task.channels, task.size, 6, clusters)


def test_clusters_share_every_pixel_and_vectors_have_unit_length():
    vectors, clusters = pixels()(torch.rand(2, 1, 32, 32))
    assert vectors.shape == (2, 6, 32, 32)
    assert clusters.shape == (2, 5, 32, 32)
    torch.testing.assert_close(clusters.sum(1), torch.ones(2, 32, 32))
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2, 32, 32))


def passing(module):
    """Let a network pass three functions of an image's pixels on as its features, and these as vectors."""
    module.network.forward = lambda images: Output(images, (), (torch.cat([images, images**2, 1 - images], 1),))
    module.embedding = torch.nn.Identity()
    return module


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=0)


def mean_directions(image):
    """Of the three functions of an image (32, 32), in 4 × 4 patches of 8 × 8 pixels: (3, 4, 4)."""
    vectors = unit(np.stack([image, image**2, 1 - image]))
    return unit(vectors.reshape(3, 4, 8, 4, 8).mean((2, 4)))


def test_a_mixture_of_two_images_is_told_by_the_same_mixture_of_their_patches(monkeypatch):
    module, seen, shown = passing(pixels()), [], []
    inner = module.network.forward
    module.network.forward = lambda images: shown.append(images) or inner(images)
    monkeypatch.setattr("semiseg.discrimination.discrimination_loss", lambda a, b, t: seen.append((a, b)) or a.sum())
    images, others = torch.rand(4, 1, 32, 32), torch.rand(4, 1, 32, 32)
    module.compare(images, others, 4, 0.1)
    x, mixed = images[:, 0].double().numpy(), shown[0][8:, 0].double().numpy()
    found, target = (rows.double().numpy().reshape(4, 4, 4, 3).transpose(0, 3, 1, 2) for rows in seen[1])
    shares = []
    for i in range(4):
        difference = x[i] - x[i - 1]
        share = ((mixed[i] - x[i - 1]) * difference).sum() / (difference**2).sum()
        np.testing.assert_allclose(mixed[i], share * x[i] + (1 - share) * x[i - 1], atol=1e-5)
        patches = share * mean_directions(x[i]) + (1 - share) * mean_directions(x[i - 1])
        np.testing.assert_allclose(target[i], unit(patches), atol=1e-5)
        np.testing.assert_allclose(found[i], mean_directions(mixed[i]), atol=1e-5)
        shares.append(share)
    assert 0.2 <= min(shares) < max(shares) <= 0.8


@pytest.mark.parametrize("shifted", [False, True])
def test_what_is_known_of_pixels_is_of_the_two_views_and_not_of_mixtures(shifted):
    module = passing(pixels())
    first, second = torch.rand(6, 1, 32, 32), torch.rand(6, 1, 32, 32)
    known = module.compare(first, second, 4, 0.1, shifted)
    images = torch.cat([first, turned(second, known.moves)])
    torch.testing.assert_close(known.features[:, :1], images)
    torch.testing.assert_close(known.vectors, torch.nn.functional.normalize(known.features, dim=1))


@pytest.mark.parametrize("shifted", [False, True])
def test_patches_of_a_turned_view_meet_those_of_the_same_place(monkeypatch, shifted):
    """With a network that passes images on, both views of one image give the same patches, however moved."""
    module, seen = passing(pixels()), []
    monkeypatch.setattr("semiseg.discrimination.discrimination_loss", lambda a, b, t: seen.append((a, b)) or a.sum())
    images = torch.rand(6, 1, 32, 32)
    module.compare(images, images, 4, 0.1, shifted)
    torch.testing.assert_close(*seen[0])
    assert not torch.allclose(*seen[1])


def test_shifted_views_show_the_network_every_place_anywhere():
    module, seen = pixels(), []
    inner = module.network.forward
    module.network.forward = lambda images: seen.append(images) or inner(images)
    images = torch.zeros(6, 1, 32, 32)
    images[:, :, 0, 0] = 1
    for shifted in (False, True):
        module.compare(images, images, 4, 0.1, shifted)
    still, moved = (shown[:6].flatten(1).argmax(1) for shown in seen)
    assert still.unique().tolist() == [0]
    assert len(moved.unique()) > 3


def test_what_was_rolled_is_rolled_back():
    images, offsets = torch.rand(3, 2, 4, 5, 6), torch.tensor([[1, 2, 3], [0, 0, 0], [3, 4, 5]])
    there = rolled(images, offsets)
    assert torch.equal(there[0, :, 1, 2, 3], images[0, :, 0, 0, 0])
    assert torch.equal(rolled(there, -offsets), images)


def test_features_of_a_coarse_network_are_those_of_pixels():
    module = pixels()
    module.network.forward = lambda images: Output(images, (), (torch.rand(len(images), 16, 8, 8),))
    module.embedding, module.clustering = (torch.nn.Conv2d(16, n, 1) for n in (6, 5))
    vectors, clusters = module(torch.rand(2, 1, 32, 32))
    assert vectors.shape[2:] == clusters.shape[2:] == (32, 32)


def test_what_is_dark_in_every_channel_is_outside_and_so_is_a_margin_in_plane():
    images = torch.full((2, 2, 3, 9, 9), 0.5)
    images[0, :, 1, 4, 4] = 0.05
    images[1, 0, 1, 4, 4] = 0.05  # one channel alone
    expected = torch.ones(2, 1, 3, 9, 9)
    expected[0, 0, 1, 2:7, 2:7] = 0
    assert torch.equal(field_of_view(images, 0.08, 2), expected)
    assert torch.equal(field_of_view(images[:, :, 1], 0.08, 2), expected[:, :, 1])
    assert field_of_view(torch.zeros(1, 1, 4, 4), 0, 2).min() == 1
