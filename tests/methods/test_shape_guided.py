"""Shape-guided segmentation: what it learns from, who learns from which loss, and what its read-outs say."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from regions import bits, listen, shares, spread, told_apart
from semiseg.contract import assert_equal, tiny_task
from semiseg.discrimination import turned
from semiseg.losses import one_hot
from semiseg.method import Batch, Progress, predict
from semiseg.methods.shape_guided import Discriminator, ShapeGuided

REGIONS = Progress(0, 10, "regions")


def random_batch(task, labels=None):
    """Images in every view, and masks of other data in the stream."""
    generator = torch.Generator().manual_seed(0)
    views = {name: 0.5 + torch.rand(2, 1, *task.size, generator=generator) / 2 for name in ShapeGuided.views}
    views["plain"][:, :, ..., :5] = 0  # lies outside the field of view
    masks = torch.randint(task.classes, (3, *task.size), generator=generator) if labels is None else labels
    shapes = Batch({"plain": torch.zeros(3, 1, *task.size)}, masks)
    return Batch(views, torch.zeros(0, *task.size, dtype=torch.long), draw={"shapes": shapes}.__getitem__)


def learning(method):
    """Parameters by the part of the method that they belong to, once there was a backward pass."""
    return {name for name, part in method.named_children() for p in part.parameters() if p.grad is not None}


@pytest.fixture
def method(task):
    return ShapeGuided(task, ShapeGuided.Config(shapes="tiny", clusters=5, region_temperature=0.02)).train()


def test_clusters_are_pushed_towards_real_masks_and_the_discriminator_stays_frozen(method, task):
    loss = method.losses(random_batch(task), REGIONS)["shape"]
    verdict = method.discriminator(method.maps).double().detach().numpy()
    assert loss.item() == pytest.approx(np.mean([-math.log(1 / (1 + math.exp(-x))) for x in verdict]), rel=1e-4)
    loss.backward()
    assert learning(method) == {"pixels"}


def test_regions_their_sureness_and_shapes_count_by_their_weights(task):
    weights = {"region_weight": 3.0, "entropy_weight": 0.7, "shape_weight": 2.0}
    others = {"patches": 6, "temperature": 0.15, "region_temperature": 0.3}
    method = ShapeGuided(task, ShapeGuided.Config(shapes="tiny", clusters=5, **weights, **others)).train()
    spread(method.pixels)
    calls, batch = listen(method.pixels), random_batch(task)
    losses = method.losses(batch, REGIONS)
    ((given, known),) = calls
    assert torch.equal(given["first"], batch.images("weak"))
    assert torch.equal(given["second"], batch.images("weak-2"))
    assert (given["patches"], given["temperature"]) == (6, 0.15)
    clusters = shares(method.pixels, known.features)
    assert losses["regions"].item() == pytest.approx(3 * told_apart(known.vectors, clusters, 0.3), rel=1e-4)
    assert losses["entropy"].item() == pytest.approx(0.7 * bits(clusters), rel=1e-3)
    verdict = method.discriminator(method.maps).double().detach().numpy()
    assert losses["shape"].item() == pytest.approx(2 * np.mean([math.log1p(math.exp(-x)) for x in verdict]), rel=1e-4)
    assert {name: losses[name] for name in known.losses} == known.losses


def test_the_discriminator_learns_from_masks_and_maps_in_the_field_of_view_and_gives_clusters_no_gradient(method, task):
    batch = random_batch(task)
    method.losses(batch, REGIONS)
    method.discriminator.requires_grad_(True).train()
    loss = method.adversary_losses(batch, REGIONS)["discriminator"]
    masks = one_hot(batch["shapes"].labels, 3)[:, 1:].numpy()
    assert torch.equal(method.maps[:2] > 0, torch.arange(task.size[-1]).expand_as(method.maps[:2]) >= 7)  # 5 + margin
    masks *= (method.maps[:3, :1] > 0).numpy()
    masks = torch.from_numpy(masks).float()
    real = method.discriminator(masks).double().detach().numpy()
    made = method.discriminator(method.maps).double().detach().numpy()
    expected = [-math.log(1 / (1 + math.exp(-x))) for x in real], [-math.log(1 / (1 + math.exp(x))) for x in made]
    assert loss.item() == pytest.approx(sum(map(np.mean, expected)) / 2, rel=1e-4)
    shown = []
    method.discriminator.register_forward_pre_hook(lambda _, given: shown.append(given[0]))
    loss = method.adversary_losses(batch, REGIONS)["discriminator"]
    torch.testing.assert_close(shown, [masks, method.maps])
    loss.backward()
    assert learning(method) == {"discriminator"}
    assert method.adversary_losses(batch, Progress(0, 10, "patches")) == {}


def test_the_field_of_view_is_turned_as_the_second_view_is(method, task):
    batch = random_batch(task)
    torch.manual_seed(1)
    moves = method.read(batch).moves
    torch.manual_seed(1)
    method.losses(batch, REGIONS)
    inside = (torch.arange(task.size[-1]) >= 7).float().expand(2, 1, *task.size)
    assert not torch.equal(turned(inside, moves), inside)
    assert torch.equal(method.maps[2:, :1] > 0, turned(inside, moves) > 0)


def test_other_masks_change_what_the_discriminator_learns_and_nothing_else_does_so(method, task):
    first, second = (random_batch(task, torch.full((3, *task.size), value)) for value in (0, 1))
    losses = []
    for batch in (first, second):
        torch.manual_seed(0)
        losses.append(method.losses(batch, REGIONS))
        losses[-1]["discriminator"] = method.adversary_losses(batch, REGIONS)["discriminator"]
    assert {k for k, v in losses[0].items() if not torch.equal(v, losses[1][k])} == {"discriminator"}


def test_the_network_learns_what_regions_say_by_how_sure_they_are(method, task):
    images = random_batch(task).images()
    spread(method.pixels)  # else none is sure
    before = {name: value.clone() for name, value in method.pixels.state_dict().items()}
    method.refine(random_batch(task), Progress(0, 10, "refinement"))["refinement"].backward()
    assert learning(method) == {"refined"}
    assert_equal(before, method.pixels.state_dict())
    assert method.pixels.training
    method.eval()
    loss = method.refine(random_batch(task), Progress(0, 10, "refinement"))["refinement"].item()
    vectors, clusters = (v.detach().double().flatten(2).numpy() for v in method.pixels(images))
    field = (torch.arange(task.size[-1]).expand(task.size) >= 7).flatten().numpy()
    p = method.refined(images).logits.detach().double().softmax(1).flatten(2).numpy()
    q, w = np.zeros_like(p), np.zeros((len(p), p.shape[2]))
    for x in range(len(p)):
        r = (clusters[x] * field) @ vectors[x].T
        r /= np.linalg.norm(r, axis=1, keepdims=True)
        e = np.exp(r @ vectors[x] / 0.02)
        leaning = e / e.sum(0)
        q[x, 1:] = leaning[:2] * field
        q[x, 0] = 1 - q[x, 1:].sum(0)
        w[x] = 1 + (leaning * np.log(leaning)).sum(0) / math.log(5)
    assert w.sum() > 1  # less would be taken for 1
    crossed = -(w[:, None] * q * np.log(p)).sum() / w.sum()
    total = [(w * (p[:, c] ** 2 + q[:, c] ** 2)).sum() for c in range(3)]
    dice = np.mean([1 - (2 * (w * p[:, c] * q[:, c]).sum() + 1e-5) / (total[c] + 1e-5) for c in range(3)])
    assert loss == pytest.approx(0.5 * (crossed + dice), rel=1e-3)


def test_read_outs_say_probabilities_of_classes_at_the_size_of_the_image(method, task):
    images = 0.5 + torch.rand(2, 1, *(side + 8 for side in task.size)) / 2
    images[..., :6] = 0
    predictors = method.predictors()
    assert next(iter(predictors)) == "refined"
    clusters = method.eval().pixels(images)[1]
    for name, network in predictors.items():
        logits = predict(network, images).logits
        assert logits.shape == (2, 3, *images.shape[2:])
        if name != "refined":
            torch.testing.assert_close(logits.exp().sum(1), torch.ones_like(logits[:, 0]))
            assert logits[:, 1:, ..., :8].exp().max() < 1e-6  # outside the field of view
    said = predict(predictors["map"], images).logits.softmax(1)
    torch.testing.assert_close(said[:, 1:, ..., 8:], clusters[:, :2, ..., 8:])


def test_a_read_out_of_one_image_does_not_depend_on_others(method, task):
    images = 0.5 + torch.rand(3, 1, *task.size) / 2
    regions = method.predictors()["regions"]
    torch.testing.assert_close(
        predict(regions, images).logits[1:2], predict(regions, images[1:2]).logits, atol=1e-3, rtol=0
    )


def test_the_discriminator_is_not_linear_and_reads_maps_of_any_size():
    for size in ((64, 64), (20, 33), (4, 4), (8, 24, 24), (1, 16, 16)):
        task = tiny_task(2 if len(size) == 2 else 3)
        discriminator = Discriminator(type(task)(1, 3, size, task.network))
        assert discriminator(torch.rand(3, 2, *size)).shape == (3,)
        slopes = [layer.negative_slope for layer in discriminator.modules() if isinstance(layer, torch.nn.LeakyReLU)]
        assert slopes == [0.2] * 8


def test_fewer_clusters_than_classes_become_as_many(task):
    method = ShapeGuided(task, ShapeGuided.Config(clusters=2))
    assert method.pixels(F.pad(torch.zeros(1, 1, *task.size), (0, 0)))[1].shape[1] == task.classes


def test_the_discriminator_sees_masks_softened_in_plane_and_not_darkened_at_the_border(method, task):
    shown = []
    method.discriminator.features.register_forward_pre_hook(lambda _, given: shown.append(given[0]))
    masks = torch.rand(2, 2, *task.size)
    method.discriminator(masks)
    side, reach = task.size[-1], range(-2, 3)
    w = np.exp(-0.5 * np.array(reach) ** 2.0)
    w, expected = np.outer(w, w) / w.sum() ** 2, np.zeros(masks.shape)
    place = [[min(max(i + d, 0), side - 1) for d in reach] for i in range(side)]
    for i in range(side):
        for j in range(side):
            expected[..., i, j] = (w * masks.numpy()[..., place[i], :][..., place[j]]).sum((-1, -2))
    np.testing.assert_allclose(shown[0].numpy(), expected, atol=1e-5)
