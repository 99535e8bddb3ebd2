"""One run, one folder: train, evaluate, and leave a record that says how."""

import os
import socket
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semiseg.errors import UserError
from semiseg.method import Method
from semiseg.metrics import METRICS
from semiseg.registry import get_method
from semiseg.settings import RunSpec
from semiseg.training.assembly import build_trainer, partition_for
from semiseg.training.environment import environment, forget_peak_memory, git_commit, peak_memory
from semiseg.training.evaluation import Evaluation, evaluate
from semiseg.training.files import save_tensors, write_json, write_rows
from semiseg.training.places import Places
from semiseg.training.trainer import Diverged, Report


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
        (folder / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
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
    forget_peak_memory(device)
    trainer = build_trainer(method_class, spec, dataset, partition, device, folder)
    trainer.report = report
    trainer.fit()
    method = trainer.method
    save_tensors(folder / "model.safetensors", method.state_dict(), {"method": spec.implementation})
    result = evaluate(method, dataset, partition.test, device, spec.training.precision)
    write_results(folder, result)
    return {
        "method": describe(method, spec),
        "data": {
            "title": dataset.info.title,
            "recipe": dataset.recipe,
            "classes": dataset.info.classes,
            "channels": dataset.channels,
            "volumetric": dataset.is_volumetric,
            "synthetic": dataset.info.synthetic,
            "grouping": dataset.info.grouping,
            "unit": dataset.info.unit,
            "licence": dataset.info.licence,
            "source": dataset.info.source,
            "citation": dataset.info.citation,
            "hash": dataset.hash,
            "split_hash": splits.hash,
            "labeled": len(partition.labeled),
            "unlabeled": len(partition.unlabeled),
            "test": len(partition.test),
        },
        "warnings": method.concerns(),
        "seconds": round(trainer.seconds, 2),
        "images_per_second": round(trainer.images_per_second, 1),
        "peak_memory_mb": peak_memory(device),
        "metrics": mean_metrics(result.cases),
    }


def describe(method: Method, spec: RunSpec) -> dict[str, Any]:
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
