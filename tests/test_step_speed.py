"""A training step that wastes time is noticed: it may cost little more than the passes through its networks."""

import sys
from pathlib import Path

import pytest
import torch

from semiseg.contract import CPU, tiny_dataset
from semiseg.settings import BenchmarkSettings

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import gpu
from speed import Bench

# Measured on an idle machine: docs/speed.md. What is allowed here is far above, for machines that have much else to do.
ALLOWED = {"supervised": 1.6, "mean_teacher": 1.6, "min_max_similarity": 2.0}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speed")
    dataset = tiny_dataset(folder / "tiny.h5", 2)
    training = {"size": [64, 64], "labeled_batch": 4, "unlabeled_batch": 4, "precision": "float32"}
    settings = BenchmarkSettings.model_validate(
        {"name": "speed", "dataset": "tiny", "methods": [*ALLOWED], "network": "unet_small", "training": training}
    )
    return Bench(settings, dataset, CPU, rounds=2, workers=0, folder=folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALLOWED)
def test_a_step_costs_little_more_than_its_passes(bench, name, monkeypatch):
    monkeypatch.setattr("speed.CUSTOMARY", "")  # the customary loop takes its time, too
    monkeypatch.setattr("speed.BLOCK", 5)
    assert torch.get_num_threads() == 1
    row = bench.measure(name)
    assert 0.9 < row["over_bare"] < ALLOWED[name], row


@pytest.mark.slow
def test_the_script_that_waits_for_a_gpu_works(tmp_path, capsys):
    gpu.main("cpu", "supervised", "32,32", 2, "unet_small", "own,plain layout,unfused", 1, 30_000, None, tmp_path)
    assert "supervised: 0 kernels and 0.0 waits a step" in capsys.readouterr().out
