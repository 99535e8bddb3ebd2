"""What a training size costs at best: reference masks, brought to that size and back as images and predictions are.

`python benchmarks/resolution.py benchmarks/acdc.yaml 48 64 72 [--data-dir DIR] [--set KEY=VALUE]` prints the Dice that
remains, on the training cases that are labelled at the benchmark's first amount of labels in fold 0, and on no others.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
import yaml
from torch import Tensor, nn

from semiseg.embedded import find_benchmark
from semiseg.errors import UserError
from semiseg.method import Task
from semiseg.metrics import class_metrics
from semiseg.networks import Output
from semiseg.settings import load_benchmark
from semiseg.training.evaluation import predict_case
from semiseg.training.places import Places


class Perfect(nn.Module):
    """Predicts what it is shown: an image with a channel for each class."""

    def forward(self, images: Tensor) -> Output:
        return Output(images.clamp(min=1e-6).log())


def main(
    benchmark: Path,
    sizes: list[int],
    data_dir: Path = Path("data"),
    overrides: Annotated[list[str] | None, typer.Option("--set", help="For instance dataset=acdc_100.")] = None,
) -> None:
    """Print a line for each side length of a square."""
    pairs = (pair.partition("=") for pair in overrides or [])
    try:
        settings = load_benchmark(find_benchmark(benchmark), {key: yaml.safe_load(value) for key, _, value in pairs})
        places = Places(Path(), data_dir, data_dir / "splits", None)
        dataset = places.dataset(settings.dataset)
        splits = places.splits_of(dataset, settings.protocol, write=False)  # a benchmark's own, if they are frozen
    except UserError as error:
        raise SystemExit(str(error)) from error
    classes = len(dataset.info.classes)
    groups = {record.id: record.group for record in dataset.records.values()}
    labeled = splits.partition(0, settings.labels[0], groups).labeled
    print(f"Dice (%) on {len(labeled)} labelled cases of {dataset.info.name}; least of a case, mean")
    for side in sizes:
        task = Task(classes, classes, (side, side), settings.network, crop=settings.training.crop)
        means = []
        for case in labeled:
            label = dataset.label(case)
            image = np.moveaxis(np.eye(classes, dtype=np.float32)[label], -1, 0)
            (found,) = predict_case([Perfect()], image, task, torch.device("cpu"), "float32")
            rows = class_metrics(found, label, dataset.info.classes, dataset.records[case].spacing)
            means.append(100 * np.mean([row["dice"] for row in rows]))
        print(f"{side:4} × {side:<4} {min(means):5.1f} {np.mean(means):5.1f}")


if __name__ == "__main__":
    typer.run(main)
