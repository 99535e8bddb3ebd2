"""The contract catches what breaks a method only late in a real training, and says what to do."""

from typing import ClassVar

import pytest
import torch

from semiseg.contract import MethodContract
from semiseg.errors import UserError
from semiseg.losses import supervised_loss
from semiseg.method import Method, Paper, Task
from semiseg.registry import find_methods


class Forgetful(Method):
    """Every hundred steps it keeps what it thinks of black images, in a plain attribute, which no checkpoint saves."""

    title = "Forgetful"
    paper = Paper("Forgetful", "Nobody", "Nowhere")

    class Config(Method.Config):
        refresh: int = 100

    def build(self):
        self.model = self.network()
        self.remembered = None

    def losses(self, batch, progress):
        labeled, unlabeled = batch.split(self.model(batch.images()).logits)
        losses = {"supervised": supervised_loss(labeled, batch.labels)}
        if self.remembered is not None:
            losses["memory"] = (unlabeled - self.remembered).square().mean()
        if progress.every(self.config.refresh):
            self.remembered = unlabeled.detach()
        return losses

    def predictors(self):
        return {"network": self.model}


def test_a_branch_behind_a_long_period_that_breaks_resuming_is_caught(tmp_path):
    brief = type("Brief", (Forgetful,), {"brief": {"refresh": 2}})
    for name, method in (("long", Forgetful), ("brief", brief)):
        (tmp_path / name).mkdir()
        contract = MethodContract(name, method, 2, tmp_path / name)
        if method is brief:
            with pytest.raises(AssertionError, match="tensors differ"):
                contract.check_an_interrupted_run_resumes_bit_for_bit()
        else:
            contract.check_an_interrupted_run_resumes_bit_for_bit()  # the branch is never reached


@pytest.mark.parametrize(("name", "reached"), [
    ("mutual_exemplar", "soft"), ("fixmatch", "consistency"), ("unimatch", "images"), ("mean_teacher", "consistency"),
    ("bcp", "pseudo"),
])  # fmt: skip
def test_the_contract_reaches_what_comes_late_in_a_real_training(tmp_path, name, reached):
    curve = MethodContract(name, find_methods()[name], 2, tmp_path).trained.curve.rows
    assert any(row.get(reached, 0) > 0 for row in curve), curve[-1]


def test_brief_settings_that_a_method_does_not_have_are_refused(tmp_path):
    misspelt = type("Misspelt", (Forgetful,), {"brief": {"refersh": 2}})
    with pytest.raises(UserError, match="unknown key 'refersh'"):
        MethodContract("misspelt", misspelt, 2, tmp_path).trained  # noqa: B018


@pytest.mark.parametrize(("space", "message"), [
    ({"refresh": (50, 200)}, "lacks 100, the default of refresh"), ({"refresh": (100, "often")}, "refresh"),
    ({"refersh": (100,)}, "unknown key 'refersh'"), ({"refresh": (100, 50, 50)}, "twice"),
])  # fmt: skip
def test_a_search_space_without_the_default_or_with_what_is_no_setting_is_caught(tmp_path, space, message):
    contract = MethodContract("spacious", type("Spacious", (Forgetful,), {"space": space}), 2, tmp_path)
    with pytest.raises((AssertionError, UserError), match=message):
        contract.check_the_search_space_holds_the_default_and_nothing_but_valid_settings()


class Idle(Forgetful):
    """Has a consistency that no weight feels, as a public implementation once had."""

    views = ("weak", "strong")

    def losses(self, batch, progress):
        labeled, weak = batch.split(self.model(batch.images("weak")).logits)
        with torch.no_grad():
            strong = self.model(batch.unlabeled("strong")).logits
        consistency = (strong - weak.detach()).square().mean()
        return {"supervised": supervised_loss(labeled, batch.labels), "consistency": consistency}


@pytest.mark.parametrize("dims", [2, 3])
def test_a_loss_without_a_gradient_is_caught_and_named(tmp_path, dims):
    contract = MethodContract("idle", Idle, dims, tmp_path)
    with pytest.raises(AssertionError, match=r"no gradient comes of consistency .* it teaches nothing"):
        contract.check_losses_are_finite_and_every_parameter_gets_a_gradient()


class Stubborn(Forgetful):
    """Begins with the same weights whatever the seed."""

    def build(self):
        super().build()
        torch.manual_seed(0)
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, std=0.1)


def test_a_method_that_seeds_itself_is_caught(tmp_path):
    contract = MethodContract("stubborn", Stubborn, 2, tmp_path)
    with pytest.raises(AssertionError, match="the seed changes no weight at the start"):
        contract.check_same_seed_gives_the_same_weights_and_another_seed_does_not()


class Unnamed(Forgetful):
    """Calls its loss something else."""

    def losses(self, batch, progress):
        return {"labels": super().losses(batch, progress)["supervised"]}


def test_a_loss_by_another_name_is_told_what_it_should_be_called(tmp_path):
    contract = MethodContract("unnamed", Unnamed, 2, tmp_path)
    with pytest.raises(AssertionError, match="none of the losses is called supervised"):
        contract.check_training_lowers_the_supervised_loss()


class Misspelt(Forgetful):
    """Asks for a view that there is not."""

    views: ClassVar = ("weak", "strnog")


def test_a_misspelt_view_is_refused_before_training_with_the_views_there_are():
    with pytest.raises(UserError) as error:
        Misspelt(Task(1, 3, (32, 32), "unet_small"))
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in ("Misspelt", "'strnog'", "plain", "weak", "moderate", "strong", "strong-2"))


class Averages(Forgetful):
    """Two averages of one network, the second of which remembers longer."""

    def build(self):
        super().build()
        self.fast = self.moving_average(self.model, 0.5)
        self.slow = self.moving_average(self.model, 0.9)
        self.seen = []

    def after_step(self, progress):
        names = ("model", "fast.network", "slow.network")
        self.seen.append([next(self.get_submodule(n).parameters()).detach().clone() for n in names])


def test_a_network_may_have_several_averages(tmp_path):
    method = MethodContract("averages", Averages, 2, tmp_path).trained.method
    models, fast, slow = zip(*method.seen, strict=True)
    assert torch.equal(fast[0], models[0]), "the first update is a copy"
    assert torch.equal(slow[0], models[0])
    assert torch.allclose(fast[5], (fast[4] + models[5]) / 2, atol=1e-6)
    assert torch.allclose(slow[5], sum(models) / 6, atol=1e-6)
