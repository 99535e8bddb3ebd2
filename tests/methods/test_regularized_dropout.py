"""R-Drop: dropout alone tells the passes apart, and the divergence runs over the classes."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from semiseg.contract import MethodContract
from semiseg.errors import UserError
from semiseg.losses import supervised_loss, symmetric_kl
from semiseg.method import Ensemble, Progress, Task
from semiseg.methods.regularized_dropout import RegularizedDropout


def built(task, **config):
    return RegularizedDropout(task, RegularizedDropout.Config(**config))


def with_dropout_alone(method):
    """Evaluation mode except for dropout: no batch statistics, which would tie the images together."""
    method.eval()
    for module in method.modules():
        module.training = isinstance(module, _DropoutNd)
    return method


def reaches(module: nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


# The divergence


@pytest.mark.parametrize("space", [(5, 7), (3, 4, 5)])
def test_divergence_runs_over_the_classes(space):
    random = np.random.default_rng(0)
    a, b = random.normal(0, 2, (2, 2, 3, *space))
    p, q = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (a, b))
    expected = 0.5 * ((p * np.log(p / q)).sum(1).mean() + (q * np.log(q / p)).sum(1).mean())
    first, second = torch.from_numpy(a), torch.from_numpy(b)
    assert symmetric_kl(first, second).item() == pytest.approx(expected, rel=1e-5)
    assert symmetric_kl(second, first).item() == pytest.approx(expected, rel=1e-5)
    assert symmetric_kl(first, first).item() == 0
    shifted = first + 7 * torch.rand(2, 1, *space)  # a softmax over pixels would notice
    assert symmetric_kl(shifted, second).item() == pytest.approx(expected, rel=1e-5)
    columns, order = torch.randperm(space[-1]), torch.tensor([2, 0, 1])
    for permuted in (lambda z: z[..., columns], lambda z: z[:, order]):
        assert symmetric_kl(permuted(first), permuted(second)).item() == pytest.approx(expected, rel=1e-5)
    certain = (1e3 * first).float().requires_grad_()
    symmetric_kl(certain, second).backward()
    assert certain.grad.isfinite().all()


# One network


def test_two_passes_differ_by_their_dropout_alone(task, batch):
    method = built(task).train()
    assert method.losses(batch, Progress(100, 100))["divergence"].item() > 1e-6
    for module in method.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
    assert method.losses(batch, Progress(100, 100))["divergence"].item() == pytest.approx(0, abs=1e-9)


def test_both_passes_get_a_gradient_and_are_one_pass_over_the_images_twice(task, batch):
    method = built(task).train()
    seen = []
    method.members[0].register_forward_hook(lambda module, inputs, output: seen.append((*inputs, output.logits)))
    loss = method.losses(batch, Progress(100, 100))["divergence"]
    [(images, logits)] = seen
    assert torch.equal(images, torch.cat([batch.images(), batch.images()]))
    (gradient,) = torch.autograd.grad(loss, logits)
    for one_pass in gradient.chunk(2):
        labeled, unlabeled = batch.split(one_pass)
        assert not labeled.any()
        assert unlabeled.any()


@pytest.mark.parametrize("variant", ["single_network", "two_networks"])
def test_labeled_images_enter_the_divergence_only_where_asked_for(task, batch, variant):
    images = batch.images().requires_grad_()
    for on, expected in (("unlabeled", False), ("all", True)):
        images.grad = None
        method = with_dropout_alone(built(task, variant=variant, divergence_on=on))
        method.losses(batch, Progress(100, 100))["divergence"].backward()
        labeled, unlabeled = batch.split(images.grad)
        assert bool(labeled.any()) is expected
        assert unlabeled.any()


def test_one_network_is_supervised_by_the_mean_of_its_passes_and_two_by_one_loss_each(task, batch):
    single, double = built(task).eval(), built(task, variant="two_networks").eval()
    losses = single.losses(batch, Progress(0, 100))
    own = supervised_loss(single.members[0](batch.labeled()).logits, batch.labels).item()
    assert losses["supervised_1"].item() + losses["supervised_2"].item() == pytest.approx(own, rel=1e-4)
    losses = double.losses(batch, Progress(0, 100))
    for name, member in zip(("supervised_1", "supervised_2"), double.members, strict=True):
        expected = supervised_loss(member(batch.labeled()).logits, batch.labels).item()
        assert losses[name].item() == pytest.approx(expected, rel=1e-4)


def test_a_network_without_dropout_is_refused_before_the_training():
    task = Task(3, 2, (32, 32), "res2net50_unet_small")
    with pytest.raises(UserError, match="res2net50_unet_small") as refused:
        built(task)
    assert "\n" not in str(refused.value)
    built(task, variant="two_networks")


def test_dropout_of_nothing_is_no_dropout(task, monkeypatch):
    monkeypatch.setattr(RegularizedDropout, "network", lambda self: nn.Dropout(0.0))
    with pytest.raises(UserError, match=task.network):
        built(task)


def test_the_weight_is_ramped_up(task, batch):
    method = built(task, variant="two_networks", divergence=0.5, ramp_up=0.4).eval()

    def weighted(step):
        return method.losses(batch, Progress(step, 100))["divergence"].item()

    full = 0.5 * symmetric_kl(*(member(batch.unlabeled()).logits for member in method.members)).item()
    assert weighted(40) == weighted(100) == pytest.approx(full, rel=1e-3)
    assert weighted(20) == pytest.approx(full * math.exp(-5 * 0.25), rel=1e-3)


# Two networks


class TwoNetworks(RegularizedDropout):
    """The variant of SSL4MIS."""

    class Config(RegularizedDropout.Config):
        variant: str = "two_networks"


def test_two_networks_start_differently_and_both_learn_from_their_divergence(task, batch):
    method = built(task, variant="two_networks").train()
    first, second = method.members
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    method.losses(batch, Progress(100, 100))["divergence"].backward()
    assert reaches(first)
    assert reaches(second)


def test_two_networks_satisfy_the_contract_and_the_first_is_reported(task, tmp_path):
    contract = MethodContract("regularized_dropout", TwoNetworks, task.dims, tmp_path)
    contract.check_declared_number_of_networks_is_built()
    contract.check_losses_are_finite_and_every_parameter_gets_a_gradient()
    contract.check_saved_weights_predict_the_same()
    assert contract.trained.method.networks == 2
    contract.check_a_single_network_is_reported()
    assert isinstance(contract.trained.method.predictors()["ensemble"], Ensemble)
