"""Steps that a GPU replays end with the weights that they would end with if each was launched anew."""

import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from semiseg.contract import MethodContract
from semiseg.data.splits import make_splits
from semiseg.method import Progress, frozen_copy
from semiseg.registry import find_methods, get_method
from semiseg.training.assembly import build_trainer, partition_for
from semiseg.training.draws import Unrepeatable
from semiseg.training.replay import Replay
from semiseg.training.trainer import Stopped, Trainer
from semiseg.training.watched import ROOM, Watched

STEPS = 24


class OnPaper(TorchDispatchMode):
    """Stands for a CUDA graph: the same operations on the same memory, and nothing that the host decided anew."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()
        optimizer = trainer.optimization.state_dict().values()
        self.kept = [*trainer.method.parameters(), *trainer.method.buffers(), *optimizer]
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            raise Unrepeatable(WAITS)
        kept = tree_map_only(Tensor, torch.ops.aten.alias, (args, kwargs or {}))  # some calls change shapes in place
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, *kept, [torch.ops.aten.alias(place) for place in tensors(result)]))
        return result

    def record(self, work: Callable[[], None]) -> None:
        before, drawn = [tensor.detach().clone() for tensor in self.kept], torch.get_rng_state()
        try:
            with self:
                work()
        finally:  # on a GPU nothing of it would have been carried out
            with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
                for *_, results in self.calls:
                    for place in results:
                        if place.is_floating_point() and 0 not in place.stride():
                            place.fill_(torch.nan)
                for tensor, old in zip(self.kept, before, strict=True):
                    tensor.copy_(old)
            torch.set_rng_state(drawn)

    @torch.no_grad()
    def replay(self) -> None:
        with torch._C._AutoDispatchBelowAutograd():
            for func, args, kwargs, results in self.calls:
                for place, value in zip(results, tensors(func(*args, **kwargs)), strict=True):
                    if value.data_ptr() != place.data_ptr():
                        place.copy_(value)


def tensors(result: Any) -> list[Tensor]:
    """What an operation returned."""
    return [r for r in (result if isinstance(result, tuple | list) else [result]) if isinstance(r, Tensor)]


def trained(
    contract: MethodContract,
    name: str,
    on_paper: bool,
    stop: Callable[[Trainer], bool] = lambda trainer: False,
    steps: int = STEPS,
) -> Trainer:
    trainer = contract.trainer(name, contract.spec(steps))
    trainer.stop = lambda: stop(trainer)
    if on_paper:
        trainer.replay = Replay(trainer._learn, trainer.showing, lambda generators: OnPaper(trainer))
    trainer.fit()
    return trainer


WAITS = "the host waits for a number"
HAS_OPTIMIZERS, READS = "it has optimizers of its own", "the host reads a number that is another one at every step"
NEVER = {  # what is not recorded, and why
    "abd": HAS_OPTIMIZERS,
    "cross_teaching": HAS_OPTIMIZERS,
    "deep_adversarial": HAS_OPTIMIZERS,
    "shape_guided": HAS_OPTIMIZERS,
    "abd_bcp": WAITS,  # where a box lies, which the host draws
    "bcp": WAITS,
    "ad_mt": READS,
    "ict": READS,
    "mean_teacher": READS,
    "ua_mt": READS,
}


def assert_alike(one: Trainer, other: Trainer) -> None:
    wanted, found = one.method.state_dict(), other.method.state_dict()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-5, msg=lambda m, key=key: f"{key}: {m}")
    (*_, last), (*_, again) = one.curve.rows, other.curve.rows
    assert {k: v for k, v in last.items() if k != "images_per_second"} == pytest.approx(
        {k: v for k, v in again.items() if k != "images_per_second"}, rel=1e-2, abs=1e-4, nan_ok=True
    )


ALL = [(name, 2) for name, m in find_methods().items() if m.learns in ("", "segmentation")]


@pytest.mark.parametrize(("name", "dims"), [*ALL, ("supervised", 3), ("unimatch", 3)])
def test_replayed_steps_end_with_the_same_weights(name, dims, tmp_path):
    contract = MethodContract(name, find_methods()[name], dims, tmp_path)
    steps = 6 if NEVER.get(name) == HAS_OPTIMIZERS else STEPS  # nothing is even tried
    one, other = (trained(contract, str(on_paper), on_paper, steps=steps) for on_paper in (False, True))
    assert other.replay.refused == NEVER.get(name, "")
    assert bool(other.replay.replayed) is (name not in NEVER)
    if len(one.plan.starts) == 1 and name not in NEVER:
        assert other.replay.replayed >= STEPS // 2
    assert_alike(one, other)


class Own(get_method("supervised")):
    """Keeps something of its own."""

    def build(self):
        super().build()
        self.steps, self.told, self.history, self.pair, self.cache = 0, {"steps": 0}, [], (), {}
        self.register_buffer("mean", torch.zeros(()))
        self.old, self.drop = frozen_copy(self.model), nn.Dropout(0.1)

    def losses(self, batch, progress):
        return {name: self.factor(progress) * loss for name, loss in super().losses(batch, progress).items()}

    def factor(self, progress):
        return 1


class Counting(Own):
    def factor(self, progress):
        self.steps += 1
        return 1 + self.steps / 1000


class Telling(Own):
    def factor(self, progress):
        self.told["steps"] += 1
        self.history.append(progress.total)
        return 1 + self.told["steps"] / 1000


class Saving(Own):
    def factor(self, progress):
        self.told["steps"] += 1
        return 1 + self.told["steps"] / 1000

    def get_extra_state(self):
        return torch.tensor(self.told["steps"])

    def set_extra_state(self, state):
        self.told["steps"] = int(state)


class Milestones(Own):
    def factor(self, progress):
        return 3 if progress.step in {9, 12} else 1


class Following(Own):
    def factor(self, progress):
        return 1 + self.mean

    def after_step(self, progress):
        self.mean = 0.9 * self.mean + 0.1 * next(self.parameters()).detach().mean()


class Annealing(Own):
    def factor(self, progress):
        return 1 + self.drop(torch.ones(8)).mean()

    def after_step(self, progress):
        self.drop.p = 0.1 + progress.step / 1000


class Copying(Own):
    def factor(self, progress):
        return 1 + next(self.old.parameters()).detach().mean()

    def after_step(self, progress):
        self.old = frozen_copy(self.model)


class Toggling(Own):
    """Sets a flag in its losses that lasts until the step is over, and does something else while it is set."""

    def factor(self, progress):
        factor, self.steps = 1 + self.steps, 1
        return factor

    def after_step(self, progress):
        self.steps = 0


@pytest.mark.parametrize("kind", [Counting, Telling, Saving, Milestones, Following, Annealing, Copying, Toggling])
def test_what_a_recording_cannot_know_does_no_harm(kind, tmp_path):
    contract = MethodContract("own", kind, 2, tmp_path)
    one, other = trained(contract, "launched", False), trained(contract, "replayed", True)
    assert other.replay.refused
    assert other.replay.replayed == 0
    assert_alike(one, other)
    for name in ("steps", "told", "history"):
        assert getattr(one.method, name) == getattr(other.method, name)


class Pairing(Own):
    """Keeps tensors in a tuple, new ones after every step."""

    def after_step(self, progress):
        self.pair = (torch.zeros(2), torch.zeros(3))


class Freezing(Own):
    def after_step(self, progress):
        if progress.step == 11:
            next(self.parameters()).requires_grad_(False)
            self.model.eval()


class Remembering(Own):
    def factor(self, progress):
        if progress.fraction < 0.4:
            return 1
        if "factor" not in self.cache:
            self.cache["factor"] = torch.full((), 2.0)
        return self.cache["factor"]


class Looking(Own):
    def after_step(self, progress):
        self.mean += next(p.grad for p in self.parameters() if p.grad is not None).norm()


@pytest.mark.parametrize("kind", [Pairing, Freezing, Remembering, Looking])
def test_what_a_method_does_besides_its_losses_is_done_in_replayed_steps_too(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("semiseg.training.replay.CHECK_EVERY", 3)
    contract = MethodContract("own", kind, 2, tmp_path)
    one, other = trained(contract, "launched", False), trained(contract, "replayed", True)
    assert not other.replay.refused
    assert other.replay.replayed >= 6
    assert_alike(one, other)


class Hidden(get_method("supervised")):
    """Keeps a number where nobody looks."""

    def build(self):
        super().build()
        self.steps_of = itertools.count(1)

    def losses(self, batch, progress):
        return {name: next(self.steps_of) * loss for name, loss in super().losses(batch, progress).items()}


class Tossing(get_method("supervised")):
    """Has the host draw what to do."""

    def losses(self, batch, progress):
        return {name: random.choice([1, 2]) * loss for name, loss in super().losses(batch, progress).items()}


class Rebinding(get_method("supervised")):
    """Puts a new tensor in the place of the one it keeps."""

    def build(self):
        super().build()
        self.register_buffer("seen", torch.zeros(()))

    def losses(self, batch, progress):
        self.seen = self.seen + 1
        return {name: loss + 0 * self.seen for name, loss in super().losses(batch, progress).items()}


def test_what_a_method_hides_shows_when_a_step_is_taken_both_ways(tmp_path):
    trainer = trained(MethodContract("own", Hidden, 2, tmp_path), "replayed", True)
    assert trainer.replay.refused == "it does something else when it is replayed"
    assert trainer.replay.replayed == 0


def test_a_number_of_the_progress_is_a_tensor_to_tensors_and_a_condition_to_the_host():
    room, now = torch.full((ROOM,), 2.0), Progress(30, 100)
    watched = Watched(now, room)
    weight = 0.5 * watched.ramp_up(0.4) * (1 - watched.fraction)
    values = torch.tensor([1.0, 3.0])
    assert [*(weight * values)] == [*(values * weight)] == [2, 6]
    assert (values < weight).tolist() == [True, False]
    room[:] = 0.5
    assert values.quantile(watched.fraction / 100) == 2.0
    assert watched.slots[0](Progress(40, 100)) == pytest.approx(0.5 * Progress(40, 100).ramp_up(0.4) * 0.6)
    assert watched.fraction >= 0.3
    assert watched.step == 30
    assert not watched.every(40)
    holds = [[ask(Progress(n, 100)) == answer for ask, answer in watched.asks] for n in (30, 31, 39)]
    assert holds == [[True, True, True], [True, False, True], [True, False, False]]
    for read in (float, int, math.exp, round, hash, str, "{:.2f}".format, range):
        with pytest.raises(Unrepeatable):
            read(watched.fraction)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Tossing, "the host draws a random number"),
        (Rebinding, "it changes seen, which no recording repeats"),
    ],
)
def test_a_step_that_the_host_decides_is_not_recorded(kind, why, tmp_path):
    trainer = trained(MethodContract("own", kind, 2, tmp_path), "replayed", True)
    assert (trainer.replay.refused, trainer.replay.replayed) == (why, 0)
    assert all(torch.isfinite(value).all() for value in trainer.method.state_dict().values())


def test_a_resumed_training_is_replayed_to_the_same_end(tmp_path):
    contract = MethodContract("fixmatch", get_method("fixmatch"), 2, tmp_path)
    whole = trained(contract, "whole", True)
    with pytest.raises(Stopped):
        trained(contract, "parts", True, stop=lambda trainer: trainer.replay.taken == 8)
    rest = trained(contract, "parts", True)
    assert rest.replay.replayed
    assert_alike(whole, rest)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", [name for name, _ in ALL])
def test_a_gpu_replays_steps_to_the_same_losses(name, tmp_path):
    contract = MethodContract(name, get_method(name), 2, tmp_path)
    trainers = []
    for replayed in (False, True):
        spec, folder = contract.spec(STEPS), tmp_path / str(replayed)
        folder.mkdir()
        partition = partition_for(contract.method, make_splits(contract.dataset), spec, contract.dataset)
        trainer = build_trainer(contract.method, spec, contract.dataset, partition, torch.device("cuda"), folder)
        if not replayed:
            trainer.replay = None
        trainer.fit()
        trainers.append(trainer)
    replay = trainers[1].replay
    assert bool(replay.replayed) is (name not in NEVER), replay.refused
    torch.rand(3, device="cuda")  # which a recording that broke off could have spoilt
    # Two trainings that launch every kernel differ, too: the order of sums is not fixed.
    first, again = ([row["loss"] for row in trainer.curve.rows] for trainer in trainers)
    assert first == pytest.approx(again, rel=0.1)
