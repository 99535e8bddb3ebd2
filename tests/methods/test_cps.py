"""CPS: the networks differ, teach each other, and no gradient crosses over."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from semiseg.method import Progress
from semiseg.methods.cps import CrossPseudoSupervision


def test_networks_start_differently(task):
    method = CrossPseudoSupervision(task)
    pairs = zip(method.first.parameters(), method.second.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_each_network_learns_from_the_others_hard_labels_and_gives_no_gradient_back(task, batch):
    method = CrossPseudoSupervision(task).eval()
    losses = method.losses(batch, Progress(100, 100))
    losses["cross_1"].backward()
    assert all(p.grad is None for p in method.second.parameters())
    assert any(p.grad is not None and p.grad.any() for p in method.first.parameters())
    first, second = (net(batch.unlabeled()).logits for net in (method.first, method.second))
    assert losses["cross_1"].item() == pytest.approx(0.1 * cross_entropy(first, second.argmax(1)).item(), rel=1e-3)
    assert losses["cross_2"].item() == pytest.approx(0.1 * cross_entropy(second, first.argmax(1)).item(), rel=1e-3)


def test_equal_networks_are_self_training(task, batch):
    method = CrossPseudoSupervision(task).eval()
    method.second.load_state_dict(method.first.state_dict())
    losses = method.losses(batch, Progress(50, 100))
    assert losses["cross_1"].item() == losses["cross_2"].item()
    assert method.noted["disagreement"] == 0
