"""Equal trials: which settings are tried for every method, and which of them did best on inner folds."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from statistics import mean
from typing import Any

from semiseg.benchmarks.state import Standing
from semiseg.errors import UserError
from semiseg.method import Method
from semiseg.seeding import derive_seed
from semiseg.settings import BenchmarkSettings, TrainingSettings, Variant
from semiseg.tasks import DEFAULT, task_kind
from semiseg.training.run import earlier_record

# Of the benchmark's: one rate does not suit all methods, whose losses add up to different multiples of the labels' one.
FACTORS = {"learning_rate": (0.25, 0.5, 1.0, 2.0), "weight_decay": (0.1, 1.0, 10.0)}


@dataclass(frozen=True)
class Trial:
    """Settings of a method that are tried; number 0 has the published ones."""

    method: str  # the entry of the benchmark
    number: int
    variant: Variant

    @property
    def name(self) -> str:
        """The name under which its runs are kept."""
        return f"{self.method}.{self.number:02d}"

    @property
    def settings(self) -> dict[str, Any]:
        """What is told apart by it."""
        rates = {f"training.{key}": value for key, value in self.variant.training.items()}
        return self.variant.config | rates


@dataclass(frozen=True)
class Outcome:
    """What came of a trial."""

    trial: Trial
    dice: dict[str, float]  # of every run that has finished, by cell
    failed: dict[str, str]  # why a run diverged; such a trial is done, and cannot win
    missing: dict[str, str]  # how a run stands that has not ended, or was ended by something else than its settings

    @property
    def mean(self) -> float | None:
        """Mean Dice over all cells; None unless all runs have finished."""
        return None if self.failed or self.missing else round(mean(self.dice.values()), 6)


def draw(name: str, variant: Variant, method: type[Method], common: TrainingSettings, number: int) -> list[Trial]:
    """As many trials as asked for, or as there are: first the published settings, then seeded draws without repetition.

    Every value comes up about equally often. What the benchmark's entry says is kept in all of them. With a larger
    number, the first trials are the same.
    """
    published = method.Config()
    if unknown := method.space.keys() - method.Config.model_fields:
        raise UserError(f"method {name}: its space names {', '.join(sorted(unknown))}, which is none of its settings.")
    space = {
        ("config", key): tuple(dict.fromkeys([getattr(published, key), *values]))
        for key, values in method.space.items()
        if key not in variant.config
    }
    for key, factors in FACTORS.items():
        if key not in variant.training:
            own = getattr(common, key)
            space["training", key] = tuple(dict.fromkeys([own, *(float(f"{own * factor:.6g}") for factor in factors)]))
    dealt = [_dealt(values, derive_seed("trials", name, *key)) for key, values in space.items()]
    tried: dict[tuple[Any, ...], None] = {}  # in their order
    while len(tried) < min(number, prod(map(len, space.values()))):
        tried[tuple(map(next, dealt))] = None  # what was drawn before is no further trial
    trials = []
    for index, values in enumerate(tried):
        drawn = dict(zip(space, values, strict=True))
        config, training = ({k: v for (group, k), v in drawn.items() if group == g} for g in ("config", "training"))
        settings = variant._replace(config=variant.config | config, training=variant.training | training)
        trials.append(Trial(name, index, settings))
    return trials


def _dealt(values: tuple[Any, ...], seed: int) -> Iterator[Any]:
    """The first value, the others in random order, and so on with all of them anew in each round.

    So a few trials try every learning rate equally often, where independent draws might never try one of them.
    """
    order, deck = random.Random(seed), [*values[1:]]
    yield values[0]
    while True:
        order.shuffle(deck)
        yield from deck
        deck = [*values]


def draw_all(settings: BenchmarkSettings, found: Mapping[str, type[Method]], number: int) -> dict[str, list[Trial]]:
    """The trials of every method of a resolved benchmark; upper bounds too, since headroom is measured against them."""
    return {
        name: draw(name, variant, found[variant.implementation], settings.training, number)
        for name, variant in settings.variants().items()
    }


def benchmark_of(settings: BenchmarkSettings, trials: Iterable[Trial]) -> BenchmarkSettings:
    """The benchmark whose methods are the trials, tested on inner folds."""
    return settings.model_copy(update={"methods": tuple(trial.variant.entry(trial.name) for trial in trials)})


def outcomes(trials: Sequence[Trial], standings: Iterable[Standing]) -> list[Outcome]:
    """What came of trials, from their runs."""
    results = {trial.name: Outcome(trial, {}, {}, {}) for trial in trials}
    for run in standings:
        if (result := results.get(run.spec.method)) is None:
            continue
        cell = run.spec.cell.as_posix()
        if run.status == "finished":
            found = earlier_record(run.folder)
            result.dice[cell] = found["metrics"][task_kind(found["data"].get("task", DEFAULT)).primary.name]
        elif run.diverged:
            result.failed[cell] = run.reason
        else:
            result.missing[cell] = f"{run.status}{run.reason and f': {run.reason}'}"
    return list(results.values())


def choose(results: Sequence[Outcome]) -> Outcome | None:
    """The trial with the best mean, the first one of equals; None while a trial is missing, or if all have failed."""
    scores = [-1.0 if result.mean is None else result.mean for result in results]
    if any(result.missing for result in results) or max(scores) < 0:
        return None
    return results[scores.index(max(scores))]


def record(results: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    """The methods as a benchmark file has them, with the chosen settings, and beside them all trials."""
    methods, trials = [], {}
    for name, tried in results.items():
        if (best := choose(tried)) is None:
            continue
        methods.append(best.trial.variant.entry(name))
        trials[name] = [
            {
                "trial": one.trial.number,
                "settings": one.trial.settings,
                "dice": one.dice | {cell: f"failed: {reason}" for cell, reason in one.failed.items()},
                "mean": one.mean,
                **({"chosen": True} if one is best else {}),
            }
            for one in tried
        ]
    return {"methods": methods, "trials": trials}
