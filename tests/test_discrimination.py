"""Discriminating patches and regions: the formulas, and that turned patches meet their partners."""

import math

import numpy as np
import pytest
import torch

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
    f, a = vectors.double().numpy(), clusters.double().numpy()
    r = np.zeros((2, 3, 4))
    for x in range(2):
        for k in range(3):
            mean = sum(a[x, k, i, j] * f[x, :, i, j] for i in range(3) for j in range(3)) / 9
            r[x, k] = mean / np.linalg.norm(mean)
    m = r.mean(0) / np.linalg.norm(r.mean(0), axis=1, keepdims=True)
    expected = 0.0
    for x in range(2):
        for k in range(3):
            e = np.exp(m @ r[x, k] / 0.2)
            expected -= math.log(e[k] / e.sum()) / 6
    assert region_loss(vectors, clusters, 0.2).item() == pytest.approx(expected, rel=1e-5)


def test_regions_that_are_alike_are_a_guess():
    same = units(1, 4, 1, 1).expand(2, 4, 3, 3)
    assert region_loss(same, torch.rand(2, 5, 3, 3).softmax(1), 0.2).item() == pytest.approx(math.log(5), rel=1e-5)


def test_an_even_chance_has_one_bit():
    assert binary_entropy(torch.full((2, 2), 0.5)).item() == pytest.approx(1.0)
    assert binary_entropy(torch.tensor([0.0, 1.0])).item() == pytest.approx(0.0, abs=1e-4)


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


@pytest.mark.parametrize("shifted", [False, True])
def test_patches_of_a_turned_view_meet_those_of_the_same_place(monkeypatch, shifted):
    """With a network that passes images on, both views of one image give the same patches, however moved."""
    module, seen = pixels(), []
    module.network.forward = lambda images: Output(images, (), (torch.cat([images, images**2, 1 - images], 1),))
    module.embedding = torch.nn.Identity()
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
