"""MONA: its formulas, who gets a gradient, and that what is deformed stays together."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from semiseg.contract import tiny_task
from semiseg.deformation import _identity
from semiseg.losses import neighbour_loss, prototype_loss, relation_loss, supervised_loss, weighted_kl
from semiseg.method import Batch, Progress
from semiseg.methods.mona import Mona, cells
from semiseg.networks import Output
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


def noted(module):
    """What a module is given from now on, and what it returns, call by call."""
    calls = []
    module.register_forward_hook(lambda _, given, returned: calls.append((given[0], returned)))
    return calls


def told_otherwise(student, teacher, others, temperature):
    """KL(t ‖ s) of how both relate themselves to the others; all are vectors."""
    s, t = (softmax(np.array([unit(v) @ unit(o) for o in others]) / temperature) for v in (student, teacher))
    return float((t * np.log(t / s)).sum())


def test_the_student_relates_plain_images_to_earlier_ones_as_its_teacher_relates_moderate_ones():
    method, batch = stepped(latent=0.5, windows=0.3, relations=7, relation_temperature=0.2)
    images = {view: torch.rand(4, 1, 32, 32) for view in method.views}
    modules = (method.student, method.teacher, method.guess, method.slow_description.network)
    student, teacher, guess, key = map(noted, modules)
    old = [memory.rows.double().numpy().copy() for memory in (method.earlier.latent, method.earlier.windows)]
    losses = method.relate(Batch(images, batch.labels), Progress(0, 10))
    assert torch.equal(student[0][0], images["plain"])
    assert torch.equal(teacher[0][0], images["moderate"])
    (own, own_windows), (slow, slow_windows) = (
        [v.detach().double().flatten(1).numpy() for v in calls[0][1]] for calls in (guess, key)
    )
    latent = [told_otherwise(own[i], slow[i], old[0], 0.2) for i in range(4)]
    windows = [
        told_otherwise(own_windows[49 * i + w], slow_windows[49 * i + w], old[1][:, w], 0.2)
        for i in range(4)
        for w in range(49)
    ]
    assert losses["latent"].item() == pytest.approx(0.5 * np.mean(latent), rel=1e-3)
    assert losses["windows"].item() == pytest.approx(0.3 * np.mean(windows), rel=1e-3)
    np.testing.assert_allclose(method.earlier.latent.rows[:4].numpy(), slow, rtol=1e-5)


def shifted(values, down, right):
    """What lies so many pixels further down and right is shown; 0 beyond the border."""
    moved = np.zeros_like(values)
    height, width = values.shape[2:]
    for i in range(height):
        for j in range(width):
            if 0 <= i + down < height and 0 <= j + right < width:
                moved[:, :, i, j] = values[:, :, i + down, j + right]
    return moved


def test_predictions_follow_a_deformation_where_a_class_is_seen_with_certainty(monkeypatch):
    method, batch = stepped(equivariant_from=0.6, equivariance=0.3)
    pseudo, sure, mixed = torch.randint(0, 3, (2, 32, 32)), torch.rand(2, 1, 32, 32), torch.rand(2, 1, 32, 32)
    monkeypatch.setattr(method, "pseudo_labeled", lambda batch: (mixed, pseudo, sure))
    grid = _identity(32, 32, mixed.device).expand(4, -1, -1, -1) + torch.tensor([2 * 5 / 32, -2 * 3 / 32])
    monkeypatch.setattr("semiseg.methods.mona.similarity_and_spline", lambda images, mirror: grid)
    student = noted(method.student)
    loss = method.losses(batch, Progress(0, 10))["equivariance"]
    (still, said), (moved, follows) = ((images.numpy(), output.logits.detach().double()) for images, output in student)
    np.testing.assert_allclose(moved, shifted(still, -3, 5), atol=1e-5)
    target, follows = torch.from_numpy(shifted(said.numpy(), -3, 5)).softmax(1).numpy(), follows.softmax(1).numpy()
    seen = np.concatenate([batch.labels > 0, (pseudo > 0) & (sure[:, 0] >= 0.6)])[:, None]
    weight = shifted(seen.astype(float), -3, 5)[:, 0]
    divergence = (target * np.log(target / follows)).sum(1)
    expected = np.mean([(w * d).sum() / w.sum() for w, d in zip(weight, divergence, strict=True)])
    assert loss.item() == pytest.approx(0.3 * expected, rel=1e-3)


def test_pseudo_labels_of_an_image_count_by_its_share_of_sure_pixels(monkeypatch):
    method, batch = stepped(sure=0.7, unsupervised=0.4)
    pseudo, mixed = torch.randint(0, 3, (2, 32, 32)), torch.rand(2, 1, 32, 32)
    sure = torch.rand(2, 1, 32, 32) * torch.tensor([1.0, 0.8]).view(2, 1, 1, 1)
    monkeypatch.setattr(method, "pseudo_labeled", lambda batch: (mixed, pseudo, sure))
    student = noted(method.student)
    loss = method.losses(batch, Progress(0, 10))["unsupervised"]
    p, expected = student[0][1].logits[2:].detach().double().softmax(1).numpy(), 0.0
    for n in range(2):
        wrong = [-math.log(p[n, pseudo[n, i, j], i, j]) for i in range(32) for j in range(32)]
        expected += 0.4 * np.mean(sure[n].numpy() >= 0.7) * np.mean(wrong) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("confusable", "few"), [(1, 1), (9, 2)])
def test_pixels_meet_the_memory_and_the_mean_that_the_formula_says(monkeypatch, confusable, few):
    """Two labelled and two unlabelled images of 8 × 8, whose features are 4 × 4, pixel for pixel."""
    method, _ = stepped(confusable=confusable, unreliable=0.4, sure_key=0.8, anchor_from=0.3, contrast=1.0)
    teacher, student = (2 * torch.randn(4, 3, 8, 8) for _ in range(2))
    dense, keys, labels = torch.randn(4, 5, 4, 4), torch.randn(4, 5, 4, 4), torch.randint(0, 3, (4, 8, 8))
    masks, pushed, compared = [], [], []
    monkeypatch.setattr("semiseg.methods.mona.pick", lambda mask, number: masks.append(mask) or mask.nonzero()[:, 0])
    monkeypatch.setattr("semiseg.memory.Memory.push", lambda self, rows, valid: pushed.append((rows, bool(valid))))
    monkeypatch.setattr(
        "semiseg.methods.mona.prototype_loss",
        lambda chosen, mean, *rest: compared.append((chosen, mean)) or torch.tensor(10.0 ** len(compared)),
    )
    for bank, count in zip(method.banks, (1, 0, 1), strict=True):
        bank.count.fill_(count)
    loss = method.contrast(dense, keys, labels, Output(teacher), Output(student), Progress(1, 4), 2)

    p, s = (logits.double().softmax(1).numpy() for logits in (teacher, student))
    pixels = [(n, i, j) for n in range(4) for i in range(4) for j in range(4)]
    doubt = {(n, i, j): -sum(v * math.log(v + 1e-6) for v in s[n, :, 2 * i, 2 * j]) for n, i, j in pixels}
    low, high = np.quantile([v for (n, *_), v in doubt.items() if n >= 2], (0.4 * 0.75, 1 - 0.4 * 0.75))
    for c in range(3):
        members, anchors, others = [], [], []
        for place, (n, i, j) in enumerate(pixels):
            y, said = int(labels[n, 2 * i, 2 * j]), p[n, :, 2 * i, 2 * j]
            rank = sum(said[k] > said[c] for k in range(3))
            if y == c and (n < 2 or doubt[n, i, j] <= low):
                members.append(place)
                if said[c] > 0.3:
                    anchors.append(place)
            confused = y != c and rank < few if n < 2 else doubt[n, i, j] >= high and rank >= few
            if confused and said[c] < 0.8:
                others.append(place)
        vectors, teachers = (np.array([v[n, :, i, j].numpy() for n, i, j in pixels]) for v in (dense, keys))
        assert min(len(anchors), len([o for o in others if o >= 32])) > 0
        assert masks[2 * c].nonzero()[:, 0].tolist() == others
        assert masks[2 * c + 1].nonzero()[:, 0].tolist() == anchors
        np.testing.assert_array_equal(pushed[c][0], teachers[others])
        np.testing.assert_array_equal(compared[c][0], vectors[anchors])
        np.testing.assert_allclose(compared[c][1], teachers[members].mean(0), atol=1e-6)
        assert pushed[c][1]
    assert loss == pytest.approx((10 + 1000) / 3)  # nothing is remembered that class 1 could flee from


def test_the_teacher_normalizes_by_its_batch_unless_it_is_told_to_by_averages():
    """With averaged statistics it saw nothing but background in short trainings, and was sure of it."""
    images = torch.rand(3, 1, 32, 32)
    for statistics, alone in (("averaged", True), ("batch", False)):
        method = Mona(tiny_task(2), Mona.Config(statistics=statistics)).train()
        for module in method.teacher.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        said = method.taught(images).logits
        assert not said.requires_grad
        assert torch.allclose(said[:1], method.taught(images[:1]).logits, atol=1e-5) == alone


def test_a_step_shows_strong_views_remembers_its_images_and_counts_labels_twice(monkeypatch):
    """The teacher sees plain images, the student their strong views with the teacher's opinions; see also above."""
    method, batch = stepped()
    views = {view: torch.rand(4, 1, 32, 32) for view in method.views}
    batch = Batch(views, batch.labels)
    nothing = lambda images: torch.zeros_like(images[:, :1], dtype=torch.bool)  # noqa: E731
    monkeypatch.setattr("semiseg.methods.mona.half_boxes", nothing)
    still = lambda images: _identity(32, 32, images.device).expand(len(images), -1, -1, -1)  # noqa: E731
    monkeypatch.setattr("semiseg.methods.mona.diffeomorphism", still)
    taught = noted(method.teacher)
    mixed, _, _ = method.pseudo_labeled(batch)
    assert torch.equal(taught[0][0], views["plain"][2:])
    torch.testing.assert_close(mixed, views["strong"][2:], rtol=1e-3, atol=1e-3)
    method.eval()
    shown = noted(method.student)
    losses = method.losses(batch, Progress(0, 10))
    own = shown[0][1].logits[:2]
    assert losses["supervised"].item() == pytest.approx(2 * supervised_loss(own, batch.labels).item(), rel=1e-4)
    said = noted(method.slow_dense.network)
    before = method.images.rows.clone()
    method.losses(batch, Progress(1, 10))
    changed = (method.images.rows != before).any(1)
    torch.testing.assert_close(method.images.rows[changed], cells(said[0][1][2:].float()), rtol=1e-3, atol=1e-4)
