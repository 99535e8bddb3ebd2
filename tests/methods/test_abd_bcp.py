"""ABD on BCP: who sees which mixture, what a region weighs, what is exchanged, and where the second network begins."""

import numpy as np
import pytest
import torch

from semiseg.displacement import exchanged
from semiseg.losses import dice_loss, one_hot
from semiseg.method import Batch, Progress
from semiseg.methods.abd_bcp import DisplacedCopyPaste

STEP = Progress(0, 75)


@pytest.fixture
def method(task):
    method = DisplacedCopyPaste(task).eval()
    mask = method.mask(torch.zeros(2, *task.size))
    method.mask = lambda labels: mask
    return method


@pytest.fixture
def larger(task):
    """Four labelled and four unlabelled images, of which a step makes two mixtures either way."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(8, task.channels, *task.size, generator=generator)
    labels = torch.randint(task.classes, (4, *task.size), generator=generator)
    return Batch({"plain": images, "strong": images.square()}, labels)


def shown(network):
    seen = []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    return seen


def regional_loss(logits, target, mask):
    """½ (cross-entropy + Dice) where the mask is set, by NumPy."""
    p = np.exp(logits.double().numpy())
    p /= p.sum(1, keepdims=True)
    kept = np.broadcast_to(mask.numpy() > 0, (len(p), 1, *p.shape[2:]))[:, 0]
    p, q = (np.moveaxis(v, 1, -1)[kept] for v in (p, target.numpy()))
    dice = (2 * (p * q).sum(0) + 1e-5) / ((p**2).sum(0) + (q**2).sum(0) + 1e-5)
    return 0.5 * (-(q * np.log(p)).sum(1).mean() + (1 - dice).mean())


def test_each_network_sees_its_own_view_mixed_both_ways_and_both_see_what_was_exchanged(batch, method):
    first, second = shown(method.student), shown(method.second)
    method.losses(batch, STEP)
    inside = method.mask(None) == 0
    for seen, view in ((first, "plain"), (second, "strong")):
        labelled_inside, labelled_outside, _ = seen
        labeled, unlabeled = batch.labeled(view), batch.unlabeled(view)
        assert torch.equal(labelled_inside, torch.where(inside, labeled[:1], unlabeled[:1]))
        assert torch.equal(labelled_outside, torch.where(inside, unlabeled[-1:], labeled[-1:]))
    assert torch.equal(first[2], second[2])
    assert len(first[2]) == 4


def test_labelled_regions_count_fully_and_pseudo_labelled_ones_by_half_however_many_images(task, larger, method):
    for parameter in method.teacher.parameters():  # opinions of its own
        parameter.data.mul_(-1.5)
    losses, mask = method.losses(larger, STEP), method.mask(None)
    with torch.no_grad():
        for number, (network, view) in enumerate(((method.student, "plain"), (method.second, "strong")), start=1):
            truth, pseudo = one_hot(larger.labels, task.classes), method.pseudo_labels(larger.unlabeled(view))
            labeled, unlabeled = larger.labeled(view), larger.unlabeled(view)
            x = network(mask * unlabeled[:2] + (1 - mask) * labeled[:2]).logits
            y = network(mask * labeled[2:] + (1 - mask) * unlabeled[2:]).logits
            true = regional_loss(x, truth[:2], 1 - mask) + regional_loss(y, truth[2:], mask)
            false = regional_loss(x, pseudo[:2], mask) + regional_loss(y, pseudo[2:], 1 - mask)
            assert losses[f"supervised_{number}"].item() == pytest.approx(true, rel=1e-4)
            assert losses[f"pseudo_{number}"].item() == pytest.approx(0.5 * false, rel=1e-4)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_mixtures_get_the_nearest_of_the_surest_patches_or_the_surest(batch, method, probability):
    method.config = method.Config(probability=probability)
    first, second = shown(method.student), shown(method.second)
    method.losses(batch, STEP)
    with torch.no_grad():
        mixtures = [torch.cat(seen[:2]) for seen in (first, second)]
        logits = [n(x).logits for n, x in zip((method.student, method.second), mixtures, strict=True)]
    near = torch.full((len(mixtures[0]),), bool(probability))
    assert torch.equal(first[2], exchanged(mixtures, logits, 4, 4, near))


def test_networks_agree_by_the_dice_of_each_others_labels_without_a_gradient_to_them(task, batch, method):
    seen = []
    for network in (method.student, method.second):
        network.register_forward_hook(lambda module, inputs, output: seen.append(output.logits))
    losses = method.losses(batch, STEP)
    first, second = torch.cat(seen[:2]), torch.cat(seen[2:4])
    torch.testing.assert_close(losses["cross_1"], dice_loss(first.softmax(1), one_hot(second.argmax(1), task.classes)))
    expected = dice_loss(seen[5].softmax(1), one_hot(seen[4].argmax(1), task.classes))
    torch.testing.assert_close(losses["cross_displaced_2"], expected)
    (losses["cross_2"] + losses["cross_displaced_2"]).backward()
    assert all(p.grad is None for p in method.student.parameters())
    assert any(p.grad is not None and p.grad.any() for p in method.second.parameters())


def test_the_second_network_begins_where_the_first_has_come_to(task, batch, method):
    pretraining, training = method.stages()
    pretraining.losses(batch, Progress(0, 25, "pretraining"))["supervised"].backward()
    assert pretraining.trains == [method.student]
    assert all(p.grad is None for p in method.second.parameters())
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.add_(1.0)
    training.begin()
    for one, other in zip(method.student.parameters(), method.second.parameters(), strict=True):
        assert torch.equal(one, other)
