"""Optimizers of a method's own: who is updated by what, when, and what a checkpoint keeps."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from semiseg.contract import MethodContract
from semiseg.errors import UserError
from semiseg.losses import supervised_loss
from semiseg.method import Batch, Method, Paper, Progress, Task, Updates
from semiseg.settings import TrainingSettings
from semiseg.training.optimization import Optimization

SETTINGS = TrainingSettings(steps=10, learning_rate=0.5, momentum=0.0, weight_decay=0.0, poly_power=1.0)
BATCH = Batch({"plain": torch.zeros(2, 1, 4, 4)}, torch.zeros(1, 4, 4, dtype=torch.long))


class Duel(Method):
    """Three numbers: one follows the benchmark, one Adam, and one is an adversary with dropout."""

    title = "Duel"
    paper = Paper("Duel", "Nobody", "Nowhere")

    def build(self):
        self.plain, self.own = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.optimize(self.own, partial(torch.optim.SGD, lr=0.1))
        self.opponent = self.adversary(
            nn.Sequential(nn.Linear(1, 1, bias=False), nn.Dropout()), partial(torch.optim.Adam, lr=0.01)
        )
        for p in self.parameters():
            nn.init.ones_(p)

    def losses(self, batch, progress):
        self.opponent_was_training = self.opponent.training
        x = torch.ones(1, 1)
        return {"supervised": (self.plain(x) + self.own(x) + self.opponent(x)).sum()}

    def adversary_losses(self, batch, progress):
        return {"opponent": self.opponent[0](torch.ones(1, 1)).sum()}

    def predictors(self):
        return {"plain": self.plain}


def weights(method):
    return [p.item() for p in (method.plain.weight, method.own.weight, method.opponent[0].weight)]


@pytest.fixture
def method():
    return Duel(Task(1, 2, (4, 4), "none"))


def test_every_parameter_is_updated_by_one_optimizer_at_its_own_rate(method):
    optimization = Optimization(method.train(), SETTINGS)
    optimization.schedule(Progress(5, 10))
    optimization.step([method.losses(BATCH, Progress(5, 10))])
    assert weights(method) == pytest.approx([1 - 0.25, 1 - 0.05, 1])  # both rates have decayed by half
    with optimization.adversaries_turn():
        assert method.opponent.training
        optimization.adversarial_step(method.adversary_losses(BATCH, Progress(5, 10)))
    assert weights(method) == pytest.approx([0.75, 0.95, 0.99])  # Adam's first step is its rate, which is constant
    assert len(optimization.parameters) == 3


def test_an_adversary_is_frozen_and_free_of_dropout_outside_its_turn(method):
    optimization = Optimization(method.train(), SETTINGS)
    method.losses(BATCH, Progress(0, 10))["supervised"].backward()
    assert method.opponent_was_training is False
    assert method.opponent[0].weight.grad is None
    with optimization.adversaries_turn():
        pass
    assert not method.opponent.training
    assert not method.opponent[0].weight.requires_grad


def test_a_checkpoint_keeps_the_counters_of_adaptive_optimizers(method):
    settings = SETTINGS.model_copy(update={"momentum": 0.9})
    first = Optimization(method, settings)
    for _ in range(3):
        first.step([method.losses(BATCH, Progress(0, 10))])
        with first.adversaries_turn():
            first.adversarial_step(method.adversary_losses(BATCH, Progress(0, 10)))
    state = {k: v.clone() for k, v in first.state_dict().items()}
    assert {k.rpartition(".")[2] for k in state} == {"momentum_buffer", "step", "exp_avg", "exp_avg_sq"}
    second = Optimization(method, settings)
    second.load_state_dict(state)
    assert second.state_dict().keys() == state.keys()
    assert all(torch.equal(v, state[k]) for k, v in second.state_dict().items())


@pytest.mark.parametrize("counted_by_a_kernel", [False, True])
@pytest.mark.parametrize("shape", [(), (3, 2)])
def test_counters_go_on_where_the_optimizer_left_them(method, shape, counted_by_a_kernel):
    """Of a parameter that is one number, Adam would else wait for its counter on a GPU at every step."""
    parameter = nn.Parameter(torch.empty(shape, device="meta"))  # stands for a GPU
    adam = partial(torch.optim.Adam, lr=0.1, capturable=counted_by_a_kernel)
    method.updates.append(Updates(nn.ParameterList([parameter]), adam, adversarial=False))
    optimization = Optimization(method, SETTINGS)
    saved = {"step": torch.tensor(3.0), "exp_avg": torch.ones(shape), "exp_avg_sq": torch.ones(shape)}
    optimization.load_state_dict({f"{len(optimization.own) - 1}.0.{key}": value for key, value in saved.items()})
    state = optimization.own[-1].state[parameter]
    assert state["step"].device.type == ("meta" if counted_by_a_kernel else "cpu")
    assert state["exp_avg"].device.type == state["exp_avg_sq"].device.type == "meta"


class Late(Duel):
    """One of its numbers, and a convolution, learn from the second step on."""

    def build(self):
        super().build()
        self.late = nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)

    def losses(self, batch, progress):
        losses = {"supervised": self.plain(torch.ones(1, 1)).sum()}
        if progress.step:
            image = torch.linspace(-1, 1, 75).view(1, 3, 5, 5)
            losses["late"] = (self.late(image).square() * torch.arange(45).view(1, 5, 3, 3)).mean()
        return losses


def test_what_learns_later_than_the_rest_follows_the_textbook_too():
    settings = SETTINGS.model_copy(update={"momentum": 0.9, "weight_decay": 0.1})
    method = Late(Task(1, 2, (4, 4), "none"))
    optimization = Optimization(method.train(), settings)
    weight = method.late.weight
    expected, momentum = weight.detach().double(), torch.zeros(5, 3, 3, 3, dtype=torch.double)
    for step in range(4):
        optimization.step([method.losses(BATCH, Progress(step, 10))])
        if step:
            momentum = 0.9 * momentum + weight.grad.double() + 0.1 * expected
            expected = expected - 0.5 * momentum
        assert torch.allclose(weight.double(), expected, atol=1e-5), step
    assert weight.is_contiguous(memory_format=torch.channels_last)


class Independent(Method):
    """Leaves nothing to the benchmark's SGD."""

    title = "Independent"
    paper = Paper("Independent", "Nobody", "Nowhere")

    def build(self):
        self.model = self.network()
        self.optimize(self.model, partial(AdamW, lr=0.003))

    def losses(self, batch, progress):
        return {"supervised": supervised_loss(self.model(batch.images()).logits[: len(batch.labels)], batch.labels)}

    def predictors(self):
        return {"network": self.model}


@pytest.fixture(scope="module")
def contract(tmp_path_factory):
    return MethodContract("independent", Independent, 2, tmp_path_factory.mktemp("independent"))


@pytest.mark.parametrize("check", MethodContract.checks())
def test_a_method_may_bring_an_optimizer_for_everything(contract, check):
    getattr(contract, check)()


def test_the_logged_rate_is_then_that_of_the_methods_own_optimizer(contract):
    rates = [row["learning_rate"] for row in contract.trained.curve.rows]
    assert rates[0] == 0.003
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.003


def changed(build):
    """The duel with another `build`."""
    return type("Changed", (Duel,), {"build": build})(Task(1, 2, (4, 4), "none"))


def twice(self):
    Duel.build(self)
    self.optimize(self.own, AdamW)


def twice_in_part(self):
    self.plain = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    self.optimize(self.plain[1], AdamW)
    self.adversary(self.plain, AdamW)


def without_parameters(self):
    self.optimize(nn.Dropout(), AdamW)


@pytest.mark.parametrize(("build", "message"), [
    (twice, "Changed: Linear, or a part of it, is given to two optimizers"),
    (twice_in_part, "Changed: Sequential, or a part of it, is given to two optimizers"),
    (without_parameters, "Changed: Dropout has no parameters"),
])  # fmt: skip
def test_an_optimizer_that_makes_no_sense_is_refused_when_the_method_is_built(build, message):
    with pytest.raises(UserError, match=message) as error:
        changed(build)
    assert "\n" not in str(error.value)


def test_a_method_that_learns_nothing_is_refused_in_one_line():
    with pytest.raises(UserError, match="Changed: nothing can learn"):
        Optimization(changed(lambda self: None), SETTINGS)


def test_a_rate_may_fall_to_a_tenth_now_and_then_instead_of_along_a_polynomial(method):
    optimization = Optimization(method.train(), SETTINGS.model_copy(update={"decay_every": 4}))
    rates = []
    for step in range(10):
        optimization.schedule(Progress(step, 10))
        rates.append(optimization.learning_rate)
    assert rates == pytest.approx([0.5] * 4 + [0.05] * 4 + [0.005] * 2)
