"""CPS: the networks differ, teach each other, and no gradient crosses over."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

from semiseg.losses import supervised_loss
from semiseg.method import Progress, Task
from semiseg.methods.cps import CrossPseudoSupervision
from semiseg.networks import build_network


def test_networks_start_differently(task):
    method = CrossPseudoSupervision(task)
    pairs = zip(method.first.parameters(), method.second.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_both_networks_start_from_weights_as_small_as_every_other_methods(task):
    method = CrossPseudoSupervision(task)
    weights = [m.weight for m in method.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Conv3d)]
    assert len(weights) > 10
    assert all(
        w.abs().max() <= 1.001 * w[0].numel() ** -0.5 for w in weights
    )  # PyTorch's default; Kaiming's go far beyond


def test_without_a_ramp_the_weight_is_full_from_the_first_step(task, batch):
    ramped, unramped = (CrossPseudoSupervision.Config(cross=1.5, ramp_up=over) for over in (1, 0))
    late = CrossPseudoSupervision(task, ramped).eval().losses(batch, Progress(100, 100))["cross_1"]
    at_once = CrossPseudoSupervision(task, unramped).eval().losses(batch, Progress(0, 100))["cross_1"]
    assert at_once.item() == pytest.approx(late.item())
    assert at_once > 0


def test_each_network_learns_from_the_others_hard_labels_and_gives_no_gradient_back(task, batch):
    method = CrossPseudoSupervision(task).eval()
    losses = method.losses(batch, Progress(100, 100))
    losses["cross_1"].backward()
    assert all(p.grad is None for p in method.second.parameters())
    assert any(p.grad is not None and p.grad.any() for p in method.first.parameters())
    first, second = (net(batch.unlabeled()).logits for net in (method.first, method.second))
    assert losses["cross_1"].item() == pytest.approx(0.1 * cross_entropy(first, second.argmax(1)).item(), rel=1e-3)
    method.zero_grad()
    losses["cross_2"].backward()
    assert all(p.grad is None for p in method.first.parameters())
    assert losses["cross_2"].item() == pytest.approx(0.1 * cross_entropy(second, first.argmax(1)).item(), rel=1e-3)


def test_equal_networks_are_self_training(task, batch):
    method = CrossPseudoSupervision(task).eval()
    method.second.load_state_dict(method.first.state_dict())
    losses = method.losses(batch, Progress(50, 100))
    assert losses["cross_1"].item() == losses["cross_2"].item()
    assert method.noted["disagreement"] == 0


def test_both_networks_keep_a_pretrained_encoder(tmp_path):
    encoder = build_network("res2net50_unet", 3, 2, (64, 64)).encoder
    stem = {k: v for k, v in encoder.state_dict().items() if not k.startswith("full.")}
    save_file({k: torch.full_like(v, 0.5) for k, v in stem.items()}, tmp_path / "weights.safetensors")
    task = Task(3, 2, (32, 32), "res2net50_unet", weights=tmp_path / "weights.safetensors")
    method = CrossPseudoSupervision(task)
    for network in (method.first, method.second):
        assert (network.encoder.conv1[0].weight == 0.5).all()
    assert not torch.equal(method.first.head.weight, method.second.head.weight)


def test_both_networks_learn_from_the_labels(task, batch):
    method = CrossPseudoSupervision(task).eval()
    losses = method.losses(batch, Progress(0, 100))
    for number, network in enumerate((method.first, method.second), start=1):
        expected = supervised_loss(network(batch.labeled()).logits, batch.labels).item()
        assert losses[f"supervised_{number}"].item() == pytest.approx(expected, rel=1e-5)
    assert losses["supervised_1"].item() != pytest.approx(losses["supervised_2"].item(), rel=1e-4)
