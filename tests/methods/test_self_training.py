"""Self-training: who teaches in which round, what is labelled, and that the teacher only labels."""

from collections import Counter

import numpy as np
import pytest
import torch

from semiseg.method import Progress, predict
from semiseg.methods.self_training import SelfTraining
from semiseg.training.plan import Plan

ROUND = Progress(0, 10, "round_1")


def same(first, second):
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def moved(network, by=0.1):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return network


def pseudo_loss(logits, opinion, threshold):
    """½ (cross-entropy over all pixels + Dice) against the hard opinion where it is sure, by NumPy."""
    p, q = (np.exp(v) / np.exp(v).sum(1, keepdims=True) for v in (logits.astype(float), opinion.astype(float)))
    p, q = (np.moveaxis(v, 1, -1).reshape(-1, v.shape[1]) for v in (p, q))
    keep = q.max(1) >= threshold
    target = np.eye(p.shape[1])[q.argmax(1)]
    cross_entropy = -(np.log(p) * target).sum(1)[keep].sum() / len(p)
    p, target = p[keep], target[keep]
    dice = (2 * (p * target).sum(0) + 1e-5) / ((p**2).sum(0) + target.sum(0) + 1e-5)
    return 0.5 * (cross_entropy + (1 - dice).mean())


@pytest.mark.parametrize("threshold", [0.0, 0.4])
def test_the_student_learns_the_fixed_teachers_hard_labels_of_plain_views_on_strong_ones(task, batch, threshold):
    method = SelfTraining(task, SelfTraining.Config(threshold=threshold, pseudo=0.5)).eval()
    moved(method.teacher)
    losses = method.losses(batch, ROUND)
    logits = predict(method.student, batch.unlabeled("strong")).logits.numpy()
    opinion = predict(method.teacher, batch.unlabeled()).logits.numpy()
    assert losses["pseudo"].item() == pytest.approx(0.5 * pseudo_loss(logits, opinion, threshold), rel=1e-3)
    method.teacher.requires_grad_(True)
    sum(method.losses(batch, ROUND).values()).backward()
    assert all(p.grad is None for p in method.teacher.parameters())


def test_the_teacher_labels_without_dropout_also_in_training(task, batch):
    method = SelfTraining(task).train()
    modes = []
    method.teacher.register_forward_pre_hook(lambda module, inputs: modes.append(module.training))
    method.losses(batch, ROUND)
    assert modes == [False]


def test_the_first_teacher_learns_from_labels_alone(task, batch):
    method = SelfTraining(task)
    seen = []
    method.student.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    assert method.stages()[0].losses(batch, Progress(0, 10, "teacher")).keys() == {"supervised"}
    assert torch.equal(seen[0], batch.labeled())


@pytest.mark.parametrize("restart", [True, False])
def test_every_round_has_the_last_student_for_teacher_and_a_new_student(task, restart):
    method = SelfTraining(task, SelfTraining.Config(rounds=2, restart=restart))
    first = {key: value.clone() for key, value in method.student.state_dict().items()}
    for stage in method.stages()[1:]:
        moved(method.student)
        last = {key: value.clone() for key, value in method.student.state_dict().items()}
        stage.begin()
        expected = first if restart else last
        assert all(torch.equal(value, last[key]) for key, value in method.teacher.state_dict().items())
        assert all(torch.equal(value, expected[key]) for key, value in method.student.state_dict().items())


def test_an_interrupted_training_restarts_from_the_same_weights(task):
    method, other = SelfTraining(task), SelfTraining(task)
    moved(other.first)
    moved(method.student)
    other.load_state_dict(method.state_dict())
    for each in (method, other):
        each.succeed()
    assert same(method.student, other.student)
    assert same(method.teacher, other.teacher)


def test_rounds_share_the_steps_evenly(task):
    plan = Plan(SelfTraining(task, SelfTraining.Config(rounds=3)).stages(), 100, "self-training")
    steps = Counter(plan.progress(step).stage for step in range(100))
    assert steps == {"teacher": 25, "round_1": 25, "round_2": 25, "round_3": 25}
