"""From a benchmark file to its runs: which there are, which are done, and whether the rest can start."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from semiseg.errors import UserError
from semiseg.records import read_record
from semiseg.registry import find_methods
from semiseg.run import Places, build_method, partition_for
from semiseg.settings import BenchmarkSettings, RunSpec, TrainingSettings, validate

ALL = "all"  # in the list of methods: every method found that is not listed by itself


@dataclass(frozen=True)
class Selection:
    """A part of a benchmark; an empty tuple selects everything."""

    methods: tuple[str, ...] = ()
    labels: tuple[float, ...] = ()
    folds: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()


def resolve(settings: BenchmarkSettings, places: Places, extra: tuple[str, ...] = ()) -> BenchmarkSettings:
    """Replace `all` by names, add the methods in `extra`, and refuse names that do not exist."""
    found = find_methods(places.methods_dir)
    variants = settings.variants()
    names = dict.fromkeys([*variants, *extra])
    if ALL in variants:
        names = dict.fromkeys(n for name in names for n in (found if name == ALL else [name]))
    methods: list[str | dict[str, Any]] = []
    for name in names:
        implementation, config = variants.get(name, (name, {}))
        if implementation not in found:
            raise UserError(
                f"benchmark {settings.name}: unknown method {implementation!r}; there are: {', '.join(found)}."
            )
        if implementation != name:
            config = {"method": implementation, **config}
        methods.append({name: config} if config else name)
    return settings.model_copy(update={"methods": tuple(methods)})


def expand(settings: BenchmarkSettings, places: Places, selection: Selection = Selection()) -> list[RunSpec]:
    """Every run of a resolved benchmark, ordered so that complete columns of the table come first."""
    found = find_methods(places.methods_dir)

    def chosen(kind: str, available: tuple[Any, ...], wanted: tuple[Any, ...]) -> tuple[Any, ...]:
        missing = [str(w) for w in wanted if w not in available]
        if missing:
            raise UserError(
                f"benchmark {settings.name} has no {kind} {', '.join(missing)}; "
                f"it has {', '.join(map(str, available))}."
            )
        return wanted or available

    variants = settings.variants()
    methods = chosen("methods", tuple(variants), selection.methods)
    labels = chosen("labels", settings.labels, selection.labels)
    runs = []
    for seed in chosen("seeds", settings.seeds, selection.seeds):
        for fold in chosen("folds", settings.folds, selection.folds):
            for fraction in labels:
                for name in methods:
                    implementation, config = variants[name]
                    if implementation not in found:
                        raise UserError(
                            f"benchmark {settings.name}: unknown method {implementation!r}; "
                            f"there are: {', '.join(found)}. Give a plugin's folder with --methods-dir."
                        )
                    method = found[implementation]
                    if method.uses_all_labels and fraction != labels[0]:
                        continue  # one run serves all label fractions
                    full = validate(method.Config, config, f"settings of method {name}").model_dump(mode="json")
                    runs.append(RunSpec(
                        benchmark=settings.name, dataset=settings.dataset, method=name,
                        implementation=implementation, config=full,
                        labels=1.0 if method.uses_all_labels else fraction, fold=fold, seed=seed,
                        network=settings.network, weights=settings.weights, training=settings.training,
                    ))  # fmt: skip
    return runs


def check(settings: BenchmarkSettings, specs: list[RunSpec], places: Places) -> None:
    """Find out before anything starts whether data, splits, methods and earlier results fit together."""
    dataset = places.dataset(settings.dataset)
    found = find_methods(places.methods_dir)
    for spec in {s.method: s for s in specs}.values():
        build_method(found[spec.implementation], spec, dataset)
    splits = places.frozen_splits(dataset)
    for spec in specs:
        method = found[spec.implementation]
        partition = partition_for(method, splits, spec, dataset)
        if method.uses_unlabeled and not partition.unlabeled:
            raise UserError(
                f"benchmark {spec.benchmark}: with {100 * spec.labels:g} % labels nothing is left "
                f"unlabeled for {spec.method}; choose a smaller fraction."
            )
    _check_earlier(settings, specs, places, (dataset.hash, splits.hash))


def _check_earlier(settings: BenchmarkSettings, specs: list[RunSpec], places: Places, hashes: tuple[str, str]) -> None:
    """Refuse to put runs beside others that they cannot be compared with."""
    remedy = "choose another --out, or move the old results away."
    now = {spec.folder: spec.model_dump(mode="json") for spec in specs}
    common = {key: settings.model_dump(mode="json")[key] for key in ("dataset", "network", "weights", "training")}
    for path in sorted(places.results.glob("runs/*/*/*/*/run.json")):
        record, folder = read_record(path.parent), path.parent.relative_to(places.results)
        data, before = record.get("data", {}), _in_full(record.get("spec", {}))
        if data and (data["hash"], data["split_hash"]) != hashes:
            raise UserError(f"{path.parent}: made from other data or another split; {remedy}")
        changed = [key for key, value in now.get(folder, common).items() if before and before.get(key) != value]
        if changed:
            raise UserError(f"{path.parent}: made with other settings ({', '.join(changed)}); {remedy}")


def _in_full(spec: dict[str, Any]) -> dict[str, Any]:
    """An earlier run's specification, with the defaults of settings that came into being since."""
    return spec and spec | {"training": TrainingSettings().model_dump(mode="json") | spec["training"]}


def state(spec: RunSpec, results: Path) -> tuple[str, str]:
    """finished, running, failed or left, and the reason for a failure."""
    record = read_record(results / spec.folder)
    status = record.get("status", "left")
    if status == "running" and not _alive(record["process"]):
        return "left", "interrupted, will resume"
    return status, record.get("reason", "")


def _alive(process: dict[str, Any]) -> bool:
    """Whether a process runs; one on another machine is given the benefit of the doubt."""
    if process["host"] != socket.gethostname():
        return True
    try:
        os.kill(process["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_benchmark(settings: BenchmarkSettings, results: Path) -> None:
    """Keep beside the results what was asked for."""
    results.mkdir(parents=True, exist_ok=True)
    content = settings.model_dump(mode="json")
    partial = results / "benchmark.yaml.partial"
    partial.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    partial.replace(results / "benchmark.yaml")
