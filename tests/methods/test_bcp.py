"""BCP: what is pasted where, which labels count how much, and that the teacher only labels."""

from collections import Counter

import numpy as np
import pytest
import torch

from semiseg.connected_components import largest_components
from semiseg.method import Batch, Progress, Task
from semiseg.methods.bcp import BidirectionalCopyPaste, halves
from semiseg.training.plan import Plan

PRETRAINING, SELF_TRAINING = Progress(24, 25, "pretraining"), Progress(0, 75)


def stages(method):
    return {stage.name: stage for stage in method.stages()}


def recorded(method):
    """What the student is shown from now on."""
    seen = []
    method.student.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    return seen


def batch_of(task, labeled, unlabeled):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(labeled + unlabeled, task.channels, *task.size, generator=generator)
    return Batch({"plain": images}, torch.randint(task.classes, (labeled, *task.size), generator=generator))


def regional_loss(logits, labels, mask):
    """½ (cross-entropy + Dice) where the mask is set, by NumPy."""
    logits = logits.astype(np.float64)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    q = np.moveaxis(np.eye(p.shape[1])[labels], -1, 1)
    p, q = (np.moveaxis(v, 1, -1)[np.broadcast_to(mask, labels.shape)] for v in (p, q))
    dice = (2 * (p * q).sum(0) + 1e-5) / ((p**2).sum(0) + (q**2).sum(0) + 1e-5)
    return 0.5 * (-(q * np.log(p)).sum(1).mean() + (1 - dice).mean())


def test_the_box_has_two_thirds_of_every_side_and_reaches_every_border(task):
    method = BidirectionalCopyPaste(task)
    labels = torch.zeros(2, *task.size)
    lengths = [int(side * 2 / 3) for side in task.size]
    masks = [method.mask(labels)[0, 0] for _ in range(150)]
    assert all((1 - mask).sum() == np.prod(lengths) for mask in masks)
    assert len({mask.numpy().tobytes() for mask in masks}) > 50
    for axis in range(task.dims):
        for end in (0, -1):
            assert any((mask.select(axis, end) == 0).any() for mask in masks)


def test_boxes_go_both_ways(task):
    batch, method = batch_of(task, 4, 4), BidirectionalCopyPaste(task)
    seen = recorded(method)
    mask = method.mask(batch.labels)
    method.mask = lambda labels: mask
    method.losses(batch, SELF_TRAINING)
    inward, outward = seen
    outside, inside = (mask == m for m in (1, 0))
    first, last = slice(0, 2), [3, 2]
    for mixed, outer, inner in [
        (inward, batch.labeled()[first], batch.unlabeled()[first]),
        (outward, batch.unlabeled()[last], batch.labeled()[last]),
    ]:
        assert torch.equal(mixed * outside, outer * outside)
        assert torch.equal(mixed * inside, inner * inside)


def test_losses_count_true_labels_fully_and_pseudo_labels_by_half(task):
    batch = batch_of(task, 4, 4)
    method = BidirectionalCopyPaste(task).eval()
    for parameter in method.teacher.parameters():  # opinions of its own
        parameter.data.mul_(-1.5)
    m = method.mask(batch.labels)
    method.mask = lambda labels: m
    losses = method.losses(batch, SELF_TRAINING)
    a, b = batch.labeled()[:2], batch.labeled()[[3, 2]]
    p, q = batch.unlabeled()[:2], batch.unlabeled()[[3, 2]]
    with torch.no_grad():
        inward, outward = (method.student(x).logits.numpy() for x in (m * a + (1 - m) * p, m * q + (1 - m) * b))
        teacher = largest_components(method.teacher(batch.unlabeled()).logits.argmax(1), task.classes).numpy()
    labels, outside = batch.labels.numpy(), m[0].numpy() > 0
    supervised = regional_loss(inward, labels[:2], outside) + regional_loss(outward, labels[[3, 2]], ~outside)
    pseudo = regional_loss(inward, teacher[:2], ~outside) + regional_loss(outward, teacher[[3, 2]], outside)
    assert losses["supervised"].item() == pytest.approx(supervised, rel=1e-4)
    assert losses["pseudo"].item() == pytest.approx(0.5 * pseudo, rel=1e-4)


def test_pretraining_sees_labelled_images_alone(task, batch):
    method = BidirectionalCopyPaste(task)
    other = Batch({"plain": torch.cat([batch.labeled(), torch.rand_like(batch.unlabeled())])}, batch.labels)
    values = []
    for each in (batch, other):
        torch.manual_seed(0)
        values.append(method.pretrain(each, PRETRAINING))
    assert values[0].keys() == {"supervised"}
    assert values[0]["supervised"] == values[1]["supervised"]
    assert method.losses(batch, SELF_TRAINING).keys() == {"supervised", "pseudo"}


@pytest.mark.parametrize(("pretraining", "steps"), [
    (0.25, {"pretraining": 25, "training": 75}), (0.0, {"training": 100}), (1.0, {"pretraining": 100}),
])  # fmt: skip
def test_pretraining_takes_its_share_of_the_steps(task, pretraining, steps):
    method = BidirectionalCopyPaste(task, BidirectionalCopyPaste.Config(pretraining=pretraining))
    plan = Plan(method.stages(), 100, "BCP")
    assert Counter(plan.progress(step).stage for step in range(100)) == steps


def test_pretraining_pastes_one_labelled_image_into_another(task, batch):
    method = BidirectionalCopyPaste(task).eval()
    mask = method.mask(batch.labels)
    method.mask = lambda labels: mask
    loss = method.pretrain(batch, PRETRAINING)["supervised"].item()
    a, b = batch.labeled().split(1)
    with torch.no_grad():
        logits = method.student(mask * a + (1 - mask) * b).logits.numpy()
    labels, outside = batch.labels.numpy(), mask[0].numpy() > 0
    expected = regional_loss(logits, labels[:1], outside) + regional_loss(logits, labels[1:], ~outside)
    assert loss == pytest.approx(expected, rel=1e-4)


def test_pseudo_labels_are_hard_and_free_of_islands(task, batch):
    method = BidirectionalCopyPaste(task)
    labels = method.teacher(batch.unlabeled()).logits.argmax(1)
    method.teacher.forward = lambda images: type("", (), {"logits": torch.eye(task.classes)[labels].movedim(-1, 1)})
    pseudo = method.pseudo_labels(batch.unlabeled())
    assert torch.equal(pseudo.argmax(1), largest_components(labels, task.classes))
    assert set(pseudo.unique().tolist()) <= {0.0, 1.0}
    assert method.noted["beyond_largest_component"] > 0


def test_no_gradient_reaches_the_teacher(task, batch):
    method = BidirectionalCopyPaste(task)
    method.teacher.requires_grad_(True)
    sum(method.losses(batch, SELF_TRAINING).values()).backward()
    assert all(p.grad is None for p in method.teacher.parameters())


@pytest.mark.parametrize("progress", [PRETRAINING, SELF_TRAINING], ids=["pretraining", "self_training"])
@pytest.mark.parametrize(("labeled", "unlabeled"), [(1, 1), (1, 4), (3, 1), (3, 2)])
def test_any_batch_size_will_do(task, labeled, unlabeled, progress):
    losses = stages(BidirectionalCopyPaste(task))[progress.stage].losses(batch_of(task, labeled, unlabeled), progress)
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize(("items", "number", "first", "second"), [
    (4, 4, [0, 1], [3, 2]), (3, 3, [0, 1], [2, 1]), (1, 4, [0, 0], [0, 0]), (2, 6, [0, 0, 0], [1, 1, 1]),
])  # fmt: skip
def test_halves_use_every_image_and_repeat_the_fewer(items, number, first, second):
    (a, a_too), (b, _) = halves((torch.arange(items), torch.arange(items)), number)
    assert (a.tolist(), a_too.tolist(), b.tolist()) == (first, first, second)


def test_a_flat_patch_is_pasted_into_as_well():
    method = BidirectionalCopyPaste(Task(1, 3, (1, 24, 24), "unet_3d_small"))
    assert (method.mask(torch.zeros(2, 1, 24, 24)) == 0).sum() == 16 * 16
