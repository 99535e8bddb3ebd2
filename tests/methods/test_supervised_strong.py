"""The strong lower bound: how the levels weigh, what augmentation it gets, and that its network predicts alone."""

from dataclasses import replace

import pytest

from semiseg.losses import supervised_loss
from semiseg.method import Progress
from semiseg.methods.supervised_strong import SupervisedStrong
from semiseg.networks.auxiliary import coarser_levels


def test_each_coarser_level_weighs_half_of_the_finer_one_and_the_coarsest_nothing(task, batch):
    method = SupervisedStrong(task).eval()
    output = method.model(batch.labeled())
    levels = coarser_levels(output.decoder)
    assert len(method.heads.heads) == len(levels) - 1 == 2
    logits = [output.logits, *method.heads(levels[:2], task.size)]
    one, two, three = (supervised_loss(x, batch.labels).item() for x in logits)
    loss = method.losses(batch, Progress(0, 10))["supervised"].item()
    assert loss == pytest.approx((one + two / 2 + three / 4) / 1.75, rel=1e-5)


def test_a_network_with_a_single_level_is_trained_by_its_own_head(task, batch):
    network = "pnet_small"
    method = SupervisedStrong(replace(task, network=network)).eval()
    assert len(method.heads.heads) == 0
    expected = supervised_loss(method.model(batch.labeled()).logits, batch.labels)
    assert method.losses(batch, Progress(0, 10))["supervised"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_heads_take_no_part_in_a_prediction(task):
    method = SupervisedStrong(task)
    assert list(method.predictors().values()) == [method.model]
    assert not any(p is q for p in method.heads.parameters() for q in method.model.parameters())
