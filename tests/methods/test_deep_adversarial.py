"""Deep adversarial network: who learns from which loss, and what the discriminator is told."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from semiseg.method import Batch, Progress, Task
from semiseg.methods.deep_adversarial import DeepAdversarial, Discriminator


def test_the_discriminator_has_its_published_size_at_published_and_at_small_images():
    def count(*task):
        return sum(p.numel() for p in Discriminator(Task(*task)).parameters())

    assert count(1, 4, (256, 256), "unet") == 2_762_754
    assert count(1, 2, (96, 96, 96), "unet_3d") == 11_024_386
    for size in ((20, 33), (8, 24, 24)):
        maps = torch.rand(1, 3, *size)
        assert Discriminator(Task(1, 3, size, "any"))(maps, torch.rand(1, 1, *size)).shape == (1, 2)


def test_the_segmenter_is_pushed_towards_labeled_looks_and_the_discriminator_stays_frozen(task, batch):
    method = DeepAdversarial(task).train()
    method.segmenter.eval()
    losses = method.losses(batch, Progress(100, 100))
    losses["adversarial"].backward()
    assert any(p.grad is not None and p.grad.any() for p in method.segmenter.parameters())
    assert all(p.grad is None for p in method.discriminator.parameters())
    maps = method.segmenter(batch.unlabeled()).logits.softmax(1)
    verdict = method.discriminator(maps, batch.unlabeled())
    assert losses["adversarial"].item() == pytest.approx(0.1 * cross_entropy(verdict, torch.ones(2).long()).item())


@pytest.mark.parametrize("maps", ["training", "evaluation"])
def test_the_discriminator_starts_at_ln_2_and_gives_the_segmenter_no_gradient(task, batch, maps):
    method = DeepAdversarial(task, DeepAdversarial.Config(maps=maps)).train()
    method.losses(batch, Progress(0, 100))
    method.discriminator.requires_grad_(True).train()
    loss = method.adversary_losses(batch, Progress(0, 100))["discriminator"]
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2), abs=0.05)
    assert all(p.grad is None for p in method.segmenter.parameters())
    assert all(p.grad is not None for p in method.discriminator.parameters())
    assert method.segmenter.training


def test_labeled_images_are_the_first_of_a_batch_of_any_composition(task):
    images, labels = torch.rand(4, 1, *task.size), torch.zeros(1, *task.size, dtype=torch.long)
    batch = Batch({"plain": images}, labels)
    method = DeepAdversarial(task).train()
    method.losses(batch, Progress(0, 100))
    loss = method.adversary_losses(batch, Progress(0, 100))["discriminator"]
    verdict = method.discriminator(method.maps, images)
    assert loss.item() == pytest.approx(cross_entropy(verdict, torch.tensor([1, 0, 0, 0])).item())


def test_without_weight_the_segmenter_does_not_feel_the_discriminator(task, batch):
    method = DeepAdversarial(task, DeepAdversarial.Config(adversarial=0)).eval()
    losses = method.losses(batch, Progress(50, 100))
    alone = torch.autograd.grad(losses["supervised"], [*method.segmenter.parameters()], retain_graph=True)
    both = torch.autograd.grad(sum(losses.values()), [*method.segmenter.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(alone, both, strict=True))


@pytest.mark.parametrize("maps", ["training", "evaluation"])
def test_the_discriminator_sees_each_image_with_its_own_map(task, batch, maps):
    method = DeepAdversarial(task, DeepAdversarial.Config(maps=maps)).eval()
    losses = [method.losses(batch, Progress(step, 100)) for step in (0, 100)]
    ratio = losses[0]["adversarial"] / losses[1]["adversarial"]
    assert ratio.item() == pytest.approx(math.exp(-5), rel=1e-3)
    seen = []
    method.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    method.adversary_losses(batch, Progress(100, 100))
    ((shown, images),) = seen
    assert torch.equal(images, batch.images())
    torch.testing.assert_close(shown, method.segmenter(batch.images()).logits.softmax(1), rtol=1e-3, atol=1e-5)
