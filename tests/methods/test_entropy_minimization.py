"""Entropy minimization: which pixels count, and how the entropy is measured."""

import math

import numpy as np
import pytest
import torch

from semiseg.losses import supervised_loss
from semiseg.method import Progress
from semiseg.methods.entropy_minimization import EntropyMinimization, normalized_entropy


def built(task, **config):
    return EntropyMinimization(task, EntropyMinimization.Config(**config))


def entropy_gradients(task, batch, **config):
    """The gradient of the entropy with respect to the labelled and to the unlabelled images."""
    images = batch.images().requires_grad_()
    method = built(task, **config).eval()  # no batch statistics, which would tie the images together
    method.losses(batch, Progress(100, 100))["entropy"].backward()
    return batch.split(images.grad)


def test_labeled_images_do_not_enter_the_entropy(task, batch):
    labeled, unlabeled = entropy_gradients(task, batch)
    assert not labeled.any()
    assert unlabeled.any()


def test_labeled_images_enter_the_entropy_where_asked_for(task, batch):
    labeled, unlabeled = entropy_gradients(task, batch, entropy_on="all")
    assert labeled.any()
    assert unlabeled.any()


def test_without_weight_only_the_labels_teach(task, batch):
    method = built(task, entropy=0.0).eval()
    losses = method.losses(batch, Progress(100, 100))
    expected = supervised_loss(method.model(batch.labeled()).logits, batch.labels)
    assert sum(losses.values()).item() == pytest.approx(expected.item(), rel=1e-5)
    sum(losses.values()).backward()
    gradients = torch.autograd.grad(expected, [*method.parameters()])
    pairs = zip(method.parameters(), gradients, strict=True)
    assert all(torch.allclose(p.grad, g, atol=1e-5) for p, g in pairs)


@pytest.mark.parametrize("on", ["unlabeled", "all"])
def test_the_entropy_is_that_of_the_chosen_images(task, batch, on):
    method = built(task, entropy_on=on).eval()
    logits = method.model(batch.images() if on == "all" else batch.unlabeled()).logits
    expected = 0.1 * normalized_entropy(logits).item()
    assert method.losses(batch, Progress(100, 100))["entropy"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("space", [(5, 7), (3, 4, 5)])
def test_entropy_lies_between_zero_and_one_for_any_number_of_classes(classes, space):
    random = np.random.default_rng(classes)
    z = random.normal(0, 2, (2, classes, *space))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    expected = -(p * np.log(p)).sum(1).mean() / np.log(classes)
    assert normalized_entropy(torch.from_numpy(z)).item() == pytest.approx(expected, rel=1e-5)
    assert normalized_entropy(torch.zeros(2, classes, *space)).item() == pytest.approx(1, rel=1e-6)
    certain = torch.zeros(2, classes, *space)
    certain[:, 1] = 1e4
    certain.requires_grad_()
    entropy = normalized_entropy(certain)
    entropy.backward()
    assert entropy.item() == 0
    assert not certain.grad.any()  # finite above all


def test_the_gradient_passes_both_factors():
    logits = torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    normalized_entropy(logits).backward()
    p = logits.detach().softmax(1)
    entropy = -(p * p.log()).sum(1, keepdim=True)
    torch.testing.assert_close(logits.grad, -p * (p.log() + entropy) / math.log(4) / 9)


def test_the_weight_is_ramped_up(task, batch):
    method = built(task, entropy=0.5, ramp_up=0.4).eval()

    def weighted(step):
        return method.losses(batch, Progress(step, 100))["entropy"].item()

    full = 0.5 * method.noted["normalized_entropy"].item() if weighted(40) else 0
    assert weighted(40) == weighted(100) == pytest.approx(full)
    assert weighted(20) == pytest.approx(full * math.exp(-5 * 0.25), rel=1e-4)
