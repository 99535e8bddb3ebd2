"""Whether the runs of a benchmark can start, found out before any does."""

from typing import Any

from semiseg.errors import UserError
from semiseg.registry import find_methods
from semiseg.settings import BenchmarkSettings, RunSpec, TrainingSettings
from semiseg.training.assembly import build_method, partition_for
from semiseg.training.files import read_record
from semiseg.training.places import Places


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
