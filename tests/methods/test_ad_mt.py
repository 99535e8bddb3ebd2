"""AD-MT: whose turn it is, what the two teachers and the student agree on, and what belongs to a pasted box."""

from collections import Counter
from dataclasses import replace
from itertools import groupby
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from semiseg.method import Progress
from semiseg.methods.ad_mt import AlternateDiverseMeanTeacher, Turns, weighted_by_entropy


@pytest.fixture
def method(task):
    method = AlternateDiverseMeanTeacher(replace(task, unlabeled_steps=4)).eval()
    with torch.no_grad():
        for teacher in method.teachers:  # opinions of their own
            for parameter in teacher.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return method


def step_of(method, owner):
    return next(step for step in range(50) if method.turns.owner(step) == owner)


def test_turns_alternate_and_last_at_most_so_long_whatever_is_asked_first():
    turns = Turns(5, seed=0)
    assert turns.owner(400) in (0, 1)
    owners = [turns.owner(step) for step in range(400)]
    assert owners == [Turns(5, seed=0).owner(step) for step in range(400)]
    assert owners != [Turns(5, seed=1).owner(step) for step in range(400)]
    runs = [(who, len(list(steps))) for who, steps in groupby(owners)]
    assert [who for who, _ in runs[:4]] == [0, 1, 0, 1]
    assert set(Counter(length for _, length in runs[:-1])) == {1, 2, 3, 4, 5}


def test_a_teacher_follows_in_its_own_turns_alone_and_first_becomes_a_copy(method):
    student = [p.detach() for p in method.student.parameters()]
    expected = [[p.detach().clone() for p in t.network.parameters()] for t in method.teachers]
    counts = [0, 0]
    for step in range(12):
        for parameter in student:
            parameter.add_(1.0)
        for teacher in method.teachers:
            teacher.update(step)
        who = method.turns.owner(step)
        counts[who] += 1
        alpha = min(1 - 1 / counts[who], 0.99)
        expected[who] = [alpha * own + (1 - alpha) * p for own, p in zip(expected[who], student, strict=True)]
    assert all(counts)
    for teacher, values in zip(method.teachers, expected, strict=True):
        for own, value in zip(teacher.network.parameters(), values, strict=True):
            torch.testing.assert_close(own, value)


def test_the_mean_leans_to_the_teacher_of_lower_entropy(task):
    p, q = torch.randn(2, 2, task.classes, *task.size).softmax(2).double().numpy()
    h, g = (-(x * np.log2(x + 1e-6)).sum(1, keepdims=True) for x in (p, q))
    expected = (np.exp(-h) * p + np.exp(-g) * q) / (np.exp(-h) + np.exp(-g))
    actual = weighted_by_entropy(torch.tensor(p), torch.tensor(q)).numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-4)
    surer = np.abs(actual - p).sum(1) < np.abs(actual - q).sum(1)
    assert (surer == (h < g)[:, 0])[np.abs(h - g)[:, 0] > 1e-3].all()


class Says(nn.Module):
    """Predicts the same whatever it sees."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, images):
        return SimpleNamespace(logits=self.logits)


def test_the_student_has_its_way_only_where_teachers_disagree_and_it_is_surer_of_another_class(method, batch):
    first, second, own = (torch.randn(2, method.task.classes, *method.task.size) * k for k in (1, 1, 2))
    method.teachers = nn.ModuleList([Says(first), Says(second)])
    labels, confidence = method.target(batch.unlabeled(), own)
    mean = weighted_by_entropy(first.softmax(1), second.softmax(1)).numpy()
    p = own.softmax(1).numpy()
    surer = (p.argmax(1) != mean.argmax(1)) & (p.max(1) > mean.max(1))
    overruled = surer & (first.argmax(1) != second.argmax(1)).numpy()
    assert 0 < overruled.sum() < surer.sum()
    np.testing.assert_array_equal(labels[:, 0].numpy(), np.where(overruled, p.argmax(1), mean.argmax(1)))
    np.testing.assert_allclose(confidence[:, 0].numpy(), np.where(overruled, p.max(1), mean.max(1)), rtol=1e-5)


def test_teachers_that_agree_are_never_overruled(method, batch):
    method.teachers[1].network.load_state_dict(method.teachers[0].network.state_dict())
    certain = 50 * torch.randn(2, method.task.classes, *method.task.size)
    labels, _ = method.target(batch.unlabeled(), certain)
    with torch.no_grad():
        assert torch.equal(labels, method.teachers[0](batch.unlabeled()).logits.argmax(1, keepdim=True))


def test_each_turn_shows_the_student_its_own_kind_of_images(method, batch):
    seen = []
    method.student.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][len(batch.images()) :]))
    for owner in (0, 1):
        method.losses(batch, Progress(step_of(method, owner), 50))
    weak, (strong, mixed) = batch.unlabeled("weak"), seen
    assert torch.equal(strong, batch.unlabeled("strong"))
    box = (mixed != weak).any(1, keepdim=True)
    assert 0 < box.float().mean() < 1
    assert torch.equal(mixed, torch.where(box, weak.roll(1, 0), weak))


def test_labels_move_with_the_box_after_the_student_was_heard_on_its_own_image(method, batch, monkeypatch):
    monkeypatch.setattr("semiseg.methods.ad_mt.random_boxes", lambda x, p: torch.ones_like(x[:, :1], dtype=torch.bool))
    heard, used, weak = [], [], batch.unlabeled("weak")
    labels = torch.randint(3, (2, 1, *method.task.size))
    method.target = lambda images, own: heard.extend([images, own]) or (labels, torch.ones(labels.shape))
    method.distance = lambda logits, labels, kept: used.append(labels) or logits.mean()
    method.losses(batch, Progress(step_of(method, 1), 50))
    assert torch.equal(heard[0], weak)
    torch.testing.assert_close(heard[1], method.student(weak).logits)
    assert torch.equal(used[0], labels.roll(1, 0))


@pytest.mark.parametrize("distance", ["dice", "cross_entropy"])
def test_unsure_pixels_take_no_part(method, batch, distance):
    method.config = method.Config(distance=distance)
    logits, labels = torch.randn(2, 3, *method.task.size), torch.randint(3, (2, 1, *method.task.size))
    kept = torch.randint(2, labels.shape).float()
    p = np.moveaxis(logits.double().softmax(1).numpy(), 1, -1)[kept[:, 0].numpy() > 0]
    q = np.eye(3)[labels[kept > 0].numpy()]
    dice = 1 - (2 * (p * q).sum(0) + 1e-5) / ((p**2).sum(0) + (q**2).sum(0) + 1e-5)
    expected = dice.mean() if distance == "dice" else -(q * np.log(p)).sum(1).mean()
    assert method.distance(logits, labels, kept).item() == pytest.approx(expected, rel=1e-4)


def test_no_gradient_reaches_teachers_or_targets(method, batch):
    method.config = method.Config(threshold=0)
    method.teachers.requires_grad_(True)
    own = torch.randn(2, 3, *method.task.size, requires_grad=True)
    assert not any(values.requires_grad for values in method.target(batch.unlabeled(), own))
    method.losses(batch, Progress(step_of(method, 0), 50))["consistency"].backward()
    assert all(p.grad is None for p in method.teachers.parameters())
    assert any(p.grad is not None and p.grad.any() for p in method.student.parameters())


def test_only_pixels_above_the_threshold_count_and_weigh_as_the_ramp_says(method, batch, monkeypatch):
    monkeypatch.setattr("semiseg.methods.ad_mt.random_boxes", lambda x, p: torch.ones_like(x[:, :1], dtype=torch.bool))
    used, labels = [], torch.randint(3, (2, 1, *method.task.size))
    confidence = torch.rand(labels.shape) * 0.2 + 0.8
    method.target = lambda images, own: (labels, confidence)
    method.distance = lambda logits, labels, kept: used.append(kept) or torch.ones(())
    step = step_of(method, 1)
    losses = method.losses(batch, Progress(step, 200))
    assert torch.equal(used[0], (confidence >= 0.95).float().roll(1, 0)), "a box brings its confidence along"
    assert 0 < used[0].mean() < 1
    assert losses["consistency"].item() == pytest.approx(2 * Progress(step, 200).ramp_up(0.25), rel=1e-5)
