"""Cross teaching: two architectures, each with its own optimizer, and no gradient from one to the other."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.optim import SGD, AdamW

from semiseg.errors import UserError
from semiseg.losses import dice_loss, one_hot
from semiseg.method import Progress
from semiseg.methods.cross_teaching import CrossTeaching
from semiseg.networks.swin_unet import SwinUNet
from semiseg.settings import TrainingSettings
from semiseg.training.optimization import Optimization


def test_a_small_network_gets_a_small_transformer_and_each_its_own_optimizer(task):
    method = CrossTeaching(task)
    assert isinstance(method.second, SwinUNet)
    count = [sum(p.numel() for p in network.parameters()) for network in (method.first, method.second)]
    assert count[1] < 3 * count[0]
    sgd, adam = Optimization(method, TrainingSettings()).own
    assert isinstance(sgd, SGD)
    assert isinstance(adam, AdamW)
    assert {id(p) for p in adam.param_groups[0]["params"]} == {id(p) for p in method.second.parameters()}


def test_the_dice_loss_against_the_others_hard_labels_gives_it_no_gradient(task, batch):
    method = CrossTeaching(task).eval()
    losses = method.losses(batch, Progress(100, 100))
    losses["cross_1"].backward()
    assert all(p.grad is None for p in method.second.parameters())
    assert any(p.grad is not None and p.grad.any() for p in method.first.parameters())
    first, second = (net(batch.unlabeled()).logits for net in (method.first, method.second))
    expected = dice_loss(first.softmax(1), one_hot(second.argmax(1), task.classes))
    assert losses["cross_1"].item() == pytest.approx(0.1 * expected.item(), rel=1e-4)


def test_the_distance_can_be_chosen(task):
    logits, pseudo = torch.randn(2, 3, *task.size), torch.randint(2, (2, *task.size))
    dice, entropy, both = (
        CrossTeaching(task, CrossTeaching.Config(distance=d)).cross_loss(logits, pseudo).item()
        for d in ("dice", "cross_entropy", "both")
    )
    assert entropy == pytest.approx(cross_entropy(logits, pseudo).item())
    assert both == pytest.approx((dice + entropy) / 2)


def test_classes_that_no_pseudo_label_names_are_counted(task, batch):
    method = CrossTeaching(task).eval()
    for parameter in method.first.head.parameters():
        torch.nn.init.zeros_(parameter)  # the first of equal classes is the background
    method.losses(batch, Progress(0, 100))
    assert method.noted["absent_classes_1"] == 2


def test_a_transformer_does_not_teach_itself(task):
    with pytest.raises(UserError, match=r"^network 'swin_unet_small' would teach itself"):
        CrossTeaching(replace(task, network="swin_unet_small"))
    method = CrossTeaching(task, CrossTeaching.Config(transformer="swin_unet_small"))
    assert isinstance(method.second, SwinUNet)


def test_a_missing_file_of_weights_is_named_before_training(task, tmp_path):
    config = CrossTeaching.Config(pretrained=tmp_path / "swin.pth")
    with pytest.raises(UserError, match=r"swin\.pth|starts from no file"):
        CrossTeaching(task, config)
