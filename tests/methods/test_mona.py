"""MONA: its formulas, who gets a gradient, and that what is deformed stays together."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from semiseg.contract import tiny_task
from semiseg.losses import neighbour_loss, prototype_loss, relation_loss, weighted_kl
from semiseg.method import Batch, Progress
from semiseg.methods.mona import Mona
from semiseg.perturbations import half_boxes
from semiseg.relations import cut


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


def unit(v):
    return v / np.linalg.norm(v)


def softmax(v):
    e = np.exp(v - np.max(v))
    return e / e.sum()


def test_relations_are_compared_as_the_formula_says(random):
    student, teacher, others = (torch.randn(*n, generator=random) for n in ((3, 2, 5), (3, 2, 5), (4, 2, 5)))
    expected = 0.0
    for i in range(3):
        for w in range(2):
            s, t = (
                softmax(np.array([unit(v[i, w].numpy()) @ unit(others[k, w].numpy()) for k in range(4)]) / 0.1)
                for v in (student, teacher)
            )
            expected += float((t * np.log(t / s)).sum()) / 6
    assert relation_loss(student, teacher, others, 0.1).item() == pytest.approx(expected, rel=1e-4)
    assert relation_loss(teacher, teacher, others, 0.1).item() == pytest.approx(0.0, abs=1e-6)


def test_the_teacher_learns_nothing_from_relations(random):
    student, teacher = (torch.randn(3, 5, generator=random).requires_grad_() for _ in range(2))
    relation_loss(student, teacher, torch.randn(4, 5, generator=random), 0.1).backward()
    assert student.grad.any()
    assert teacher.grad is None


def test_pixels_flee_from_the_drawn_rows_alone(random):
    anchors, mean, bank = (torch.randn(*n, generator=random) for n in ((3, 4), (4,), (6, 4)))
    drawn = torch.tensor([[0, 1], [2, 2], [5, 0]])
    expected = 0.0
    for a, numbers in zip(anchors.numpy(), drawn.tolist(), strict=True):
        own = math.exp(unit(a) @ unit(mean.numpy()) / 0.5)
        others = sum(math.exp(unit(a) @ unit(bank[n].numpy()) / 0.5) for n in numbers)
        expected -= math.log(own / (own + others)) / 3
    assert prototype_loss(anchors, mean, bank, drawn, 0.5).item() == pytest.approx(expected, rel=1e-5)


def test_an_image_resembles_the_neighbours_that_its_teacher_chose(random):
    vectors, latest = (F.normalize(torch.randn(2, 6, generator=random), dim=1) for _ in range(2))
    pool = torch.randn(5, 6, generator=random)
    expected = 0.0
    for z, t in zip(vectors.numpy(), latest.numpy(), strict=True):
        nearest = sorted((unit(p) for p in pool.numpy()), key=lambda p, t=t: -(p @ t))[:3]
        expected += sum(2 - 2 * z @ p for p in nearest) / 6
    assert neighbour_loss(vectors, latest, pool, 3).item() == pytest.approx(expected, rel=1e-4)
    student, teacher = vectors.clone().requires_grad_(), latest.clone().requires_grad_()
    neighbour_loss(student, teacher, pool, 3).backward()
    assert student.grad.any()  # in the public code it is zero
    assert teacher.grad is None


def test_predictions_follow_as_the_formula_says(random):
    logits, target = (torch.randn(2, 3, 2, 2, generator=random) for _ in range(2))
    weight = torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]).view(2, 1, 2, 2)
    q, p = logits.softmax(1).double(), target.softmax(1).double()
    kl = (p * (p.log() - q.log())).sum(1)
    expected = float((kl[0] * weight[0, 0]).sum() / 3) / 2
    assert weighted_kl(logits, target, weight).item() == pytest.approx(expected, rel=1e-4)


def test_windows_are_quarters_that_overlap_by_half():
    image = torch.arange(64.0).view(1, 1, 8, 8)
    windows = cut(image)
    assert windows.shape == (1, 49, 1, 2, 2)
    assert torch.equal(windows[0, 0, 0], image[0, 0, :2, :2])
    assert torch.equal(windows[0, 8, 0], image[0, 0, 1:3, 1:3])
    assert cut(torch.rand(2, 3, 8, 8, 8)).shape == (2, 27, 3, 4, 4, 4)


def test_half_of_an_image_is_pasted():
    inside = half_boxes(torch.zeros(50, 1, 64, 64))
    assert inside.shape == (50, 1, 64, 64)
    assert inside.float().mean((1, 2, 3)).sub(0.5).abs().max() < 0.03
    widths = inside.any(2).sum(2)
    assert widths.min() >= 31
    assert inside.any(3).sum(2).min() >= 31
    assert half_boxes(torch.zeros(2, 1, 4, 16, 16)).shape == (2, 1, 1, 16, 16)


def stepped(labels_of=lambda labels: labels, **config):
    method = Mona(tiny_task(2), Mona.Config(**(Mona.brief | config)))
    torch.manual_seed(3)
    labels = labels_of(torch.randint(0, 3, (2, 32, 32)))
    images = torch.rand(4, 1, 32, 32)
    batch = Batch(dict.fromkeys(method.views, images), labels)
    return method, batch


def test_every_term_teaches_the_student_and_none_the_teacher():
    method, batch = stepped(equivariant_from=0.0)
    names = method.losses(batch, Progress(0, 10)).keys()
    assert names == {"supervised", "unsupervised", "contrast", "neighbours", "equivariance"}
    for name in names:
        method.zero_grad()
        torch.manual_seed(0)
        method.losses(batch, Progress(0, 10))[name].backward()
        assert any(p.grad is not None and p.grad.any() for p in method.student.parameters()), name
        assert all(p.grad is None for m in (method.teacher, method.slow_dense) for p in m.parameters()), name


def test_an_absent_class_is_left_out_and_shifts_no_other():
    """With class 1 away, what is learned of the classes 0 and 2 comes from their own banks."""
    method, batch = stepped(lambda labels: labels.where(labels != 1, torch.tensor(0)))
    method.teacher.network.head.bias.data = torch.tensor([0.0, -50.0, 0.0])  # no pseudo-label of it either
    method.losses(batch, Progress(0, 10))
    counts = [int(bank.count) for bank in method.banks]
    assert counts[0] > 0
    assert counts[2] > 0
    assert torch.isfinite(method.losses(batch, Progress(1, 10))["contrast"])


def test_one_class_alone_contrasts_with_nothing():
    method, batch = stepped(torch.zeros_like)
    method.teacher.network.head.bias.data = torch.tensor([50.0, 0.0, 0.0])
    assert method.losses(batch, Progress(0, 10))["contrast"] == 0


def test_images_labels_and_confidence_are_cut_mixed_and_deformed_together():
    """Where the teacher reads labels off the images, the deformed labels are those of the deformed images."""
    method, batch = stepped()
    images = (torch.rand(2, 1, 4, 4) > 0.5).float().repeat_interleave(8, 2).repeat_interleave(8, 3)
    batch = Batch(dict.fromkeys(method.views, torch.cat([images, images])), batch.labels)
    logits = torch.cat([10 * (1 - 2 * images), 10 * (2 * images - 1), torch.full_like(images, -30)], 1)
    method.teacher.network.forward = lambda x: type("O", (), {"logits": logits})()
    mixed, labels, sure = method.pseudo_labeled(batch)
    inner = (mixed[:, 0] > 0.99) | (mixed[:, 0] < 0.01)  # away from edges
    inside = inner & (sure[:, 0] > 0.99)
    assert inside.float().mean() > 0.3
    assert torch.equal(labels[inside], mixed[:, 0][inside].round().long())
