"""Local Discrimination: its formulas, and that turned patches meet their partners."""

import math

import numpy as np
import pytest
import torch

from semiseg.contract import tiny_task
from semiseg.method import Batch, Progress
from semiseg.methods.local_discrimination import (
    LocalDiscrimination,
    binary_entropy,
    discrimination_loss,
    region_loss,
    turned,
)
from semiseg.networks import Output


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


def test_patches_of_a_turned_view_meet_those_of_the_same_place(monkeypatch):
    """With a network that passes images on, both views of one image give the same patches, however turned."""
    method = LocalDiscrimination(tiny_task(2), LocalDiscrimination.Config(patches=4))
    method.model.forward = lambda images: Output(images, (), (torch.cat([images, images**2, 1 - images], 1),))
    method.embedding = torch.nn.Identity()
    seen = []
    monkeypatch.setattr(
        "semiseg.methods.local_discrimination.discrimination_loss", lambda a, b, t: seen.append((a, b)) or a.sum()
    )
    images = torch.rand(6, 1, 32, 32)
    batch = Batch({"strong": images, "strong-2": images}, torch.zeros(0, 32, 32, dtype=torch.long))
    method.patch_losses(batch, Progress(0, 1))
    torch.testing.assert_close(*seen[0])
    assert not torch.allclose(*seen[1])


def test_the_class_layer_is_not_handed_on():
    for handed, parts in (("encoder", {"encoder"}), ("all", {"encoder", "decoder"})):
        method = LocalDiscrimination(tiny_task(2), LocalDiscrimination.Config(handed=handed))
        assert {name.partition(".")[0] for name in method.handed_on()} == parts
