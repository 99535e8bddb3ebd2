"""Measures on this machine how long a training step and a test take."""

import statistics
import tempfile
import time
from pathlib import Path

import torch

from semiseg.data.splits import Partition
from semiseg.data.store import Dataset
from semiseg.method import Method
from semiseg.settings import RunSpec
from semiseg.tasks import task_kind
from semiseg.training.assembly import build_trainer
from semiseg.training.precision import with_precision

STEPS, WARM_UP = 12, 4


def time_run(
    method: type[Method], spec: RunSpec, dataset: Dataset, partition: Partition, device: torch.device, threads: int
) -> tuple[float, float]:
    """Seconds of a step, and of predicting and measuring one labelled case, with so many threads."""
    changes = {"steps": STEPS, "log_every": 1}  # a loss that is looked at has been waited for
    training = with_precision(spec.training.model_copy(update=changes), device.type)
    spec = spec.model_copy(update={"training": training})
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with tempfile.TemporaryDirectory() as folder:
            trainer = build_trainer(method, spec, dataset, partition, device, Path(folder))
            ends: list[float] = []
            trainer.report = lambda step, steps, loss: ends.append(time.perf_counter())
            trainer.fit()
        steps = [end - start for start, end in zip(ends[WARM_UP - 1 :], ends[WARM_UP:], strict=False)]
        tests, kind = [], task_kind(dataset.info.task)
        for _ in range(2):  # the first pays for what is only done once
            start = time.perf_counter()
            kind.evaluate(trainer.method, dataset, partition.labeled[:1], device, training.precision)
            tests.append(time.perf_counter() - start)
        return statistics.median(steps), tests[-1]
    finally:
        torch.set_num_threads(before)
