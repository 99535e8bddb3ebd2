"""Min-Max Similarity: all four terms teach everything they should."""

import math
from dataclasses import replace

import pytest
import torch

from semiseg.contract import tiny_task
from semiseg.losses import attraction_loss, one_hot, one_vs_rest, repulsion_loss, structure_loss
from semiseg.method import Progress
from semiseg.methods.min_max_similarity import MinMaxSimilarity


def reached(modules):
    return [any(p.grad is not None and bool(p.grad.any()) for p in m.parameters()) for m in modules]


@pytest.mark.parametrize(
    ("term", "heads"), [("consistency", None), ("maximize", "projectors"), ("minimize", "classifiers")]
)
def test_every_unsupervised_term_reaches_both_networks_and_their_heads(task, batch, term, heads):
    method = MinMaxSimilarity(task)
    method.losses(batch, Progress(0, 10))[term].backward()
    assert reached(method.segmenters) == [True, True]
    if heads:
        assert reached(getattr(method, heads)) == [True, True]


def test_each_network_learns_from_its_own_half_of_the_labels(task, batch):
    method = MinMaxSimilarity(task).eval()

    def supervised_gradients():
        method.zero_grad()
        method.losses(batch, Progress(0, 10))["supervised"].backward()
        return [torch.cat([p.grad.flatten() for p in s.parameters()]) for s in method.segmenters]

    before = supervised_gradients()
    batch.labels[0] = 2 - batch.labels[0]
    after = supervised_gradients()
    assert not torch.allclose(before[0], after[0])
    assert torch.equal(before[1], after[1])


@pytest.mark.parametrize("agreeing", [False, True])
def test_each_network_gets_the_whole_gradient_of_its_labels_and_no_other_where_both_agree(task, batch, agreeing):
    method = MinMaxSimilarity(task, MinMaxSimilarity.Config(maximize=0, minimize=0)).eval()
    if agreeing:
        method.segmenters[1].load_state_dict(method.segmenters[0].state_dict())
    losses = method.losses(batch, Progress(100, 100))
    loss = sum(losses.values()) if agreeing else losses["supervised"]
    for number, segmenter in enumerate(method.segmenters):
        images, labels = batch.labeled().chunk(2)[number], batch.labels.chunk(2)[number]
        maps, target = one_vs_rest(segmenter(images).logits), one_hot(labels, task.classes)[:, 1:]
        parameters = list(segmenter.parameters())
        actual = torch.autograd.grad(loss, parameters, retain_graph=True)
        expected = torch.autograd.grad(structure_loss(maps, target, method.window), parameters)
        largest = max(e.abs().max() for e in expected)
        for a, e in zip(actual, expected, strict=True):
            torch.testing.assert_close(a / largest, e / largest, rtol=1e-3, atol=1e-5)


def test_consistency_rises_along_its_ramp(task, batch):
    method = MinMaxSimilarity(task, MinMaxSimilarity.Config(ramp_up=0.5)).eval()
    early, late = (method.losses(batch, Progress(step, 100))["consistency"].item() for step in (0, 50))
    assert early / late == pytest.approx(math.exp(-5), rel=1e-3)


def test_consistency_gives_each_network_only_the_gradient_of_its_own_prediction(task, batch):
    method = MinMaxSimilarity(task).eval()
    seen = []
    for segmenter in method.segmenters:
        segmenter.register_forward_hook(lambda m, i, out: seen.append(out.logits))
    loss = method.losses(batch, Progress(0, 10))["consistency"]
    own, other = torch.autograd.grad(loss, seen)
    assert own.any()
    assert other.any()
    assert not own[:1].any()  # labelled images take no part in it


@pytest.mark.parametrize(("size", "window"), [((512, 288), 31), ((256, 256), 21), ((64, 64), 5), ((16, 16), 3)])
def test_boundaries_are_weighted_over_the_same_part_of_an_image_at_any_size(size, window):
    assert MinMaxSimilarity(replace(tiny_task(2), size=size)).window == window


def test_terms_read_the_maps_that_they_are_about(task, batch):
    """Features attract at the same place of unlabelled images and repel between the labelled ones."""
    method = MinMaxSimilarity(task, MinMaxSimilarity.Config(maximize=2.0, minimize=3.0)).eval()
    calls, seen = [], []
    for segmenter in method.segmenters:
        segmenter.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    method.contrast = lambda heads, maps, loss: calls.append((heads, maps, loss)) or torch.ones(())
    losses = method.losses(batch, Progress(0, 10))
    shown = [torch.cat([half, batch.unlabeled("strong")]) for half in batch.labeled().chunk(2)]
    assert all(torch.equal(a, b) for a, b in zip(seen, shown, strict=True))
    maps = [one_vs_rest(net(x).logits) for net, x in zip(method.segmenters, shown, strict=True)]
    (attracting, free, attraction), (repelling, own, repulsion) = calls
    assert (attracting, attraction) == (method.projectors, attraction_loss)
    assert (repelling, repulsion) == (method.classifiers, repulsion_loss)
    for k in range(2):
        torch.testing.assert_close(free[k], maps[k][1:])
        torch.testing.assert_close(own[k], maps[k][:1])
    assert (losses["maximize"].item(), losses["minimize"].item()) == (2, 3)
