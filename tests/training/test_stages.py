"""Stages: each with its steps, schedule, optimizer and parameters, and a stop between them costs nothing."""

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from semiseg.contract import Interrupted, MethodContract
from semiseg.errors import UserError
from semiseg.losses import supervised_loss
from semiseg.method import Method, Paper, Progress, Stage
from semiseg.training.plan import Plan
from semiseg.training.results import count_parameters


def stage(name: str, share: float) -> Stage:
    return Stage(lambda batch, progress: {}, name, share)


@pytest.mark.parametrize(("shares", "total", "steps"), [
    ({"a": 1, "b": 3}, 100, {"a": 25, "b": 75}),
    ({"a": 0, "b": 1}, 7, {"b": 7}),
    ({"a": 1, "b": 0}, 7, {"a": 7}),
    ({"a": 1, "b": 1, "c": 1}, 10, {"a": 3, "b": 4, "c": 3}),
])  # fmt: skip
def test_steps_are_dealt_in_proportion_to_the_shares(shares, total, steps):
    plan = Plan([stage(name, share) for name, share in shares.items()], total, "Method")
    reached = [plan.progress(step) for step in range(total)]
    assert Counter(p.stage for p in reached) == steps
    assert [p.before + p.step for p in reached] == list(range(total))
    for name, number in steps.items():
        own = [p for p in reached if p.stage == name]
        assert [p.step for p in own] == list(range(number))
        assert {p.total for p in own} == {number}


@pytest.mark.parametrize("shares", [{"a": -1, "b": 2}, {"a": 0}])
def test_shares_that_make_no_sense_are_refused(shares):
    with pytest.raises(UserError, match=r"Method: the shares"):
        Plan([stage(name, share) for name, share in shares.items()], 10, "Method")


def test_a_stage_that_would_be_passed_over_is_named():
    with pytest.raises(UserError, match="its stage a gets none of 10 steps"):
        Plan([stage("a", 0.01), stage("b", 1)], 10, "Method")


def test_two_stages_of_one_name_are_refused():
    with pytest.raises(UserError, match="two stages have one name"):
        Plan([stage("a", 1), stage("a", 1)], 10, "Method")


class TwoStages(Method):
    """The encoder alone learns in the first half; the teacher follows throughout."""

    title = "Two stages"
    paper = Paper("Two stages", "Nobody", "Nowhere")

    def build(self) -> None:
        self.model = self.network()
        self.teacher = self.moving_average(self.model, 0.9)
        self.began: list[int] = []
        self.seen: dict[int, dict[str, Tensor]] = {}

    def stages(self):
        first = Stage(self.losses, "encoder", trains=[self.model.encoder], begin=lambda: self.began.append(1))
        return [first, Stage(self.losses, begin=lambda: self.began.append(2))]

    def losses(self, batch, progress):
        if progress.step == 0:
            self.note(f"{progress.stage}_began", progress.before)
            self.level = [
                torch.equal(a, b) for a, b in zip(self.model.parameters(), self.teacher.parameters(), strict=True)
            ]
        return {"supervised": supervised_loss(self.model(batch.labeled()).logits, batch.labels)}

    def after_step(self, progress: Progress) -> None:
        self.seen[progress.before + progress.step] = {k: v.clone() for k, v in self.state_dict().items()}

    def predictors(self) -> dict[str, nn.Module]:
        return {"model": self.model, "teacher": self.teacher}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    contract = MethodContract("two_stages", TwoStages, 2, tmp_path_factory.mktemp("stages"))
    return contract, contract.trained


def test_only_what_a_stage_trains_is_updated(trained):
    seen = trained[1].method.seen
    parameters = [name for name, _ in trained[1].method.model.named_parameters()]
    moved = {name for name in parameters if not torch.equal(seen[0][f"model.{name}"], seen[2][f"model.{name}"])}
    assert moved
    assert all(name.startswith("encoder.") for name in moved)
    later = {name for name in parameters if not torch.equal(seen[2][f"model.{name}"], seen[5][f"model.{name}"])}
    assert any(not name.startswith("encoder.") for name in later)


def test_every_stage_begins_once_with_the_full_rate_and_a_teacher_that_equals_the_student(trained):
    method, curve = trained[1].method, trained[1].curve.rows
    assert method.began == [1, 2]
    rates = [row["learning_rate"] for row in curve]
    assert rates[0] == rates[3] > rates[1] == rates[4] > rates[2] == rates[5]
    name = "encoder.blocks.0.0.weight"
    assert not torch.equal(method.seen[2][f"teacher.network.{name}"], method.seen[2][f"model.{name}"])
    assert all(method.level)


def diagnostics(trainer):
    return [{k: v for k, v in row.items() if k.endswith("_began")} for row in trainer.curve.rows]


def test_a_curve_says_nothing_more_of_a_stage_that_is_over(trained):
    assert diagnostics(trained[1]) == [{"encoder_began": 0}] * 3 + [{"training_began": 3}] * 3


def test_a_teacher_keeps_what_was_learned_before_a_later_stage(trained):
    """Where the count began anew, its first update would make it the student after one step at the full rate."""
    seen, name = trained[1].method.seen, "encoder.blocks.0.0.weight"
    before, after, kept = seen[2][f"model.{name}"], seen[3][f"model.{name}"], min(1 - 1 / 4, 0.9)
    teacher = seen[3][f"teacher.network.{name}"]
    torch.testing.assert_close(teacher, kept * before + (1 - kept) * after)
    assert not torch.equal(teacher, after)


class LateHead(TwoStages):
    """A part that only the second stage trains, and its average."""

    def build(self) -> None:
        super().build()
        self.late = nn.Linear(3, 1)
        self.slow = self.moving_average(self.late, 0.9)

    def stages(self):
        def further(batch, progress):
            return self.losses(batch, progress) | {"late": self.late(torch.ones(1, 3)).square().sum()}

        return [Stage(self.losses, "first", trains=[self.model]), Stage(further), Stage(further, "never", share=0)]


def test_an_average_of_what_a_later_stage_trains_first_leaves_its_random_weights_at_once(tmp_path):
    trainer = MethodContract("late_head", LateHead, 2, tmp_path).trained
    seen = trainer.method.seen
    assert torch.equal(seen[3]["slow.network.weight"], seen[3]["late.weight"])
    assert not torch.equal(seen[3]["late.weight"], seen[2]["late.weight"])
    middle = (seen[3]["late.weight"] + seen[4]["late.weight"]) / 2
    torch.testing.assert_close(seen[4]["slow.network.weight"], middle)


class LastTrainsLess(TwoStages):
    """After both stages, the encoder alone has a gradient, and the adversary has none."""

    def build(self) -> None:
        super().build()
        self.opponent = self.adversary(nn.Linear(3, 2), torch.optim.Adam)
        self.unused = nn.Linear(5, 5)

    def stages(self):
        late = [Stage(self.losses, trains=[self.model.encoder]), Stage(self.losses, "left out", 0, [self.unused])]
        return [Stage(self.losses, "all", trains=[self.model]), *late]

    def adversary_losses(self, batch, progress):
        return {"opponent": self.opponent(torch.ones(1, 3)).square().sum()}


def test_all_that_was_trained_is_counted_whatever_the_last_stage_trained(tmp_path):
    trainer = MethodContract("last_trains_less", LastTrainsLess, 2, tmp_path).trained
    counted = count_parameters(trainer.method, trainer.learned)
    network = sum(p.numel() for p in trainer.method.model.parameters())
    assert counted == {"trained": network + 3 * 2 + 2, "predicting": network}


@pytest.mark.parametrize("steps", [2, 3, 4], ids=["within the first", "between", "within the second"])
def test_an_interruption_anywhere_changes_no_bit(trained, steps):
    contract, reference = trained
    spec = contract.spec()
    spec = spec.model_copy(update={"training": spec.training.model_copy(update={"checkpoint_every": 1})})
    first = contract.trainer(f"stopped-{steps}", spec)

    def interrupt(step, total, loss):
        if step == steps + 1:
            raise Interrupted

    first.report = interrupt
    with pytest.raises(Interrupted):
        first.fit()
    again = contract.trainer(f"stopped-{steps}", spec)
    again.fit()
    expected = reference.method.state_dict()
    assert again.method.began == ([2] if steps == 3 else [] if steps == 4 else [2])
    assert all(torch.equal(value, expected[name]) for name, value in again.method.state_dict().items())
    assert diagnostics(again) == diagnostics(reference)
