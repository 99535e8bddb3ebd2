"""Every formula against an independent NumPy evaluation of it."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from semiseg import losses


@pytest.fixture(params=[(5, 7), (3, 4, 5)], ids=["2d", "3d"])
def space(request):
    return request.param


@pytest.fixture
def logits(space):
    return torch.from_numpy(np.random.default_rng(1).normal(0, 2, (2, 3, *space))).float()


@pytest.fixture
def labels(space):
    return torch.from_numpy(np.random.default_rng(2).integers(0, 3, (2, *space)))


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def numpy_dice(p, q, m):
    terms = []
    for c in range(p.shape[1]):
        weight = m[:, 0]
        overlap = (weight * p[:, c] * q[:, c]).sum()
        total = (weight * p[:, c] ** 2).sum() + (weight * q[:, c] ** 2).sum()
        terms.append(1 - (2 * overlap + 1e-5) / (total + 1e-5))
    return np.mean(terms)


def test_supervised_loss_is_half_cross_entropy_and_half_dice_over_the_whole_batch(logits, labels):
    p, y = softmax(logits.numpy()), np.moveaxis(np.eye(3)[labels.numpy()], -1, 1)
    cross_entropy = -(y * np.log(p)).sum(1).mean()
    expected = 0.5 * (cross_entropy + numpy_dice(p, y, np.ones_like(p[:, :1])))
    assert losses.supervised_loss(logits, labels).item() == pytest.approx(expected, rel=1e-5)


def test_a_perfect_prediction_costs_nothing_even_when_a_class_is_absent(labels):
    labels = labels.clamp(max=1)  # class 2 does not occur
    perfect = 100 * losses.one_hot(labels, 3)
    assert losses.supervised_loss(perfect, labels).item() == pytest.approx(0, abs=1e-5)


def test_soft_supervision_ignores_pixels_outside_its_mask(logits, space):
    random = np.random.default_rng(3)
    q = softmax(random.normal(0, 1, logits.shape))
    m = random.integers(0, 2, (2, 1, *space)).astype(float)
    p = softmax(logits.numpy())
    cross_entropy = (m[:, 0] * -(q * np.log(p)).sum(1)).sum() / m.sum()
    expected = 0.5 * (cross_entropy + numpy_dice(p, q, m))
    target, mask = torch.from_numpy(q).float(), torch.from_numpy(m).float()
    assert losses.soft_supervised_loss(logits, target, mask).item() == pytest.approx(expected, rel=1e-4)
    changed = torch.where(mask.bool(), logits, logits + 5 * torch.randn_like(logits))
    assert losses.soft_supervised_loss(changed, target, mask).item() == pytest.approx(expected, rel=1e-4)


def test_a_mask_that_all_items_share_keeps_as_many_pixels_of_each(logits, space):
    target = torch.from_numpy(softmax(np.random.default_rng(3).normal(0, 1, logits.shape))).float()
    mask = torch.from_numpy(np.random.default_rng(4).integers(0, 2, (1, 1, *space))).float()
    p, q, m = softmax(logits.numpy()), target.numpy(), np.repeat(mask.numpy(), 2, 0)
    cross_entropy = (m[:, 0] * -(q * np.log(p)).sum(1)).sum() / m.sum()
    expected = 0.5 * (cross_entropy + numpy_dice(p, q, m))
    assert losses.soft_supervised_loss(logits, target, mask).item() == pytest.approx(expected, rel=1e-4)
    expected = (m * (p - q) ** 2).sum() / (3 * m.sum())
    assert losses.masked_mse(logits, target, mask).item() == pytest.approx(expected, rel=1e-4)


def test_soft_supervision_without_a_confident_pixel_is_exactly_zero(logits):
    logits.requires_grad_()
    loss = losses.soft_supervised_loss(logits, logits.detach().softmax(1), torch.zeros_like(logits[:, :1]))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-7)
    assert not logits.grad.any()


def test_masked_mse_is_the_mean_over_kept_pixels_and_classes(logits, space):
    q = softmax(np.random.default_rng(4).normal(0, 1, logits.shape))
    m = np.random.default_rng(5).integers(0, 2, (2, 1, *space)).astype(float)
    expected = (m * (softmax(logits.numpy()) - q) ** 2).sum() / (3 * m.sum())
    target = torch.from_numpy(q).float()
    assert losses.masked_mse(logits, target, torch.from_numpy(m)).item() == pytest.approx(expected, rel=1e-5)
    everywhere = torch.ones_like(logits[:, :1])
    assert losses.masked_mse(logits, target, everywhere).item() == pytest.approx(
        losses.mse_consistency(logits, target).item(), rel=1e-5
    )
    assert losses.masked_mse(logits, target, 0 * everywhere).item() == 0


def test_kl_and_entropy_and_sharpening(logits):
    p, q = softmax(logits.numpy()), softmax(np.random.default_rng(6).normal(0, 1, logits.shape))
    target = torch.from_numpy(q).float()
    expected = (q * np.log(q / p)).sum(1).mean()
    assert losses.kl_consistency(logits, target).item() == pytest.approx(expected, rel=1e-4)
    entropy = -(q * np.log(q + 1e-6)).sum(1, keepdims=True)
    np.testing.assert_allclose(losses.entropy(target).numpy(), entropy, rtol=1e-4)
    sharp = q**2 / (q**2).sum(1, keepdims=True)
    np.testing.assert_allclose(losses.sharpen(target, 0.5).numpy(), sharp, rtol=1e-4, atol=1e-6)


def test_sureness_falls_from_one_to_nothing_as_entropy_rises(logits):
    q = softmax(logits.numpy())
    expected = 1 + (q * np.log(q)).sum(1, keepdims=True) / np.log(q.shape[1])
    np.testing.assert_allclose(losses.sureness(torch.from_numpy(q).float()).numpy(), expected, rtol=1e-4, atol=1e-6)
    assert losses.sureness(torch.full((1, 4, 2), 0.25)).abs().max() < 1e-6
    assert losses.sureness(torch.eye(4)[None]).min() > 1 - 1e-5


def test_a_discriminator_is_asked_for_real_or_made_as_the_formula_says():
    x = np.array([-3.0, 0.5, 40.0])
    sigma = 1 / (1 + np.exp(-x))
    logits = torch.from_numpy(x)
    assert losses.taken_for(logits, real=True).item() == pytest.approx(-np.log(sigma).mean(), rel=1e-5)
    assert losses.taken_for(logits, real=False).item() == pytest.approx(np.log(1 + np.exp(x)).mean(), rel=1e-5)


def test_one_vs_rest_logits_give_the_softmax_probabilities_back(logits):
    np.testing.assert_allclose(
        losses.one_vs_rest(logits).sigmoid().numpy(), softmax(logits.numpy())[:, 1:], rtol=1e-4, atol=1e-6
    )
    binary = logits[:, :2]
    expected = binary[:, 1:] - binary[:, :1]
    np.testing.assert_allclose(losses.one_vs_rest(binary).numpy(), expected.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("classes", [2, 4])
def test_a_network_that_is_surely_wrong_still_learns_that_a_pixel_is_background(classes):
    """A probability within 1e-6 of 1 was cut off before, and with it the gradient: what was marked stayed marked."""
    logits = torch.full((1, classes, 1, 2), -50.0)
    logits[:, 1, :, 0], logits[:, 0, :, 1] = 50, 50  # sure of the class at one pixel, of the background at the other
    logits.requires_grad_()
    values = losses.one_vs_rest(logits)
    assert values[0, 0].flatten().tolist() == pytest.approx([100 - np.log(classes - 1), -100])
    F.softplus(values[:, 0]).sum().backward()  # the cross-entropy with "background everywhere"
    assert logits.grad[0, 1].flatten().tolist() == pytest.approx([1, 0])


def test_structure_loss_weighs_pixels_near_the_boundary():
    random = np.random.default_rng(7)
    z, y = random.normal(0, 2, (2, 1, 9, 9)), (random.random((2, 1, 9, 9)) > 0.5).astype(float)
    z, y = np.concatenate([z, z[:1]]), np.concatenate([y, np.zeros((1, 1, 9, 9))])
    padded = np.pad(y, [(0, 0), (0, 0), (1, 1), (1, 1)])
    mean = sum(padded[:, :, i : i + 9, j : j + 9] for i in range(3) for j in range(3)) / 9
    weight = 1 + 5 * np.abs(mean - y)
    q = 1 / (1 + np.exp(-z))
    bce = -(y * np.log(q) + (1 - y) * np.log(1 - q))

    def total(values):
        return (weight * values).sum((2, 3))

    iou = 1 - (total(q * y) + 1) / (total(q + y) - total(q * y) + 1)
    iou[2] = 0  # an image without the structure has no overlap to measure
    expected = (total(bce) / weight.sum((2, 3)) + iou).mean()
    loss = losses.structure_loss(torch.from_numpy(z).float(), torch.from_numpy(y).float(), window=3)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def agreement_by_hand(z, y):
    """The structure loss of one map with the window 3, and with q² + y² in its denominator, in float64."""
    padded = np.pad(y, 1)
    weight = np.empty_like(y)
    for i, j in np.ndindex(*y.shape):
        weight[i, j] = 1 + 5 * abs(padded[i : i + 3, j : j + 3].sum() / 9 - y[i, j])
    q = 1 / (1 + np.exp(-z))
    n, d, bce = 1.0, 1.0, 0.0
    for i, j in np.ndindex(*y.shape):
        n += weight[i, j] * q[i, j] * y[i, j]
        d += weight[i, j] * (q[i, j] ** 2 + y[i, j] ** 2 - q[i, j] * y[i, j])
        bce -= weight[i, j] * (y[i, j] * np.log(q[i, j]) + (1 - y[i, j]) * np.log(1 - q[i, j]))
    return bce / weight.sum() + 1 - n / d


def test_agreement_is_least_where_two_soft_maps_agree_and_the_product_is_not():
    random = np.random.default_rng(11)
    own, other = random.normal(0, 2, (2, 1, 1, 7, 8))
    y = 1 / (1 + np.exp(-other))
    z, target = torch.from_numpy(own).float(), torch.from_numpy(y).float()
    loss = losses.structure_loss(z, target, 3, "agreement")
    assert loss.item() == pytest.approx(agreement_by_hand(own[0, 0], y[0, 0]), rel=1e-5)

    gradients = {}
    for form in ("agreement", "product"):
        agreeing = torch.from_numpy(other).float().requires_grad_()
        losses.structure_loss(agreeing, target, 3, form).backward()
        gradients[form] = agreeing.grad
    assert gradients["agreement"].abs().max() < 1e-6
    assert gradients["product"].min() < -1e-4  # the published form raises maps that agree
    least = agreement_by_hand(other[0, 0], y[0, 0])
    assert all(agreement_by_hand(other[0, 0] + random.normal(0, 0.1, (7, 8)), y[0, 0]) > least for _ in range(20))


def test_foreground_dice_counts_only_classes_that_are_present():
    labels = torch.tensor([[[0, 1, 1, 0]], [[0, 0, 0, 0]]])
    prediction = torch.tensor([[[0, 1, 0, 2]], [[1, 1, 1, 1]]])
    logits = losses.one_hot(prediction, 3)
    assert losses.foreground_dice(logits, labels).item() == pytest.approx(2 * 1 / (1 + 2))
    assert losses.foreground_dice(logits, torch.zeros_like(labels)).isnan()


def test_information_loss_is_the_mean_attraction_over_ordered_pairs():
    generator = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(2, 8, 4, 4, generator=generator) for _ in range(3))
    loss, readout = losses.information_loss([a, b, c], 16, 0.1)  # all 16 positions: their order does not matter
    vectors = {k: torch.nn.functional.normalize(x.flatten(2).mT, dim=2) for k, x in enumerate((a, b, c), 1)}
    pairs = [(j, k) for j in (1, 2, 3) for k in (1, 2, 3) if j != k]
    expected = {(j, k): -(vectors[j] @ vectors[k].mT / 0.1).log_softmax(2).diagonal(0, 1, 2).mean() for j, k in pairs}
    assert loss.item() == pytest.approx(torch.stack([*expected.values()]).mean().item(), rel=1e-4)
    for (j, k), value in expected.items():
        assert float(readout[f"information_{j}_{k}"]) == pytest.approx(math.log(16) - value.item(), abs=1e-4)
    assert losses.information_loss([a, b], 16, 0.1, "batch")[1]["information_candidates"] == 32


def test_attraction_and_repulsion_equal_their_formulas():
    random = np.random.default_rng(8)
    a, b = random.normal(0, 1, (2, 2, 5, 4))
    a, b = (x / np.linalg.norm(x, axis=2, keepdims=True) for x in (a, b))
    similarity = losses.similarities(torch.from_numpy(a), torch.from_numpy(b), 0.1)
    attract, repel = [], []
    for image in range(2):
        s = a[image] @ b[image].T / 0.1
        for i in range(5):
            attract.append(-np.log(np.exp(s[i, i]) / np.exp(s[i]).sum()))
            repel.append(np.log(1 + np.exp(np.delete(s[i], i)).sum()))
    assert losses.attraction_loss(similarity).item() == pytest.approx(np.mean(attract), rel=1e-4)
    assert losses.repulsion_loss(similarity).item() == pytest.approx(np.mean(repel), rel=1e-4)
    together = losses.similarities(torch.from_numpy(a), torch.from_numpy(b), 0.1, "batch")
    assert together.shape == (1, 10, 10)
    flat = a.reshape(10, 4) @ b.reshape(10, 4).T / 0.1
    np.testing.assert_allclose(together[0].numpy(), flat, rtol=1e-4, atol=1e-5)


def test_identical_features_of_min_max_similarity_are_told_apart_easily():
    features = torch.nn.functional.normalize(
        torch.randn(1, 4096, 16, generator=torch.Generator().manual_seed(0)), dim=2
    )
    loss = losses.attraction_loss(losses.similarities(features, features, 0.07)).item()
    assert loss == pytest.approx(0.34, abs=0.03)  # nats; ln 4096 = 8.32 would be a guess


def test_sampled_positions_are_distinct_and_point_at_the_same_pixels():
    features = torch.arange(2 * 1 * 4 * 6, dtype=torch.float32).view(2, 1, 4, 6)
    two = torch.cat([features, torch.ones_like(features)], 1)
    positions = losses.sample_positions(two, 10)
    assert positions.shape == (2, 10)
    assert all(len(set(row.tolist())) == 10 for row in positions)
    vectors = losses.at_positions(two, positions)
    expected = features.flatten(2)[:, 0].gather(1, positions)
    torch.testing.assert_close(vectors[..., 0] / vectors[..., 1], expected)
    assert losses.sample_positions(two, 100).shape == (2, 24)


def test_losses_keep_full_precision_under_autocast(logits, labels):
    with torch.autocast("cpu", torch.bfloat16):
        inside = losses.supervised_loss(logits, labels)
        similarity = losses.similarities(logits.flatten(2), logits.flatten(2), 0.1)
    assert torch.equal(inside, losses.supervised_loss(logits, labels))
    assert similarity.dtype == torch.float32


def test_a_mean_over_an_even_window_keeps_the_size():
    images = torch.rand(1, 1, 8, 3)
    torch.testing.assert_close(losses.box_mean(images, 4), losses.box_mean(images, 3))
    assert losses.box_mean(images, 4).shape == images.shape
