"""FixMatch: confident pixels alone teach, no gradient passes a pseudo-label, and all this with CTAugment, too."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from semiseg import losses as L
from semiseg.contract import MethodContract
from semiseg.method import Batch, Progress
from semiseg.methods.fixmatch import FixMatch, negative_learning
from semiseg.networks import Output

END = Progress(100, 100)


def fixmatch(task, **config):
    return FixMatch(task, FixMatch.Config(**config)).eval()  # without dropout and batch statistics


def softmax(logits):
    exponential = np.exp(logits - logits.max(1, keepdims=True))
    return exponential / exponential.sum(1, keepdims=True)


def masked_loss(logits, probabilities, threshold, count):
    """½ (cross-entropy + Dice) of confident pixels in NumPy, the former divided by `count`."""
    classes = logits.shape[1]
    p, q, top = (np.moveaxis(a, 1, -1).reshape(-1, classes) for a in (softmax(logits), probabilities, probabilities))
    kept = top.max(1) >= threshold
    p, y = p[kept], np.eye(classes)[q[kept].argmax(1)]
    cross_entropy = -np.log(p[y == 1]).sum() / count(kept)
    dice = (2 * (p * y).sum(0) + 1e-5) / ((p**2).sum(0) + (y**2).sum(0) + 1e-5)
    return 0.5 * (cross_entropy + (1 - dice).mean())


@pytest.mark.parametrize("mean_over", ["all", "kept"])
@pytest.mark.parametrize("source", ["student", "teacher"])
def test_confident_pixels_alone_teach(task, batch, source, mean_over):
    method = fixmatch(task)
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.mul_(1.3)
        probabilities = getattr(method, source)(batch.unlabeled("weak")).logits.softmax(1).numpy()
        logits = method.student(batch.unlabeled("strong")).logits.numpy()
    threshold = float(np.quantile(probabilities.max(1), 0.6))
    method.config = FixMatch.Config(threshold=threshold, pseudo_source=source, mean_over=mean_over)
    losses = method.losses(batch, END)
    share = (probabilities.max(1) >= threshold).mean()
    assert share == pytest.approx(0.4, abs=0.01)
    assert method.noted["confident_fraction"].item() == pytest.approx(share, abs=1e-3)
    count = {"all": np.size, "kept": np.sum}[mean_over]
    expected = 0.1 * masked_loss(logits, probabilities, threshold, count)
    assert losses["consistency"].item() == pytest.approx(expected, rel=2e-3)


def test_threshold_zero_keeps_all_pixels_and_above_one_none(task, batch):
    method = fixmatch(task, threshold=0.0)
    consistency = method.losses(batch, END)["consistency"].item()
    assert method.noted["confident_fraction"] == 1
    with torch.no_grad():
        pseudo = method.student(batch.unlabeled("weak")).logits.argmax(1)
        expected = 0.1 * L.supervised_loss(method.student(batch.unlabeled("strong")).logits, pseudo)
    assert consistency == pytest.approx(expected.item(), rel=1e-3)
    method = fixmatch(task, threshold=1.01)
    assert method.losses(batch, END)["consistency"].item() == 0
    assert method.noted["confident_fraction"] == 0


@pytest.mark.parametrize("source", ["student", "teacher"])
def test_no_gradient_passes_a_pseudo_label(task, batch, source):
    method = fixmatch(task, threshold=0.3, pseudo_source=source, negative=1.0)
    weak, strong = (batch.images(name).clone().requires_grad_() for name in ("weak", "strong"))
    losses = method.losses(Batch({"weak": weak, "strong": strong}, batch.labels), END)
    (losses["consistency"] + losses["negative"]).backward()
    assert not weak.grad.any()
    assert strong.grad[2:].any()
    assert not strong.grad[:2].any()  # labelled images have no strong view
    assert all(p.grad is None and not p.requires_grad for p in method.teacher.parameters())


def test_all_images_form_one_batch(task, batch):
    method = fixmatch(task)
    seen = []
    method.student.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    losses = method.losses(batch, END)
    (images,) = seen
    assert torch.equal(images, torch.cat([batch.images("weak"), batch.unlabeled("strong")]))
    expected = L.supervised_loss(method.student(batch.labeled("weak")).logits, batch.labels)
    assert losses["supervised"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_weight_follows_the_ramp(task, batch):
    method = fixmatch(task, threshold=0.0, consistency=1.0, ramp_up=0.5)
    weighted = [method.losses(batch, Progress(step, 100))["consistency"].item() for step in (0, 25, 50, 100)]
    assert weighted[2] == weighted[3]
    assert weighted[0] / weighted[3] == pytest.approx(math.exp(-5), rel=1e-4)
    assert weighted[1] / weighted[3] == pytest.approx(math.exp(-1.25), rel=1e-4)


def test_negative_learning_is_off_and_then_agrees_with_its_formula(task, batch):
    assert "negative" not in fixmatch(task).losses(batch, END)
    generator = torch.Generator().manual_seed(0)
    logits, other = (2 * torch.randn(2, 4, *task.size, generator=generator) for _ in range(2))
    p, q = (np.moveaxis(softmax(x.double().numpy()), 1, -1).reshape(-1, 4) for x in (logits, other))
    certainty = (1 + (q * np.log(q)).sum(1) / math.log(4)).mean()
    expected = certainty * -np.log(1 - p[np.arange(len(p)), q.argmin(1)] + 1e-6).mean()
    assert negative_learning(logits, other.softmax(1)).item() == pytest.approx(expected, rel=1e-4)


# With CTAugment


class WithCTAugment(FixMatch):
    """FixMatch as its switch makes it."""

    class Config(FixMatch.Config):
        augmentation: str = "cta"
        probe_every: int = 2


@pytest.fixture(scope="module", params=[2, 3], ids=["2d", "3d"])
def contract(request, tmp_path_factory):
    return MethodContract("fixmatch", WithCTAugment, request.param, tmp_path_factory.mktemp("cta"))


@pytest.mark.parametrize("check", MethodContract.checks())
def test_with_ctaugment_the_contract_holds(contract, check):
    getattr(contract, check)()


def test_the_contract_probes(contract):
    rates = {k: v for k, v in contract.weights.items() if "rates" in k}
    assert len(rates) == 2
    assert all(((v >= 0) & (v < 1)).any() for v in rates.values())


def test_the_strong_view_keeps_the_positions_of_the_weak_one_and_labels_follow(task, batch, monkeypatch):
    """Without photometry, strong images are the weak ones; a network that sees through the geometry is never wrong."""
    monkeypatch.setattr("semiseg.ctaugment.recolor", lambda images, policy: images)
    method = fixmatch(task, augmentation="cta", threshold=0.9)
    seen = []

    class Seer(nn.Module):
        def forward(self, images):
            seen.append(images)
            return Output(1e3 * torch.cat([0.5 - images, images - 0.5, torch.full_like(images, -1.0)], 1))

    masks = torch.zeros(4, *task.size).long()
    masks[:, ..., 4:15, 6:20] = 1
    method.student = Seer()
    losses = method.losses(Batch({"plain": masks[:, None].float()}, masks[:2]), END)
    (images,) = seen
    assert torch.equal(images[2:4], images[4:])
    assert not torch.equal(images[:4, 0], masks.float())
    certain = images[:4].sub(0.5).abs() > 0.499
    assert certain.float().mean() > 0.7
    assert losses["supervised"].item() < 2  # wrong labels would cost 500 each


def test_ctaugment_learns_from_labeled_images_at_the_stated_steps(task, batch):
    method = fixmatch(task, augmentation="cta", probe_every=3)
    assert method.views == ("plain",)
    probed, changed = [], []
    method.teacher.register_forward_pre_hook(lambda module, inputs: probed.append(len(inputs[0])))
    for step in range(6):
        before = method.augment.photometry.rates.clone()
        method.losses(batch, Progress(step, 100))
        changed.append(not torch.equal(before, method.augment.photometry.rates))
    assert changed == [False, False, True] * 2
    assert probed == [len(batch.labels)] * 2
