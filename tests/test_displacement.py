"""Displacement: patches are where the grid says, and only what is chosen moves."""

import numpy as np
import pytest
import torch

from semiseg.displacement import displaced, exchanged, grid, nearest, patch_means

SPACES = {"even": (8, 12), "left_over": (9, 14), "short": (2, 8, 8), "volume": (8, 9, 8)}


def corners(space, parts):
    """First and last positions of every patch, in the order of their numbers."""
    numbers = [min(parts, n) for n in space]
    sides = [n // k for n, k in zip(space, numbers, strict=True)]
    return [
        tuple(slice(i * s, (i + 1) * s) for i, s in zip(index, sides, strict=True)) for index in np.ndindex(*numbers)
    ]


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_means_are_taken_over_the_patches(space):
    values = torch.rand(2, 3, *space)
    means = patch_means(values, 4)
    expected = [[values[i, :, *box].flatten(1).mean(1).numpy() for box in corners(space, 4)] for i in range(2)]
    np.testing.assert_allclose(means.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_a_patch_moves_to_its_place_and_nothing_else_changes(space):
    images, others = torch.rand(2, 3, 2, *space)
    before = images.clone()
    places, sources = torch.tensor([1, 0, 5]), torch.tensor([6, 2, 5])
    chosen = torch.tensor([True, False, True])
    result = displaced(images, places, others, sources, 4, chosen)
    expected, boxes = before.clone(), corners(space, 4)
    for i in (0, 2):
        expected[i, :, *boxes[places[i]]] = others[i, :, *boxes[sources[i]]]
    assert torch.equal(result, expected)
    assert torch.equal(images, before)


def test_labels_can_be_moved_as_well():
    labels = torch.arange(16).view(1, 1, 4, 4)
    moved = displaced(labels, torch.tensor([0]), labels, torch.tensor([15]), 4, torch.tensor([True]))
    assert moved.dtype == torch.long
    assert moved[0, 0, 0, 0] == 15
    assert grid(labels, 4).shape == (1, 4, 4, 1, 1, 1)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_the_patch_comes_from_the_surest_ones_by_the_least_divergence():
    own, other = 3 * torch.randn(2, 60, 16, 3, dtype=torch.float64)
    certainty, place = torch.rand(60, 16), torch.randint(16, (60,))
    chosen = nearest(own, place, other, certainty, 4)
    for i in range(60):
        p = softmax(own[i, place[i]].numpy())
        surest = np.argsort(-certainty[i].numpy())[:4]
        divergence = [(p * np.log(p / softmax(other[i, k].numpy()))).sum() for k in surest]
        assert chosen[i] == surest[int(np.argmin(divergence))]


@pytest.mark.parametrize("space", [(32, 32), (8, 16, 16)])
@pytest.mark.parametrize("near", [[True] * 6, [False] * 6, [True, False, False, True, False, True]])
def test_the_least_certain_patch_is_replaced_by_the_surest_or_the_nearest_of_the_sure(space, near):
    views, logits = list(torch.rand(2, 6, 1, *space)), list(3 * torch.randn(2, 6, 3, *space))
    changed = exchanged(views, logits, 4, 4, torch.tensor(near)).chunk(2)
    for own, other in ((0, 1), (1, 0)):
        sure = [patch_means(x.softmax(1).amax(1, keepdim=True), 4)[..., 0] for x in logits]
        place, surest = sure[own].argmin(1), sure[other].argmax(1)
        nearby = nearest(patch_means(logits[own], 4), place, patch_means(logits[other], 4), sure[other], 4)
        source = torch.where(torch.tensor(near), nearby, surest)
        new, old, others = (grid(v, 4).flatten(1, len(space)) for v in (changed[own], views[own], views[other]))
        for i in range(6):
            old[i, place[i]] = others[i, source[i]]
            assert torch.equal(new[i], old[i])
