"""What every method and every start must satisfy, as checks that the suite and any plugin's own tests run."""

from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from semiseg.data.splits import make_splits
from semiseg.data.store import Dataset, DatasetInfo, write_dataset
from semiseg.method import Ensemble, Method, Progress, Task
from semiseg.networks.pretrained import load_part
from semiseg.settings import RunSpec, TrainingSettings
from semiseg.start import Start
from semiseg.tasks import DEFAULT, TaskKind, task_kind
from semiseg.training.assembly import build_trainer, partition_for
from semiseg.training.files import save_tensors
from semiseg.training.precision import place
from semiseg.training.trainer import Trainer
from semiseg.validation import validate

CPU = torch.device("cpu")
STEPS = 6
LEARNING_STEPS = 20


class Interrupted(Exception):
    """Stands for whatever stops a run half-way."""


class PluginContract:
    """Checks a method or a start in 2D or 3D on a tiny problem: ten cases of its task, such as two boxes in noise."""

    def __init__(self, name: str, method: type[Method], dims: int, folder: Path) -> None:
        self.name, self.method, self.dims, self.folder = name, method, dims, folder
        self.kind = task_kind(method.learns or DEFAULT)
        self.dataset = tiny_dataset(folder / "contract.h5", dims, kind=self.kind)
        tiny_dataset(folder / "tiny.h5", dims, kind=self.kind, first=10)  # what methods draw from beside it

    @classmethod
    def checks(cls) -> dict[str, Callable[..., None]]:
        """All checks by name."""
        found = {name: check for kind in reversed(cls.mro()) for name, check in vars(kind).items()}
        return {name: check for name, check in found.items() if name.startswith("check_")}

    def spec(self, steps: int = STEPS, seed: int = 0, config: dict[str, Any] | None = None) -> RunSpec:
        """A run small enough for a test, by default with the settings that reach every branch of the method."""
        training = TrainingSettings(
            steps=steps, size=tiny_task(self.dims).size, labeled_batch=2, unlabeled_batch=2,
            learning_rate=0.03, precision="float32", log_every=1, checkpoint_every=3,
        )  # fmt: skip
        return RunSpec(
            benchmark="contract", dataset="tiny", method=self.name, implementation=self.name, labels=0.25, fold=0,
            config=self.method.brief if config is None else config, seed=seed,
            network=tiny_task(self.dims).network, weights=None, training=training,
        )  # fmt: skip

    def trainer(self, name: str, spec: RunSpec, dataset: Dataset | None = None) -> Trainer:
        """A trainer with everything it needs, in a folder of its own."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        dataset = dataset or self.dataset
        partition = partition_for(self.method, make_splits(dataset), spec, dataset)
        return build_trainer(self.method, spec, dataset, partition, CPU, folder)

    @cached_property
    def trained(self) -> Trainer:
        """The method after a few steps with seed 0."""
        trainer = self.trainer("reference", self.spec())
        trainer.fit()
        return trainer

    def trained_again(self) -> Trainer:
        """The same, by its checkpoint, for a check that makes further steps."""
        trainer = self.trainer(self.trained.folder.name, self.spec())
        trainer.fit()
        return trainer

    @property
    def weights(self) -> dict[str, Tensor]:
        """Everything the reference training learned."""
        return self.trained.method.state_dict()

    def retrained(self, name: str, spec: RunSpec, dataset: Dataset | None = None) -> dict[str, Tensor]:
        """The weights of another training."""
        trainer = self.trainer(name, spec, dataset)
        trainer.fit()
        return trainer.method.state_dict()

    # The checks

    def check_paper_and_settings_are_stated(self) -> None:
        paper = self.method.paper
        assert all([self.method.title, paper.title, paper.authors, paper.venue]), "title or paper has an empty part"
        assert (vars(self.method).get("__doc__") or "").strip(), "the class has no docstring"
        self.method.Config()  # every hyper-parameter has a default

    def check_the_search_space_holds_the_default_and_nothing_but_valid_settings(self) -> None:
        published = self.method.Config()
        for name, values in self.method.space.items():
            for value in values:
                validate(self.method.Config, {name: value}, f"space, {name}")
            assert len(set(values)) == len(values), f"space names a value of {name} twice"
            default = getattr(published, name)
            assert default in values, f"space lacks {default!r}, the default of {name}"

    def check_declared_number_of_networks_is_built(self) -> None:
        built, declared = self.trained.method._networks_built, self.trained.method.networks
        assert built == declared, f"build makes {built} networks by self.network(), but networks = {declared}"

    def check_losses_are_finite_and_every_parameter_gets_a_gradient(self) -> None:
        trainer = self.trained_again()
        names = {p: n for n, p in trainer.method.named_parameters()}
        fresh = self.method(trainer.method.task, trainer.method.config)
        idle = {n for n, p in fresh.named_parameters() if p.requires_grad}
        missed: set[str] = set()
        reached: set[str] = set()
        for stage in trainer.plan.stages:
            trainer.enter(stage)
            missed |= {names[p] for p in trainer.optimization.parameters}
            for percent in (0, 50, 100):
                losses = trainer.step(Progress(percent, 100, stage))
                bad = [k for k, loss in losses.items() if not (loss.ndim == 0 and loss.isfinite())]
                assert not bad, f"no finite scalar at {percent} % of the {stage}: {', '.join(bad)}"
                reached |= {n for p, n in names.items() if p.grad is not None and p.grad.any()}
            last = trainer.losses(STEPS, Progress(100, 100, stage))
            flat = ", ".join(name for name, loss in last.items() if not loss.requires_grad)
            assert not flat, (
                f"no gradient comes of {flat} at the end of the {stage}, so it teaches nothing: something is detached, "
                "or computed under no_grad; what is only to be looked at goes to `note`"
            )
        idle -= missed
        assert not idle, (
            f"no stage trains {sorted(idle)}: name its module in the `trains` of one, or take the gradient from what "
            "is not to learn (`requires_grad_(False)` in `build`)"
        )
        missed -= reached
        assert not missed, f"no gradient reaches {sorted(missed)}"

    def check_labels_of_unlabeled_and_test_cases_cannot_change_a_weight(self) -> None:
        partition = partition_for(self.method, make_splits(self.dataset), self.spec(), self.dataset)
        seen = {*partition.labeled, *(() if self.kind.has_labels else partition.unlabeled)}
        changed = tiny_dataset(self.folder / "changed.h5", self.dims, seen, self.kind)
        assert changed.hash != self.dataset.hash
        assert_equal(self.weights, self.retrained("permuted", self.spec(), changed))

    def check_same_seed_gives_the_same_weights_and_another_seed_does_not(self) -> None:
        assert_equal(self.weights, self.retrained("again", self.spec()))
        first, other = (self.trainer("untrained", self.spec(seed=s)).method.state_dict() for s in (0, 1))
        assert any(not torch.equal(v, other[k]) for k, v in first.items()), "the seed changes no weight at the start"

    def check_an_interrupted_run_resumes_bit_for_bit(self) -> None:
        first = self.trainer("interrupted", self.spec())

        def interrupt(step: int, steps: int, loss: float | None) -> None:
            if step == STEPS - 1:
                raise Interrupted

        first.report = interrupt
        try:
            first.fit()
        except Interrupted:
            pass
        else:
            raise AssertionError("the run was not interrupted")
        assert_equal(self.weights, self.retrained("interrupted", self.spec()))


class MethodContract(PluginContract):
    """What a method must satisfy besides."""

    def check_a_single_network_is_reported(self) -> None:
        name, reported = next(iter(self.trained.method.predictors().items()))
        assert not isinstance(reported, Ensemble), (
            f"{name} is the mean of {len(reported)} networks: let a single one come first in `predictors`"
        )

    def check_training_lowers_the_supervised_loss(self) -> None:
        if not (self.method.uses_labels and self.method.supervised):
            return
        spec = self.spec(steps=LEARNING_STEPS, config={})
        training = spec.training.model_copy(update={"labeled_batch": 4})  # each of two networks may have half of it
        trainer = self.trainer("learning", spec.model_copy(update={"training": training}))
        trainer.fit()
        supervised = [[v for k, v in row.items() if k.startswith("supervised")] for row in trainer.curve.rows]
        assert all(supervised), (
            "none of the losses is called supervised…, by which the contract sees whether labels teach the method: "
            "name so what `losses` returns for them, such as supervised or supervised_1"
        )
        first, last = (np.mean([*map(np.mean, rows)]) for rows in (supervised[:5], supervised[-5:]))
        assert last < 0.95 * first, (  # small weights learn slowly
            f"the supervised loss is {first:.4f} in the first five steps of {LEARNING_STEPS}, and still {last:.4f} in "
            "the last five"
        )

    def check_saved_weights_predict_the_same(self) -> None:
        method = self.trained.method
        save_tensors(self.folder / "model.safetensors", method.state_dict(), {})
        loaded = self.method(method.task, method.config)
        place(loaded, self.dims, CPU).load_state_dict(load_file(self.folder / "model.safetensors"))
        cases = [*self.dataset.records][:1]
        first, second = (self.kind.evaluate(m, self.dataset, cases, CPU, "float32") for m in (method, loaded))
        assert first.cases == second.cases, "the method predicts something else once it is saved and loaded"
        assert first.predictors == second.predictors, "a predictor predicts something else once it is saved and loaded"
        assert all(
            np.array_equal(a, b)
            for a, b in zip(first.examples["predictions"], second.examples["predictions"], strict=True)
        )


class StartContract(PluginContract):
    """What a start must satisfy besides."""

    def check_every_network_of_a_method_starts_from_what_is_handed_on(self) -> None:
        start = self.trained.method
        assert isinstance(start, Start)
        handed = start.handed_on()
        save_tensors(self.folder / "handed.safetensors", handed, {})
        fresh = start.network()
        load_part(fresh, self.folder / "handed.safetensors")  # refuses what does not fit
        begun = fresh.state_dict()
        assert all(torch.equal(begun[name], value) for name, value in handed.items())
        other = self.method(start.task, start.config)
        assert isinstance(other, Start)
        assert any(not torch.equal(value, handed[name]) for name, value in other.handed_on().items()), (
            "what is handed on is as it was before the training"
        )


class BothContract(StartContract, MethodContract):
    """A start that is a method of a task as well."""


def contract_of(method: type[Method]) -> type[PluginContract]:
    """The contract that a plug-in is held to."""
    if issubclass(method, Start):
        return BothContract if method.learns else StartContract
    return MethodContract


def assert_equal(expected: dict[str, Tensor], actual: dict[str, Tensor]) -> None:
    """Bitwise equality of two sets of weights."""
    assert expected.keys() == actual.keys()
    different = [k for k in expected if not torch.equal(expected[k], actual[k])]
    assert not different, f"{len(different)} of {len(expected)} tensors differ, first {different[0]}"


def tiny_dataset(
    path: Path, dims: int, kept: Collection[str] | None = None, kind: TaskKind | None = None, first: int = 0
) -> Dataset:
    """Ten tiny cases of a task, segmentation by default.

    Args:
        kept: all cases but these get other labels, or whatever else is paired with an image.
        first: number of the first case; those of other numbers are others.
    """
    kind = kind or task_kind(DEFAULT)
    about = ("tiny", "Tiny cases", "generated", kind.example_classes, "MIT", "generated")
    info = DatasetInfo(*about, grouping="case", synthetic=True, task=kind.name)
    numbers = range(first, first + 10)
    changed = [] if kept is None else [n for n in numbers if kind.example(n, dims).id not in kept]
    write_dataset(path, info, (kind.example(n, dims, n in changed) for n in numbers))
    return Dataset(path)


def tiny_task(dims: int, seed: int = 0) -> Task:
    """The task of the tiny data set."""
    return Task(1, 3, (32, 32) if dims == 2 else (8, 16, 24), "unet_small" if dims == 2 else "unet_3d_small", seed)
