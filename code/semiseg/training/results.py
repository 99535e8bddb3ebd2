"""What a finished run leaves besides weights: scores of its cases, pictures, and what a table needs to know."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from semiseg.data.splits import Partition
from semiseg.data.store import Dataset
from semiseg.method import Method
from semiseg.metrics import Metric
from semiseg.tasks import Evaluation, TaskKind
from semiseg.training.checksums import SCORES, WEIGHTS
from semiseg.training.files import write_rows

SELECTION = "selection.csv"  # what rules compared, step by step
RESULTS = (*SCORES, SELECTION, "examples.npz", WEIGHTS, "traceback.txt")


def describe_method(method: type[Method]) -> dict[str, Any]:
    """What a table needs to know about a method."""
    paper = method.paper
    return {
        "title": method.title,
        "published_as": list(method.published_as),
        "paper": {"title": paper.title, "authors": paper.authors, "venue": paper.venue},
        "networks": method.networks,
        "uses_labels": method.uses_labels,
        "uses_unlabeled": method.uses_unlabeled,
        "uses_all_labels": method.uses_all_labels,
    }


def count_parameters(method: Method, learned: Iterable[nn.Parameter]) -> dict[str, int]:
    """How many are trained, those of adversaries included, and how many the reported network predicts with.

    Args:
        learned: what any stage trained; afterwards only what the last one trained can be told from the method.
    """
    reported = next(iter(method.predictors().values()))
    adversaries = (p for update in method.updates if update.adversarial for p in update.module.parameters())
    return {
        "trained": sum(p.numel() for p in {*learned, *adversaries}),
        "predicting": sum(p.numel() for p in reported.parameters()),
    }


def write_results(folder: Path, result: Evaluation) -> None:
    """Write per-case numbers and example predictions."""
    write_rows(folder / "cases.csv", result.cases)
    write_rows(folder / "predictors.csv", result.predictors)
    ids = np.array(result.examples.pop("ids"))
    pictures: dict[str, Any] = {key: _stack(values) for key, values in result.examples.items() if values}
    np.savez_compressed(folder / "examples.npz", ids=ids, **pictures)


def _stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stack pictures, smaller ones padded with zeros at the end."""
    size = np.max([a.shape for a in arrays], 0)
    return np.stack([np.pad(a, [(0, n - m) for m, n in zip(a.shape, size, strict=True)]) for a in arrays])


def mean_metrics(rows: Iterable[dict[str, Any]], kind: TaskKind) -> dict[str, float]:
    """Every metric of a task: the mean, or the median, over the cases of every class, then the mean over classes."""
    by_class: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        by_class.setdefault(row["class"], []).append(row)

    def middle(metric: Metric) -> float:
        over_cases = np.median if metric.summary == "median" else np.mean
        return float(np.mean([over_cases([row[metric.name] for row in rows]) for rows in by_class.values()]))

    return {metric.name: round(middle(metric), 6) for metric in kind.metrics}


def describe_data(dataset: Dataset, split_hash: str, partition: Partition) -> dict[str, Any]:
    """What a table needs to know about the data."""
    info = dataset.info
    return {
        "title": info.title,
        "task": info.task,
        "recipe": dataset.recipe,
        "classes": list(info.classes),
        "channels": dataset.channels,
        "image_type": dataset.image_type,
        "volumetric": dataset.is_volumetric,
        "synthetic": info.synthetic,
        "grouping": info.grouping,
        "unit": info.unit,
        "masks": info.masks,
        "licence": info.licence,
        "source": info.source,
        "citation": info.citation,
        "hash": dataset.hash,
        "split_hash": split_hash,
        "labeled": len(partition.labeled),
        "unlabeled": len(partition.unlabeled),
        "test": len(partition.test),
    }


def forget_results(folder: Path) -> None:
    """Remove what an earlier attempt left, so that nothing of two attempts is ever mixed."""
    for name in RESULTS:
        (folder / name).unlink(missing_ok=True)
