"""From a benchmark file to its runs."""

import os
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from semiseg.data.splits import FOLDS
from semiseg.errors import UserError
from semiseg.labels import Labels, in_words
from semiseg.names import did_you_mean
from semiseg.registry import Methods
from semiseg.settings import NONE, BenchmarkSettings, RunSpec, StartSpec, Variant
from semiseg.tasks import DEFAULT
from semiseg.validation import validate

ALL = "all"  # in the list of methods: those of segmentation that are not listed by themselves and need no other data


@dataclass(frozen=True)
class Selection:
    """A part of a benchmark; an empty tuple selects everything."""

    methods: tuple[str, ...] = ()
    labels: tuple[Labels, ...] = ()
    folds: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()


def resolve(settings: BenchmarkSettings, found: Methods, extra: tuple[str, ...] = ()) -> BenchmarkSettings:
    """Replace `all` by names and names by what was tuned for them, add the methods in `extra`, refuse unknown ones."""
    variants = settings.variants()  # refuses what makes no sense, before names are looked for
    names = dict.fromkeys([*variants, *extra])
    if ALL in variants:
        if variants[ALL] != Variant(ALL, {}, {}):
            raise UserError(
                f"benchmark {settings.name}: `{ALL}` takes no settings; list the methods that they are for by name, or "
                "set `training` of the benchmark."
            )
        every = [
            name
            for name, method in found.items()
            if method.learns == DEFAULT and not any(stream.data for stream in method.streams(method.Config()))
        ]
        names = dict.fromkeys(n for name in names for n in (every if name == ALL else [name]))
    variants = settings.variants(names)
    for name in names:
        implementation = variants[name].implementation
        if implementation not in found:
            raise UserError(f"benchmark {settings.name}: {found.problem(implementation)}")
        if name in found and name != implementation:
            raise UserError(f"benchmark {settings.name}: {name!r} is another method than {implementation}; rename it.")
    for name in settings.pretrainings():
        _start_config(settings, found, name)  # what no entry begins with is checked like all others
    return settings.model_copy(update={"methods": tuple(variants[name].entry(name) for name in names)})


def expand(settings: BenchmarkSettings, found: Methods, selection: Selection = Selection()) -> list[RunSpec]:
    """Every run of a resolved benchmark, ordered so that complete columns of the table come first."""

    def chosen(kind: str, available: tuple[Any, ...], wanted: tuple[Any, ...]) -> tuple[Any, ...]:
        missing = [w for w in wanted if w not in available]
        if missing:
            names, known = ([in_words(v) if kind == "labels" else str(v) for v in of] for of in (missing, available))
            meant = did_you_mean(names[0], known) if kind == "methods" else ""
            all_there_are = kind == "methods" or (kind == "folds" and max(missing) >= frozen)
            more = f" For others give `semiseg run` --set '{kind}=[{', '.join([*known, *names])}]'."
            raise UserError(
                f"benchmark {settings.name} has no {kind} {', '.join(names)}; {meant}its {kind} are "
                f"{', '.join(known)}.{'' if all_there_are else more}"
            )
        return tuple(dict.fromkeys(wanted)) or available

    frozen = 1 if settings.protocol else FOLDS * settings.repeats
    variants = settings.variants()
    methods = chosen("methods", tuple(variants), selection.methods)
    inner_folds: tuple[int | None, ...] = settings.inner_folds or (None,)
    labels = chosen("labels", settings.labels, selection.labels)
    entries = {name: _entry(settings, found, name, variants[name]) for name in methods}  # the same in a thousand runs
    runs = []
    for seed in chosen("seeds", settings.seeds, selection.seeds):
        for fold, inner in product(chosen("folds", settings.folds, selection.folds), inner_folds):
            for amount in labels:
                for name in methods:
                    variant = variants[name]
                    method = found[variant.implementation]
                    if (method.uses_all_labels or not method.uses_labels) and amount != labels[0]:
                        continue  # one run serves all amounts of labels
                    cell = {"fold": fold, "inner": inner, "seed": seed}
                    runs.append(RunSpec(
                        **entries[name], **cell,
                        labels=NONE if not method.uses_labels else 1.0 if method.uses_all_labels else amount,
                        start=_start(settings, found, variant.start, cell) if variant.start else None,
                    ))  # fmt: skip
    return runs


def _entry(settings: BenchmarkSettings, found: Methods, name: str, variant: Variant) -> dict[str, Any]:
    """What all runs of an entry have in common."""
    if variant.implementation not in found:
        raise UserError(f"benchmark {settings.name}: {found.problem(variant.implementation)}")
    method = found[variant.implementation]
    config = validate(method.Config, variant.config, f"settings of method {name}", beside=BenchmarkSettings)
    tuned = settings.tuned.commit if settings.tuned and name not in settings.untuned() else None
    return {
        "benchmark": settings.name, "dataset": settings.dataset, "method": name,
        "implementation": variant.implementation, "config": config.model_dump(mode="json"),
        "network": settings.network, "weights": settings.weights, "training": settings.training_of(name, variant),
        "protocol": settings.protocol, "tuned": tuned,
    }  # fmt: skip


def _start(settings: BenchmarkSettings, found: Methods, name: str, cell: dict[str, Any]) -> StartSpec:
    """The pre-training of a name for runs of this fold and seed."""
    variant = settings.pretraining(name)
    return StartSpec(
        benchmark=settings.name, dataset=settings.dataset, method=name, implementation=variant.implementation,
        config=_start_config(settings, found, name),
        labels=NONE, network=settings.network, weights=settings.weights,
        training=settings.training_of(name, variant), protocol=settings.protocol, **cell,
    )  # fmt: skip


def _start_config(settings: BenchmarkSettings, found: Methods, name: str) -> dict[str, Any]:
    """The settings of a start, valid ones."""
    variant = settings.pretraining(name)
    config = validate(found.start(variant.implementation).Config, variant.config, f"settings of start {name}")
    content: dict[str, Any] = config.model_dump(mode="json")
    return content


def write_benchmark(settings: BenchmarkSettings, results: Path) -> None:
    """Keep beside the results what was asked for."""
    results.mkdir(parents=True, exist_ok=True)
    content = settings.model_dump(mode="json")
    partial = results / f".benchmark.yaml.{os.getpid()}.partial"  # another command may do the same
    partial.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    partial.replace(results / "benchmark.yaml")
