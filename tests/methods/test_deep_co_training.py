"""Deep co-training: where gradients flow, what fools a network, and what a rotation keeps."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from semiseg.contract import MethodContract
from semiseg.losses import jensen_shannon, kl_consistency
from semiseg.method import Batch, Ensemble, Progress
from semiseg.methods.deep_co_training import DeepCoTraining, adversarial, draw_turns, rotate
from semiseg.networks import Output


def built(task, **config):
    return DeepCoTraining(task, DeepCoTraining.Config(**config))


def passes(module: nn.Module) -> list[tuple[torch.Tensor, Output]]:
    """Records the images and the output of every pass of a network."""
    seen: list[tuple[torch.Tensor, Output]] = []
    module.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    return seen


def reached(method: DeepCoTraining, loss: torch.Tensor) -> list[bool]:
    """Which networks a loss reaches."""
    method.zero_grad()
    loss.backward(retain_graph=True)
    return [any(p.grad is not None and bool(p.grad.any()) for p in net.parameters()) for net in method.learners]


# Agreement


@pytest.mark.parametrize("space", [(5, 7), (3, 4, 5)])
def test_agreement_is_the_jensen_shannon_divergence_over_classes(space):
    random = np.random.default_rng(0)
    a, b = random.normal(0, 2, (2, 2, 3, *space))
    p, q = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (a, b))

    def entropy(x):
        return -(x * np.log(x)).sum(1)

    expected = (entropy((p + q) / 2) - 0.5 * (entropy(p) + entropy(q))).mean()
    first, second = torch.from_numpy(a), torch.from_numpy(b)
    assert jensen_shannon(first, second).item() == pytest.approx(expected, rel=1e-5)
    assert jensen_shannon(first, first).item() == pytest.approx(0, abs=1e-6)
    opposed = torch.zeros(1, 3, *space)
    opposed[:, 0] = 1e3
    opposed.requires_grad_()
    bound = jensen_shannon(opposed, opposed.roll(1, 1))
    bound.backward()
    assert bound.item() == pytest.approx(math.log(2), rel=1e-6)
    assert opposed.grad.isfinite().all()


def test_agreement_teaches_both_networks_on_unlabeled_images_alone(task, batch):
    method = built(task).eval()
    seen = [passes(learner) for learner in method.learners]
    losses = method.losses(batch, Progress(100, 100))
    assert reached(method, losses["agreement"]) == [True, True]
    logits = [own[0][1].logits for own in seen]
    expected = 0.1 * jensen_shannon(*(batch.split(own)[1] for own in logits)).item()
    assert losses["agreement"].item() == pytest.approx(expected, rel=1e-5)
    for gradient in torch.autograd.grad(losses["agreement"], logits):
        labeled, unlabeled = batch.split(gradient)
        assert not labeled.any()
        assert unlabeled.any()


def test_equal_networks_agree(task, batch):
    method = built(task).eval()
    method.learners[1].load_state_dict(method.learners[0].state_dict())
    assert method.losses(batch, Progress(100, 100))["agreement"].item() == pytest.approx(0, abs=1e-7)


def test_networks_start_differently(task):
    pairs = zip(*(learner.parameters() for learner in built(task).learners), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


# View difference


def test_adversarial_images_follow_the_sign_of_the_gradient(task):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 1, *task.size, generator=generator).requires_grad_()
    weight = torch.tensor([0.5, -1.0, 2.0]).view(1, 3, *[1] * task.dims).requires_grad_()
    target = torch.randint(3, (2, *task.size), generator=generator)
    result = adversarial(x, weight * x, target, 0.1)
    w, y = weight.detach().numpy(), np.moveaxis(np.eye(3)[target.numpy()], -1, 1)
    p = np.exp(w * x.detach().numpy())
    p /= p.sum(1, keepdims=True)
    gradient = ((p - y) * w).sum(1, keepdims=True)
    expected = np.clip(x.detach().numpy() + 0.1 * np.sign(gradient), 0, 1)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-6)
    assert not result.requires_grad
    assert x.grad is None
    assert weight.grad is None


def test_adversarial_images_do_not_depend_on_the_precision_of_the_networks():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 4, 4096, generator=generator).requires_grad_()
    logits = torch.randn(2, 3, 4, generator=generator) @ x
    target = torch.randint(3, (2, 4096), generator=generator)
    expected = adversarial(x, logits, target, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(adversarial(x, logits, target, 0.1), expected)


def test_each_network_resists_what_fools_the_other_one(task, batch):
    method = built(task, epsilon=0.05).eval()
    seen = [passes(learner) for learner in method.learners]
    loss = method.losses(batch, Progress(100, 100))["difference"].item()
    (true_1, fooling_2), (true_2, fooling_1) = ([(images, o.logits) for images, o in own] for own in seen)
    expected = 0.0
    for k, (true, fooling) in enumerate(((true_1, fooling_1), (true_2, fooling_2))):
        change = (fooling[0] - batch.images()).abs()
        assert change.max() <= 0.05 + 1e-6
        assert fooling[0].min() >= 0
        assert fooling[0].max() <= 1
        target = torch.cat([batch.labels, true[1][2:].argmax(1)])
        with torch.no_grad():
            costs = [
                nn.functional.cross_entropy(method.learners[k](x).logits, target, reduction="none").flatten(1).mean(1)
                for x in (batch.images(), fooling[0])
            ]
        assert (costs[1] > costs[0]).all()  # every one of these images is harder for this very network
        expected += kl_consistency(fooling[1], true[1].softmax(1)).item()
    assert loss == pytest.approx(0.1 * 0.5 * expected, rel=1e-4)


def test_view_difference_trains_both_networks_but_not_through_the_true_images(task, batch):
    method = built(task)
    seen = [passes(learner) for learner in method.learners]
    losses = method.losses(batch, Progress(100, 100))
    assert [len(own) for own in seen] == [2, 2]
    assert reached(method, losses["difference"]) == [True, True]
    true, fooling = ([own[k][1].logits for own in seen] for k in (0, 1))
    assert torch.autograd.grad(losses["difference"], true, retain_graph=True, allow_unused=True) == (None, None)
    assert all(g.any() for g in torch.autograd.grad(losses["difference"], fooling))


def test_looking_for_adversarial_images_leaves_no_gradient_behind(task, batch):
    method = built(task)
    method.losses(batch, Progress(100, 100))
    assert all(p.grad is None for p in method.parameters())
    assert batch.images().grad is None
    assert not batch.images().requires_grad


def test_running_statistics_are_those_of_true_images(task, batch):
    method = built(task)
    untouched = copy.deepcopy(method.learners)
    torch.manual_seed(0)
    method.losses(batch, Progress(100, 100))
    torch.manual_seed(0)
    for learner in untouched:
        learner(batch.images())
    other = dict(untouched.named_buffers())
    for name, buffer in method.learners.named_buffers():
        torch.testing.assert_close(buffer, other[name])
    assert all(m.track_running_stats for m in method.modules() if isinstance(m, nn.BatchNorm2d))


def test_losses_and_gradients_are_finite_under_bfloat16(batch, task):
    if task.dims == 3:
        pytest.skip("bfloat16 is never used in 3D on a CPU")
    method = built(task)
    seen = passes(method.learners[0])
    with torch.autocast("cpu", torch.bfloat16):
        losses = method.losses(batch, Progress(100, 100))
    assert all(p.grad is None for p in method.parameters())
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in method.parameters())
    images = seen[1][0]
    assert images.dtype == torch.float32
    moved = ((images - batch.images()).abs() > 0.0199).float().mean()
    assert moved > 0.9  # in bfloat16, most pixels would have moved by something else


# Rotation


def test_every_image_is_turned_by_its_own_number_of_quarter_turns(task):
    maps = torch.randn(4, 2, *task.size)
    turns = torch.tensor([0, 1, 2, 3])
    turned = rotate(maps, turns)
    for k in range(4):
        assert torch.equal(turned[k], maps[k].rot90(k, (-2, -1)))
    assert torch.equal(rotate(turned, (4 - turns) % 4), maps)


@pytest.mark.parametrize("shape", [(6, 6), (6, 8), (3, 6, 6), (6, 6, 8)])
def test_turns_keep_the_shape_and_exclude_the_identity_unless_allowed(shape):
    maps = torch.randn(400, 1, *shape)
    possible = {1, 2, 3} if shape[-1] == shape[-2] else {2}
    for identity, expected in ((False, possible), (True, possible | {0})):
        turns = draw_turns(maps, identity)
        assert set(turns.tolist()) == expected
        turned = rotate(maps, turns)
        assert all(torch.equal(t, m.rot90(k, (-2, -1))) for t, m, k in zip(turned, maps, turns.tolist(), strict=True))


class Pointwise(nn.Module):
    """A network that turns exactly with its input."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-2, 2, classes))

    def forward(self, images: torch.Tensor) -> Output:
        return Output(self.weight.view(1, -1, *[1] * (images.ndim - 2)) * images)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_network_that_turns_with_its_input_has_nothing_to_learn_from_rotation(task, batch, turns, monkeypatch):
    drawn = torch.full((2,), turns)
    monkeypatch.setattr("semiseg.methods.deep_co_training.draw_turns", lambda images, identity: drawn)
    method = built(task, variant="rotation")
    assert turns == 0 or method.losses(batch, Progress(100, 100))["agreement"].item() > 1e-5
    method.learners[0] = Pointwise(3)
    assert method.losses(batch, Progress(100, 100))["agreement"].item() == pytest.approx(0, abs=1e-12)


def test_rotation_is_one_pass_whose_gradient_is_half_that_of_the_squared_distance(task, batch):
    method = built(task, variant="rotation")
    seen = passes(method.learners[0])
    torch.manual_seed(0)
    loss = method.losses(batch, Progress(100, 100))["agreement"]
    torch.manual_seed(0)
    turns = draw_turns(batch.unlabeled(), False)
    [(images, output)] = seen
    assert torch.equal(images, torch.cat([batch.images(), rotate(batch.unlabeled(), turns)]))
    _, upright, of_turned = output.logits.split(2)
    distance = 0.1 * (rotate(upright, turns).softmax(1) - of_turned.softmax(1)).square().mean()
    assert loss.item() == pytest.approx(distance.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, output.logits, retain_graph=True)
    (plain,) = torch.autograd.grad(distance, output.logits)
    torch.testing.assert_close(gradient, plain / 2, rtol=1e-3, atol=1e-10)
    assert plain.abs().max() > 1e-8


def test_rotation_of_images_that_are_not_square(task):
    shape = (32, 48) if task.dims == 2 else (8, 16, 24)
    labels = torch.zeros(2, *shape, dtype=torch.long)
    losses = built(task, variant="rotation").losses(Batch({"plain": torch.rand(4, 1, *shape)}, labels), Progress(9, 10))
    assert all(loss.isfinite() for loss in losses.values())


# Both


class Rotation(DeepCoTraining):
    """The variant of SSL4MIS."""

    class Config(DeepCoTraining.Config):
        variant: str = "rotation"


def test_rotation_trains_and_reports_one_network(task, tmp_path):
    contract = MethodContract("deep_co_training", Rotation, task.dims, tmp_path)
    contract.check_declared_number_of_networks_is_built()
    contract.check_losses_are_finite_and_every_parameter_gets_a_gradient()
    contract.check_saved_weights_predict_the_same()
    assert contract.trained.method.networks == len(contract.trained.method.predictors()) == 1


def test_the_first_network_is_reported_and_the_mean_stands_beside_it(task):
    predictors = built(task).predictors()
    assert list(predictors) == ["first", "second", "ensemble"]
    assert isinstance(predictors["ensemble"], Ensemble)


@pytest.mark.parametrize("variant", ["two_networks", "rotation"])
def test_the_weight_is_ramped_up(task, batch, variant):
    method = built(task, variant=variant, ramp_up=0.4).eval()

    def unsupervised(step):
        torch.manual_seed(0)
        losses = method.losses(batch, Progress(step, 100))
        return np.array([losses[name].item() for name in ("agreement", "difference") if name in losses])

    np.testing.assert_allclose(unsupervised(40), unsupervised(100), rtol=1e-3)
    np.testing.assert_allclose(unsupervised(20), unsupervised(40) * math.exp(-5 * 0.25), rtol=1e-3)
