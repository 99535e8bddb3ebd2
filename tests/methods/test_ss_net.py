"""SS-Net: noise of the stated size that hurts, which vectors are kept, and what is drawn to them."""

import numpy as np
import pytest
import torch

from semiseg.losses import dice_loss
from semiseg.method import Progress
from semiseg.methods.ss_net import SmoothnessAndSeparation


@pytest.fixture
def method(task):
    return SmoothnessAndSeparation(task).eval()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def ranked(module, values):
    with torch.no_grad():
        return module(torch.as_tensor(values)).numpy()[:, 0]


def test_the_separation_is_the_weighted_mean_over_all_pairs_of_a_class(task, method):
    queries, labels = torch.randn(40, 32), torch.randint(3, (40,))
    method.memory.normal_()
    method.known[0, :5], method.known[1, :32] = 1, 1
    expected = 0.0
    for k, kept in enumerate((5, 32)):
        q, m = queries[labels == k + 1].numpy(), method.memory[k, :kept].numpy()
        w, v = sigmoid(ranked(method.attention[k], q)), sigmoid(ranked(method.memory_attention[k], unit(m)))
        w, v = w / w.mean(), v / v.mean()
        expected += (w[:, None] * v * (1 - unit(q) @ unit(m).T)).mean() / 3
    assert method.separation(queries, labels).item() == pytest.approx(expected, rel=1e-4)


def test_classes_without_members_or_kept_vectors_count_nothing(method):
    queries = torch.randn(10, 32)
    assert method.separation(queries, torch.ones(10, dtype=torch.long)).item() == 0  # nothing is known
    method.memory.normal_()
    method.known.fill_(1)
    assert method.separation(queries, torch.zeros(10, dtype=torch.long)).item() == 0
    assert method.separation(queries, torch.ones(10, dtype=torch.long)).item() > 0


def test_what_attention_ranks_highest_of_the_rightly_predicted_is_kept(method):
    projected, labels, right = torch.randn(300, 32), torch.randint(3, (300,)), torch.rand(300) < 0.5
    method.known[:, 0] = 1
    method.remember(projected, labels, right)
    for k in range(2):
        can = ((labels == k + 1) & right).numpy()
        rank = ranked(method.attention[k], projected)
        best = projected.numpy()[np.flatnonzero(can)[np.argsort(-rank[can])[:32]]]
        np.testing.assert_array_equal(method.memory[k].numpy(), best)
        assert method.known[k].sum() == 32


def test_few_vectors_are_kept_as_few_and_none_leaves_the_former(method):
    projected, labels = torch.randn(100, 32), torch.zeros(100, dtype=torch.long)
    labels[:3] = 1
    method.remember(projected, labels, torch.zeros(100, dtype=torch.bool))  # a class that was never right
    assert method.known.sum(1).tolist() == [3, 0]
    before = method.memory.clone()
    method.remember(torch.randn(100, 32), labels, torch.zeros(100, dtype=torch.bool))
    assert torch.equal(method.memory, before)
    method.remember(projected + 1, labels, labels == labels)
    assert not torch.equal(method.memory, before)


def test_the_noise_has_its_size_and_hurts_more_than_chance(task, batch, method):
    images, shown = batch.images(), []
    target = method.segmenter(images).logits.detach().softmax(1)
    method.segmenter.register_forward_pre_hook(lambda module, x: shown.append(x[0].detach()))
    loss = method.roughness(images, target)
    sizes = [(x - images).square().flatten(1).mean(1).sqrt() for x in shown]
    torch.testing.assert_close(sizes[0], torch.full((4,), 10 / 256), rtol=1e-3, atol=0)
    torch.testing.assert_close(sizes[1], torch.full((4,), 6 / 256), rtol=1e-3, atol=0)
    chance = []
    for _ in range(3):
        noise = torch.randn_like(images)
        noise *= 6 / 256 / noise.square().flatten(1).mean(1).sqrt().view(-1, *[1] * (task.dims + 1))
        chance.append(dice_loss(method.segmenter(images + noise).logits.softmax(1), target).item())
    assert loss.item() > max(chance)


def test_neither_the_target_nor_the_search_for_noise_moves_the_network(batch, method):
    images = batch.images()
    target = method.segmenter(images).logits.softmax(1).detach().requires_grad_()
    torch.manual_seed(0)
    method.roughness(images, target.detach()).backward()
    assert target.grad is None
    once = [p.grad.clone() for p in method.segmenter.parameters()]
    method.zero_grad()
    shown = []
    method.segmenter.register_forward_pre_hook(lambda module, x: shown.append(x[0].detach()))
    torch.manual_seed(0)
    method.roughness(images, target.detach())
    dice_loss(method.segmenter(shown[1]).logits.softmax(1), target.detach()).backward()
    for expected, p in zip(once, method.segmenter.parameters(), strict=True):
        torch.testing.assert_close(p.grad, expected, rtol=1e-3, atol=1e-7)


def test_kept_vectors_get_no_gradient_and_attention_passes_none_to_the_features(batch, method):
    losses = method.losses(batch, Progress(100, 100))
    assert not method.memory.requires_grad
    losses["separation"].backward()
    assert any(p.grad is not None and p.grad.any() for p in method.segmenter.parameters())
    queries = torch.randn(20, 32, requires_grad=True)
    method.known.fill_(1)
    method.memory.normal_()
    labels = torch.ones(20, dtype=torch.long)
    (actual,) = torch.autograd.grad(method.separation(queries, labels), queries)
    fixed = torch.nn.functional.normalize(queries, dim=1)
    with torch.no_grad():
        w = method.attention[0](queries)[:, 0].sigmoid()
        m = torch.nn.functional.normalize(method.memory[0], dim=1)
        v = method.memory_attention[0](m)[:, 0].sigmoid()
    loss = (1 - (w[:, None] * fixed).sum(0) / w.sum() @ ((v[:, None] * m).sum(0) / v.sum())) / 3
    (expected,) = torch.autograd.grad(loss, queries)
    torch.testing.assert_close(actual, expected)


def test_adversarial_passes_leave_the_running_statistics_alone(task, batch):
    method = SmoothnessAndSeparation(task).train()
    target = method.segmenter(batch.images()).logits.detach().softmax(1)
    before = {n: b.clone() for n, b in method.segmenter.named_buffers()}
    method.roughness(batch.images(), target)
    assert all(torch.equal(b, before[n]) for n, b in method.segmenter.named_buffers())


def test_vectors_of_rightly_predicted_pixels_alone_are_offered_to_the_memory(task, batch, method):
    offered = []
    method.remember = lambda projected, labels, right: offered.append((labels, right))
    said = method.segmenter(batch.labeled()).logits.argmax(1)
    method.losses(batch, Progress(0, 100))
    ((labels, right),) = offered
    assert 0 < right.float().mean() < 1
    if len(labels) == batch.labels.numel():  # the last map has the size of the image
        assert torch.equal(labels, batch.labels.flatten())
        assert torch.equal(right, (said == batch.labels).flatten())


def test_the_prediction_is_the_target_of_its_noisy_self_and_gets_no_gradient(method, batch):
    targets = []
    method.roughness = lambda images, target: targets.append(target) or images.sum() * 0 + 1
    losses = [method.losses(batch, Progress(step, 100)) for step in (0, 100)]
    assert not any(target.requires_grad for target in targets)
    torch.testing.assert_close(targets[0], method.segmenter(batch.images()).logits.softmax(1))
    ratio = losses[0]["smoothness"] / losses[1]["smoothness"]
    assert ratio.item() == pytest.approx(np.exp(-5), rel=1e-4)
