"""A single training as a benchmark of one run, and the folder that it has to itself."""

import re
from itertools import count
from pathlib import Path
from typing import Any

from semiseg.benchmarks.expansion import ALL
from semiseg.data.splits import FOLDS
from semiseg.errors import UserError
from semiseg.settings import OWN_TRAINING, BenchmarkSettings, load_benchmark, override
from semiseg.validation import validate


def single_training(
    like: BenchmarkSettings, method: str, data: str, labels: str, fold: int, seed: int, overrides: dict[str, Any]
) -> BenchmarkSettings:
    """The benchmark that consists of one run, with network and training of another one.

    Args:
        overrides: training.KEY, network, weights, and settings of the method.
    """
    if method == ALL:
        raise UserError(f"semiseg train {ALL}: trains one method; name one, or run a benchmark of several.")
    content = like.model_dump(include={"network", "weights", "training", "tuned", "starts"}) | {
        "name": "train",
        "dataset": data,
        "labels": [labels],
        "repeats": fold // FOLDS + 1,
        "folds": [fold],
        "seeds": [seed],
    }
    variant = like.variants([method])[method]
    allowed = OWN_TRAINING if like.protocol else like.own_training  # only the entries of a protocol may set more
    own = {key: value for key, value in variant.training.items() if key in allowed}
    content["training"] |= {key: value for key, value in variant.training.items() if key not in own}
    config: dict[str, Any] = {}
    for key, value in overrides.items():
        if key.startswith("training.") or key in ("network", "weights"):
            override(content, key, value)
        elif "." in key:
            raise UserError(f"--set {key}: use training.KEY, network, weights, or a setting of the method.")
        else:
            config[key] = value
    entry = variant._replace(config=variant.config | config, training=own).entry(method)
    return validate(BenchmarkSettings, {**content, "methods": [entry]}, "semiseg train", set(overrides))


def named_after(folder: Path) -> str:
    """The name of a benchmark whose results lie in a folder, whatever that is called."""
    return re.sub(r"[^\w.-]", "_", folder.resolve().name).lstrip(".-") or "train"


def own_folder(usual: Path, settings: BenchmarkSettings) -> Path:
    """The folder of a single training: the usual one, or the first of its like that holds none with other settings."""
    for number in count(1):
        folder = usual if number == 1 else usual.with_name(f"{usual.name}-{number}")
        if not (folder / "benchmark.yaml").exists():
            return folder
        if _alike(load_benchmark(folder / "benchmark.yaml", {}), settings):
            return folder
    raise AssertionError("there is always a next number")


def _alike(one: BenchmarkSettings, other: BenchmarkSettings) -> bool:
    """Whether runs of both can stand in one table, as far as the precision, which results know, is not another."""
    both = [settings.variants() for settings in (one, other)]
    if any(both[0][name] != both[1][name] for name in both[0].keys() & both[1].keys()):
        return False
    shared = [s.model_dump(include={"network", "weights", "training", "starts"}) for s in (one, other)]
    for content in shared:
        del content["training"]["precision"]
    return shared[0] == shared[1]
