"""ABD: who sees what, which patches are exchanged, and what that adds to cross teaching."""

from math import prod

import pytest
import torch

from semiseg.displacement import exchanged, patch_means
from semiseg.losses import dice_loss, one_hot, supervised_loss
from semiseg.method import Progress
from semiseg.methods.abd import AdaptiveBidirectionalDisplacement


@pytest.fixture
def method(task):
    return AdaptiveBidirectionalDisplacement(task).eval()


def logits_of(task, seed):
    return 3 * torch.randn(2, task.classes, *task.size, generator=torch.Generator().manual_seed(seed))


def test_labelled_images_get_the_patch_that_the_other_doubts_with_its_labels(task, batch, method):
    """Every pixel of the two views, and of their labels, has a number of its own, which tells where it is from."""
    method.config = method.Config(probability=1.0)
    numbers = torch.arange(batch.labels.numel()).reshape(batch.labels.shape)
    marked = [numbers[:, None].float(), numbers[:, None].float() + numbers.numel()]
    logits = [logits_of(task, 0), logits_of(task, 1)]
    sure = [patch_means(x.softmax(1).amax(1, keepdim=True), 4)[..., 0] for x in logits]
    images, labels = method.displaced_labeled(marked, logits, numbers)
    sides = [length // 4 for length in task.size]

    def patch(maps, index, number):
        place = torch.unravel_index(number, (4,) * len(sides))
        return maps[(index, *(slice(k * side, (k + 1) * side) for k, side in zip(place, sides, strict=True)))]

    for own, other in ((0, 1), (1, 0)):
        shown, told = images.chunk(2)[own][:, 0], labels.chunk(2)[own]
        for index in range(len(numbers)):
            place, source = sure[own][index].argmax(), sure[other][index].argmin()
            assert torch.equal(patch(shown, index, place), patch(marked[other][:, 0], index, source))
            assert torch.equal(patch(told, index, place), patch(numbers, index, source))
            assert (shown[index] != marked[own][index, 0]).sum() == prod(sides), "nothing else is exchanged"
            assert (told[index] != numbers[index]).sum() == (prod(sides) if place != source else 0)
    method.config = method.Config(probability=0.0)
    images, labels = method.displaced_labeled(marked, logits, batch.labels)
    assert torch.equal(images, torch.cat(marked))


def test_each_network_sees_its_view_and_both_see_what_was_displaced(batch, method):
    seen = {}
    for name in ("first", "second"):
        shown = seen.setdefault(name, [])
        getattr(method, name).register_forward_pre_hook(lambda module, x, shown=shown: shown.append(x[0]))
    method.losses(batch, Progress(0, 100))
    assert torch.equal(seen["first"][0], batch.images("plain"))
    assert torch.equal(seen["second"][0], batch.images("strong"))
    assert torch.equal(seen["first"][1], seen["second"][1])
    assert len(seen["first"][1]) == 2 * len(batch.images())


def test_unlabelled_images_have_the_nearest_of_the_surest_patches_in_place_of_the_one_in_doubt(batch, method):
    seen = []
    method.first.register_forward_pre_hook(lambda module, x: seen.append(x[0]))
    method.losses(batch, Progress(0, 100))
    free = [batch.unlabeled("plain"), batch.unlabeled("strong")]
    with torch.no_grad():
        both = method.first(batch.images("plain")).logits, method.second(batch.images("strong")).logits
    logits = [x[len(batch.labels) :] for x in both]
    expected = exchanged(free, logits, 4, 4, torch.ones(len(free[0]), dtype=torch.bool))
    assert torch.equal(seen[1][-len(expected) :], expected)


def test_displaced_labelled_images_count_twice_and_end_after_two_thirds(task, batch, method):
    seen = []
    method.first.register_forward_pre_hook(lambda module, x: seen.append(x[0]))
    method.config = method.Config(probability=0.0)
    losses = method.losses(batch, Progress(66, 100))
    labels, images = torch.cat([batch.labels] * 2), seen[1]
    count = len(labels)
    first, second = method.first(images).logits, method.second(images).logits
    expected = 2 * supervised_loss(first[:count], labels).item()
    assert losses["supervised_displaced_1"].item() == pytest.approx(expected, rel=1e-4)
    weight = 0.1 * Progress(66, 100).ramp_up()
    other = one_hot(second[count:].argmax(1), task.classes)
    expected = weight * dice_loss(first[count:].softmax(1), other).item()
    assert losses["cross_displaced_1"].item() == pytest.approx(expected, rel=1e-4)
    assert not [name for name in method.losses(batch, Progress(67, 100)) if name.startswith("supervised_displaced")]


def test_no_gradient_passes_from_one_network_to_the_other(batch, method):
    losses = method.losses(batch, Progress(99, 100))
    (losses["cross_1"] + losses["cross_displaced_1"]).backward()
    assert all(p.grad is None for p in method.second.parameters())
    assert any(p.grad is not None and p.grad.any() for p in method.first.parameters())


def test_each_network_learns_from_the_labels_in_its_view_and_from_the_other_ones_opinions(task, batch, method):
    losses = method.losses(batch, Progress(100, 100))
    with torch.no_grad():
        shown = [(method.first, "plain"), (method.second, "strong")]
        labeled, unlabeled = zip(*(batch.split(net(batch.images(view)).logits) for net, view in shown), strict=True)
    for own, other in ((0, 1), (1, 0)):
        supervised = supervised_loss(labeled[own], batch.labels).item()
        assert losses[f"supervised_{own + 1}"].item() == pytest.approx(supervised, rel=1e-4)
        pseudo = one_hot(unlabeled[other].argmax(1), task.classes)
        cross = method.config.cross * dice_loss(unlabeled[own].softmax(1), pseudo).item()
        assert losses[f"cross_{own + 1}"].item() == pytest.approx(cross, rel=1e-4)
    assert (unlabeled[0].argmax(1) != unlabeled[1].argmax(1)).any(), "else the other's opinion is one's own"
