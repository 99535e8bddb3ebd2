"""UniMatch: certain pixels only, pasted together with what is known about them, and no gradient into the labels."""

import numpy as np
import pytest
import torch

from semiseg.losses import dice_loss, one_hot
from semiseg.method import Progress
from semiseg.methods.unimatch import UniMatch, random_boxes

SOME = Progress(50, 100)


@pytest.mark.parametrize(("threshold", "kept"), [(0.0, 1.0), (1.0, 0.0)])
def test_only_certain_pixels_teach(task, batch, threshold, kept):
    method = UniMatch(task, UniMatch.Config(threshold=threshold))
    losses = method.losses(batch, SOME)
    assert method.noted["confident_fraction"] == kept
    assert (losses["images"] > 0) == (losses["features"] > 0) == bool(kept)


def test_the_pasted_box_carries_its_pseudo_label_and_its_confidence(task, batch):
    method = UniMatch(task, UniMatch.Config(cutmix=1))
    images = batch.unlabeled()
    index = torch.arange(images[:1, :1].numel()).view(1, 1, *task.size)
    origin = torch.tensor([0, 1]).view(2, *[1] * (images.ndim - 1)).expand(2, 1, *task.size)
    mixed, pseudo, sure = method.cut_and_paste(origin.float(), origin, (origin == 0).float())
    assert 0 < (mixed != origin).float().mean() < 0.75
    assert torch.equal(mixed.long(), pseudo)
    assert torch.equal(sure, (pseudo == 0).float())
    same, _ = method.cut_and_paste(index.expand(2, *index.shape[1:]), origin)
    assert (same == index).all()  # nothing moves


def test_boxes_have_the_published_area_and_lie_inside(task):
    images = torch.rand(2000, 1, *task.size)[:, :, ..., :1, :1].expand(-1, -1, *task.size)
    share = random_boxes(images, 1.0).flatten(1).float().mean(1)
    assert 0.25 * 0.21 < share.mean() < 0.21 + 0.02  # 2 to 40 % where the box fits; a flat volume cuts it
    assert share.max() < 0.45
    empty = (random_boxes(images, 0.5).flatten(1).sum(1) == 0).float().mean()
    assert empty == pytest.approx(0.5, abs=0.06)


def test_labels_come_from_the_weak_view_without_gradient(task, batch):
    method = UniMatch(task, UniMatch.Config(threshold=0, dropout=0, cutmix=0)).eval()
    losses = method.losses(batch, SOME)
    weak = method.model(batch.unlabeled("weak")).logits
    target = one_hot(weak.argmax(1), task.classes)
    one = torch.ones_like(weak[:, :1])
    strong = [method.model(batch.unlabeled(v)).logits.softmax(1) for v in ("strong", "strong-2")]
    expected = np.mean([dice_loss(p, target, one).item() for p in strong])
    assert losses["images"].item() == pytest.approx(0.25 * expected, rel=1e-4)
    alone = 0.25 * torch.stack([dice_loss(p, target, one) for p in strong]).mean()
    parameters = [*method.model.parameters()]
    gradients = (torch.autograd.grad(loss, parameters, retain_graph=True) for loss in (losses["images"], alone))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))
    # Without dropout the feature stream predicts what the weak view does, and learns as its own pseudo-labels say.
    assert losses["features"].item() == pytest.approx(0.25 * dice_loss(weak.softmax(1), target, one).item(), rel=1e-4)


def test_the_weights_of_all_losses_add_up_to_one_so_that_one_learning_rate_serves_all_methods(task, batch):
    """The published sum is halved: weights of 1, ½ and ½; without that, steps are twice as long."""
    method = UniMatch(task, UniMatch.Config(images=0, features=0)).eval()
    alone = method.losses(batch, SOME)["supervised"].item()
    shares = method.config.model_copy(update={"images": 2.0, "features": 1.0})
    method.config = shares
    assert method.losses(batch, SOME)["supervised"].item() == pytest.approx(alone / 4, rel=1e-5)


@pytest.mark.parametrize("perturbed", ["unlabeled", "all"])
def test_perturbed_features_teach_by_unlabeled_images_only(task, batch, perturbed):
    method = UniMatch(task, UniMatch.Config(dropout=0.5, perturbed=perturbed)).eval()
    labeled, weak, dropped = method.weak_and_perturbed(batch)
    assert dropped.shape == weak.shape
    plain = method.model(batch.images("weak")).logits
    assert torch.allclose(torch.cat([labeled, weak]), plain, atol=1e-4)
    assert not torch.allclose(dropped, weak, atol=1e-2)
    method.config = method.config.model_copy(update={"dropout": 0.0})
    assert torch.allclose(method.weak_and_perturbed(batch)[2], weak, atol=1e-4)


def test_cross_entropy_is_that_of_confident_pixels_over_all(task):
    method = UniMatch(task, UniMatch.Config(distance="cross_entropy"))
    logits = torch.randn(2, 3, *task.size)
    pseudo = torch.randint(3, (2, 1, *task.size))
    confident = torch.rand(2, 1, *task.size).round()
    log_p = logits.numpy() - np.log(np.exp(logits.numpy()).sum(1, keepdims=True))
    picked = np.take_along_axis(log_p, pseudo.numpy(), 1)
    expected = -(picked * confident.numpy()).mean()
    assert method.distance(logits, pseudo, confident).item() == pytest.approx(expected, rel=1e-5)


def test_strong_images_learn_the_labels_that_came_with_their_boxes(task, batch, monkeypatch):
    whole = lambda images, probability: torch.ones_like(images[:, :1], dtype=torch.bool)  # noqa: E731
    monkeypatch.setattr("semiseg.methods.unimatch.random_boxes", whole)
    method = UniMatch(task, UniMatch.Config(threshold=0.6))
    generator = torch.Generator().manual_seed(0)
    labeled, weak, perturbed = (3 * torch.randn(2, task.classes, *task.size, generator=generator) for _ in range(3))
    method.weak_and_perturbed = lambda batch: (labeled, weak, perturbed)
    used = []
    method.distance = lambda logits, pseudo, confident: used.append((pseudo, confident)) or logits.mean()
    method.losses(batch, SOME)
    probability, pseudo = weak.softmax(1).max(1, keepdim=True)
    sure = (probability >= 0.6).float()
    assert 0 < sure.mean() < 1
    assert len(used) == 3
    strong = [call for call in used if not torch.equal(call[0], pseudo)]
    assert len(strong) == 2, "both strong streams were cut, the perturbed features were not"
    for target, mask in strong:
        assert torch.equal(target, pseudo.roll(1, 0))
        assert torch.equal(mask, sure.roll(1, 0))
