"""Supervised: several networks at once are as many Supervised networks, and the first is the one without the others."""

import pytest
import torch

from semiseg.contract import CPU, MethodContract
from semiseg.method import Ensemble
from semiseg.methods.supervised import Supervised
from semiseg.tasks import task_kind


@pytest.fixture
def contract(task, tmp_path):
    return MethodContract("supervised", Supervised, task.dims, tmp_path)


def test_the_first_of_several_networks_is_to_the_bit_the_one_without_the_others(contract):
    trainer = contract.trainer("three", contract.spec(config={"networks": 3}))
    trainer.fit()
    together = trainer.method.state_dict()
    assert any(isinstance(m, torch.nn.modules.dropout._DropoutNd) and m.p for m in trainer.method.modules())
    assert all(torch.equal(weights, together[name]) for name, weights in contract.weights.items())
    others = ["others.0.", "others.1."]
    for one, other in (("model.", others[0]), others):  # which learned, and not the same
        names = [name.removeprefix(one) for name, _ in trainer.method.named_parameters() if name.startswith(one)]
        assert any(not torch.equal(together[one + name], together[other + name]) for name in names)


def test_every_network_learns_from_the_whole_gradient_of_its_loss(contract, batch, task):
    method = Supervised(task, Supervised.Config(networks=3)).eval()
    losses = method.losses(batch, None)
    assert list(losses) == ["supervised", "supervised_2", "supervised_3"]
    sum(losses.values()).backward()
    together = [p.grad.clone() for p in method.others[1].parameters()]
    method.zero_grad()
    method.losses(batch, None)["supervised_3"].backward()
    assert all(torch.equal(p.grad, other) for p, other in zip(method.others[1].parameters(), together, strict=True))


def test_the_first_is_reported_and_the_means_say_of_how_many_they_are(contract, task):
    method = Supervised(task, Supervised.Config(networks=3))
    predictors = method.predictors()
    assert list(predictors) == ["network", "ensemble_2", "ensemble_3"]
    assert predictors["network"] is method.model
    assert list(predictors["ensemble_2"].networks) == [method.model, method.others[0]]
    assert isinstance(predictors["ensemble_3"], Ensemble)
    rows = task_kind("segmentation").evaluate(method, contract.dataset, ["case00"], CPU, "float32").predictors
    assert {(row["predictor"], row["networks"]) for row in rows} == {("ensemble_2", 2), ("ensemble_3", 3)}


def test_without_a_setting_there_is_one_network(task):
    method = Supervised(task)
    assert list(method.predictors()) == ["network"]
    assert {name.partition(".")[0] for name in method.state_dict()} == {"model"}  # old weights fit


class Three(Supervised):
    """For the contract."""

    networks = 3

    class Config(Supervised.Config):
        networks: int = 3


def test_several_networks_satisfy_the_contract(task, tmp_path):
    contract = MethodContract("three", Three, task.dims, tmp_path)
    contract.check_declared_number_of_networks_is_built()
    contract.check_a_single_network_is_reported()
    contract.check_losses_are_finite_and_every_parameter_gets_a_gradient()
    contract.check_saved_weights_predict_the_same()


class Mean(Three):
    """Reports what nobody may."""

    def predictors(self):
        return dict(reversed(super().predictors().items()))


def test_a_method_that_reports_a_mean_fails_the_contract(tmp_path):
    with pytest.raises(AssertionError, match="ensemble_3 is the mean of 3 networks"):
        MethodContract("mean", Mean, 2, tmp_path).check_a_single_network_is_reported()
