"""ICT: what is mixed with what, and that student and teacher are mixed alike."""

import numpy as np
import pytest
import torch

from semiseg.method import Batch, Progress
from semiseg.methods.ict import InterpolationConsistencyTraining, mix
from semiseg.methods.mean_teacher import MeanTeacher


def with_unlabeled(batch, number):
    unlabeled = batch.unlabeled().repeat_interleave(number, 0)[:number]
    noise = torch.rand(unlabeled.shape, generator=torch.Generator().manual_seed(1))
    return Batch({"plain": torch.cat([batch.labeled(), unlabeled * noise])}, batch.labels)


def give_other_opinions(network):
    for parameter in network.parameters():
        parameter.data.mul_(1.5)


def consistency(method, batch, share, step=100):
    method.shares = lambda images: share
    return method.losses(batch, Progress(step, 100))["consistency"].item()


def test_the_loss_is_the_distance_between_mixtures_of_the_same_shares(task, batch):
    batch = with_unlabeled(batch, 4)
    method = InterpolationConsistencyTraining(task).eval()
    give_other_opinions(method.teacher)
    share = torch.tensor([0.3, 0.9]).view(2, *[1] * (task.dims + 1))
    images = batch.unlabeled()
    with torch.no_grad():
        mixed = torch.stack([0.7 * images[0] + 0.3 * images[2], 0.1 * images[1] + 0.9 * images[3]])
        student = method.student(mixed).logits.softmax(1).numpy()
        teacher = method.teacher(images).logits.softmax(1).numpy()
    target = np.stack([0.7 * teacher[0] + 0.3 * teacher[2], 0.1 * teacher[1] + 0.9 * teacher[3]])
    assert target.sum(1) == pytest.approx(1, abs=1e-5)
    assert consistency(method, batch, share) == pytest.approx(0.1 * np.mean((student - target) ** 2), rel=1e-4)


def test_with_nothing_mixed_in_it_is_mean_teacher_without_noise_on_the_first_half(task, batch):
    method = InterpolationConsistencyTraining(task).eval()
    plain = MeanTeacher(task, MeanTeacher.Config(noise=0)).eval()
    plain.load_state_dict(method.state_dict())
    give_other_opinions(method.teacher)
    give_other_opinions(plain.teacher)
    first = Batch({"plain": batch.images()[:3]}, batch.labels)
    expected = plain.losses(first, Progress(100, 100))["consistency"].item()
    assert expected > 0
    share = torch.zeros(1, *[1] * (task.dims + 1))
    assert consistency(method, batch, share) == pytest.approx(expected, rel=1e-4)


def test_the_weight_follows_the_ramp_from_the_first_step(task, batch):
    method = InterpolationConsistencyTraining(task).eval()
    share = torch.full((1,) * (task.dims + 2), 0.4)
    first, last = (consistency(method, batch, share, step) for step in (0, 100))
    assert first > 0
    assert first / last == pytest.approx(np.exp(-5), rel=1e-4)


@pytest.mark.parametrize(("number", "both_orders", "pairs"), [(1, False, 1), (2, False, 1), (3, False, 2),
                                                             (4, False, 2), (1, True, 1), (4, True, 4)])  # fmt: skip
def test_any_number_of_unlabelled_images_can_be_paired(task, batch, number, both_orders, pairs):
    method = InterpolationConsistencyTraining(task, InterpolationConsistencyTraining.Config(both_orders=both_orders))
    batch = with_unlabeled(batch, number)
    assert method.shares(batch.unlabeled()).shape == (pairs,) + (1,) * (task.dims + 1)
    assert all(loss.isfinite() for loss in method.losses(batch, Progress(50, 100)).values())


@pytest.mark.parametrize(
    ("number", "pairs", "partners"), [(4, 2, [2, 3]), (4, 4, [2, 3, 0, 1]), (3, 2, [1, 2]), (1, 1, [0])]
)
def test_partners_come_from_the_other_half(number, pairs, partners):
    values = torch.arange(float(number))
    assert mix(values, torch.ones(pairs)).tolist() == partners
    assert mix(values, torch.zeros(pairs)).tolist() == list(range(pairs))


def test_no_batch_is_halved_to_save_memory_since_a_half_may_have_nothing_to_mix(task, batch):
    method = InterpolationConsistencyTraining(task)
    seen = []
    method.student.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    method.losses(batch.part(0, 2), Progress(0, 100))
    torch.testing.assert_close(seen[0][1:], batch.unlabeled()[:1])
    assert not method.divisible


def test_shares_follow_the_beta_distribution_and_the_seed(task):
    method = InterpolationConsistencyTraining(task)
    images = torch.zeros(40_000, 1, 1, 1)
    torch.manual_seed(0)
    share = method.shares(images)
    assert share.mean().item() == pytest.approx(0.5, abs=0.01)
    assert share.var().item() == pytest.approx(1 / (4 * (2 * 0.2 + 1)), abs=0.01)
    torch.manual_seed(0)
    assert torch.equal(share, method.shares(images))
    assert not torch.equal(share, method.shares(images))


def test_no_gradient_reaches_the_teacher(task, batch):
    method = InterpolationConsistencyTraining(task)
    method.teacher.requires_grad_(True)
    method.losses(batch, Progress(100, 100))["consistency"].backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    assert any(p.grad is not None and p.grad.any() for p in method.student.parameters())


def test_labelled_images_are_not_mixed(task, batch):
    method = InterpolationConsistencyTraining(task)
    seen = []
    method.student.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    method.losses(batch, Progress(0, 100))
    assert torch.equal(seen[0][:2], batch.labeled())
    assert len(seen[0]) == 3
