"""One run, one folder: train, evaluate, and leave a record that says how."""

import csv
import functools
import json
import os
import platform
import resource
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semiseg.data.sampling import TrainingSet
from semiseg.data.splits import Partition, Splits, load_or_freeze
from semiseg.data.store import Dataset
from semiseg.errors import UserError
from semiseg.evaluation import Evaluation, evaluate
from semiseg.method import Method, Task
from semiseg.metrics import METRICS
from semiseg.registry import get_method
from semiseg.settings import RunSpec, validate
from semiseg.trainer import Diverged, Report, Trainer, save_tensors


@dataclass(frozen=True)
class Places:
    """Where a benchmark reads and writes."""

    results: Path
    data: Path
    splits: Path
    methods_dir: Path | None = None

    def dataset(self, name: str) -> Dataset:
        """A prepared data set by name."""
        return Dataset(self.data / f"{name}.h5")

    def frozen_splits(self, dataset: Dataset) -> Splits:
        """The frozen splits of a data set; the first use freezes them."""
        return load_or_freeze(self.splits / f"{dataset.info.name}.json", dataset)


def execute(spec: RunSpec, places: Places, device: torch.device, report: Report) -> dict[str, Any]:
    """Carry out a run, or resume it. A failure is recorded with its reason, not raised."""
    folder = places.results / spec.folder
    folder.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
        "spec": spec.model_dump(mode="json"),
        "status": "running",
        "reason": "",
        "process": {"host": socket.gethostname(), "pid": os.getpid()},
        "environment": environment(device),
        "git_commit": git_commit(),
    }
    write_json(folder / "run.json", record)
    try:
        record |= _train_and_evaluate(spec, places, device, folder, report)
        record["status"] = "finished"
    except (UserError, Diverged) as error:
        record |= {"status": "failed", "reason": str(error)}
    except Exception as error:
        (folder / "traceback.txt").write_text(traceback.format_exc())
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        record |= {"status": "failed", "reason": f"{reason} (see {folder / 'traceback.txt'})"}
    del record["process"]
    write_json(folder / "run.json", record)
    if record["status"] == "finished":
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return record


def _train_and_evaluate(
    spec: RunSpec, places: Places, device: torch.device, folder: Path, report: Report
) -> dict[str, Any]:
    dataset = places.dataset(spec.dataset)
    splits = places.frozen_splits(dataset)
    method_class = get_method(spec.implementation, places.methods_dir)
    partition = partition_for(method_class, splits, spec, dataset)
    training = spec.training
    data = TrainingSet(
        dataset,
        partition,
        training.size,
        device,
        spec.seed,
        training.labeled_batch,
        training.unlabeled_batch,
        method_class.labeled_parts,
    )
    method = build_method(method_class, spec, dataset, data.unlabeled_steps)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    trainer = Trainer(method, data, training, spec.seed, device, folder, report)
    trainer.fit()
    save_tensors(folder / "model.safetensors", method.state_dict(), {"method": spec.implementation})
    result = evaluate(method, dataset, partition.test, device, training.precision)
    write_results(folder, result)
    return {
        "method": describe(method_class, spec),
        "data": {
            "title": dataset.info.title,
            "classes": dataset.info.classes,
            "channels": dataset.channels,
            "volumetric": dataset.is_volumetric,
            "synthetic": dataset.info.synthetic,
            "grouping": dataset.info.grouping,
            "hash": dataset.hash,
            "split_hash": splits.hash,
            "labeled": len(partition.labeled),
            "unlabeled": len(partition.unlabeled),
            "test": len(partition.test),
        },
        "warnings": method.concerns(),
        "seconds": round(trainer.seconds, 2),
        "images_per_second": round(trainer.images_per_second, 1),
        "peak_memory_mb": round(peak_memory(device), 1),
        "metrics": mean_metrics(result.cases),
    }


def partition_for(method: type[Method], splits: Splits, spec: RunSpec, dataset: Dataset) -> Partition:
    """The cases of a run; a method that ignores unlabelled images does not get any."""
    groups = {r.id: r.group for r in dataset.records.values()}
    partition = splits.partition(spec.fold, spec.labels, groups)
    return partition if method.uses_unlabeled else replace(partition, unlabeled=())


def build_method(method: type[Method], spec: RunSpec, dataset: Dataset, unlabeled_steps: int = 1) -> Method:
    """A method ready to be trained, or a message that says why it cannot be."""
    training = spec.training
    if training.labeled_batch % method.labeled_parts:
        raise UserError(
            f"{spec.implementation} needs a labeled_batch that {method.labeled_parts} divides, "
            f"not {training.labeled_batch}."
        )
    if len(training.size) == 3 and not dataset.is_volumetric:
        raise UserError(
            f"{dataset.info.name} holds 2D images; training.size should be [height, width], not {list(training.size)}."
        )
    config = validate(method.Config, spec.config, f"settings of method {spec.method}")
    task = Task(
        dataset.channels,
        len(dataset.info.classes),
        training.size,
        spec.network,
        spec.seed,
        Path(spec.weights) if spec.weights else None,
        unlabeled_steps,
    )
    return method(task, config)


def describe(method: type[Method], spec: RunSpec) -> dict[str, Any]:
    """What a table needs to know about a method."""
    paper = method.paper
    return {
        "title": method.title if spec.method == spec.implementation else spec.method,
        "paper": {"title": paper.title, "authors": paper.authors, "venue": paper.venue},
        "networks": method.networks,
        "uses_unlabeled": method.uses_unlabeled,
        "uses_all_labels": method.uses_all_labels,
    }


def write_results(folder: Path, result: Evaluation) -> None:
    """Write per-case numbers and example predictions."""
    write_rows(folder / "cases.csv", result.cases)
    write_rows(folder / "predictors.csv", result.predictors)
    ids = np.array(result.examples.pop("ids"))
    pictures: dict[str, Any] = {key: _stack(values) for key, values in result.examples.items()}
    np.savez_compressed(folder / "examples.npz", ids=ids, **pictures)


def _stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stack pictures, smaller ones padded with zeros at the end."""
    size = np.max([a.shape for a in arrays], 0)
    return np.stack([np.pad(a, [(0, n - m) for m, n in zip(a.shape, size, strict=True)]) for a in arrays])


def mean_metrics(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Mean over the cases of every class, then over classes."""
    by_class: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        by_class.setdefault(row["class"], []).append(row)
    return {m: round(float(np.mean([np.mean([r[m] for r in rows]) for rows in by_class.values()])), 6) for m in METRICS}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a CSV file atomically; no rows, no file."""
    if not rows:
        return
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    partial.replace(path)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(path)


def environment(device: torch.device) -> dict[str, Any]:
    """What a result may depend on besides the code and the data."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "semiseg": version("semiseg"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
    }


@functools.cache
def git_commit() -> str:
    """The commit of the code, marked if files were changed since; empty outside a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-modified" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def peak_memory(device: torch.device) -> float:
    """Peak memory in MB: of the device, or of this process if it trained on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
