"""Processes of this machine: who gets what, and what a dying process costs."""

import json
import os
import sys

import pytest

from semiseg.benchmarks.expansion import expand
from semiseg.contract import tiny_dataset
from semiseg.errors import UserError
from semiseg.executors import executor_names, local, make_executor
from semiseg.executors.local import Pool, fitting
from semiseg.registry import find_methods
from semiseg.settings import BenchmarkSettings
from semiseg.training.lease import claim
from semiseg.training.places import Places

PLUGIN = '''
import os, time
from semiseg.methods.supervised import Supervised

class Plugin(Supervised):
    """{name}"""
    def losses(self, batch, progress):
        {action}
        return super().losses(batch, progress)
'''
ACTIONS = {
    "deadly": "time.sleep(0.5); os._exit(9)",
    "slow": "time.sleep(3)",  # long enough to be running still when the other process dies
    "forgetful": 'raise RuntimeError("DefaultCPUAllocator: can\'t allocate memory: you tried to allocate 9 bytes")',
    "whole": 'assert len(batch.labels) == 2, "can\'t allocate memory"',  # as if only half of a batch fitted
}


@pytest.fixture
def places(tmp_path):
    """Data, and methods that end badly."""
    for folder in ("data", "plugins"):
        (tmp_path / folder).mkdir()
    tiny_dataset(tmp_path / "data" / "tiny.h5", 2)
    for name, action in ACTIONS.items():
        (tmp_path / "plugins" / f"{name}.py").write_text(PLUGIN.format(name=name, action=action))
    return Places(tmp_path / "results", tmp_path / "data", tmp_path / "splits", tmp_path / "plugins")


def finish(places, *methods, jobs=1):
    """Carry out one run of each method with so many processes; the records by method."""
    settings = BenchmarkSettings.model_validate({
        "name": "b", "dataset": "tiny", "methods": methods, "labels": [0.25], "folds": [0], "network": "unet_small",
        "training": {"steps": 2, "size": [16, 16], "labeled_batch": 4, "unlabeled_batch": 2, "log_every": 1,
                     "precision": "float32"},
    })  # fmt: skip
    specs = expand(settings, find_methods(places.methods_dir))
    executor = make_executor("local", {"device": "cpu", "jobs": jobs})
    return {spec.method: (record, places.results / spec.folder) for spec, record in executor.carry_out(specs, places)}


def test_a_process_that_dies_fails_its_run_and_not_those_after_it(places):
    ended = finish(places, "deadly", "supervised", "mean_teacher")
    assert [record["status"] for record, _ in ended.values()] == ["failed", "finished", "finished"]
    assert "process died" in ended["deadly"][0]["reason"]
    for record, folder in ended.values():
        assert json.loads((folder / "run.json").read_text()) == json.loads(json.dumps(record))
        assert not list(folder.glob(".lease-*"))


def test_a_process_that_dies_does_not_fail_the_run_beside_it(places):
    ended = finish(places, "slow", "deadly", jobs=2)
    assert {name: record["status"] for name, (record, _) in ended.items()} == {"deadly": "failed", "slow": "finished"}
    assert ended["slow"][0]["environment"]["concurrency"] == 2


def test_lack_of_memory_is_told_and_a_method_that_allows_it_goes_on_with_halves(places):
    ended = finish(places, "forgetful", "whole")
    assert ended["forgetful"][0]["status"] == "failed"
    assert ended["forgetful"][0]["reason"].startswith("out of memory")
    assert ended["whole"][0]["status"] == "finished"
    assert "learned from in two halves" in ended["whole"][0]["warnings"][0]


def test_a_run_that_somebody_else_holds_comes_back_as_held(places):
    with claim(places.results / "runs/supervised/labels-25/fold-0/seed-0"):
        ended = finish(places, "supervised")
    assert ended["supervised"][0]["status"] == "held"
    assert f"process {os.getpid()}" in ended["supervised"][0]["reason"]


def test_a_run_whose_start_is_made_beside_it_does_not_wait_for_the_run_that_made_it(places, monkeypatch):
    """Its process is free as soon as the start is there, not only when nothing else is left to do."""
    monkeypatch.setattr(local, "RETRY", 0.3)
    settings = BenchmarkSettings.model_validate({
        "name": "b", "dataset": "tiny", "labels": [0.25], "folds": [0], "network": "unet_small",
        "starts": [{"first": {"method": "local_discrimination", "training": {"steps": 12}}}],
        "methods": [{"slow": {"start": "first"}}, {"supervised": {"start": "first"}}],
        "training": {"steps": 2, "size": [16, 16], "labeled_batch": 4, "unlabeled_batch": 2, "log_every": 1,
                     "precision": "float32"},
    })  # fmt: skip
    specs = expand(settings, find_methods(places.methods_dir))
    executor = make_executor("local", {"device": "cpu", "jobs": 2})
    ended = [(spec.method, record["status"]) for spec, record in executor.carry_out(specs, places)]
    assert ended[-1] == ("slow", "finished"), "it takes three seconds a step"
    assert ("supervised", "finished") in ended[:-1]


def test_devices_and_cores_are_shared_out(places, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(6)), raising=False)

    def pool(**options):
        return Pool(make_executor("local", options), places)

    assert (pool(device="cpu", jobs=2).wanted, pool(device="cpu", jobs=2).threads) == (2, 3)
    assert (pool().wanted, pool().threads, pool(jobs=100).threads) == (6, 1, 1)
    for options in ({"device": "tpu"}, {"device": "cuda"}, {"jobs": 0}, {"jobs": -1}, {"memory": 3}):
        with pytest.raises(UserError):
            pool(**options)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert (pool().wanted, pool().threads, pool().concurrency, pool(jobs=3).concurrency) == (2, 3, 1, 2)


def test_more_runs_share_a_gpu_when_the_first_shows_that_they_fit():
    assert fitting(total_mb=24_000, peak_mb=9_000) == 2
    assert fitting(total_mb=24_000, peak_mb=30_000) == 1
    assert fitting(total_mb=80_000, peak_mb=100) == 4


def test_executors_are_found_by_their_files_and_an_unknown_one_is_refused():
    assert "local" in executor_names()
    with pytest.raises(UserError, match="choose one of"):
        make_executor("cloud", {})


def test_a_dry_run_starts_nothing(places, capsys):
    executor = make_executor("local", {"device": "cpu", "jobs": 1, "dry_run": True})
    assert list(executor.carry_out([], places)) == []
    assert "threads" in capsys.readouterr().out
    assert "multiprocessing.spawn" not in sys.argv
