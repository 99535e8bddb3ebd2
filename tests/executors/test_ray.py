"""Runs on a Ray cluster: what is lost when a process, a node or the command goes away, and what is refused."""

import json
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest
import torch

from semiseg.benchmarks.expansion import expand
from semiseg.contract import tiny_dataset
from semiseg.errors import UserError
from semiseg.executors import make_executor
from semiseg.executors.ray_cluster import check_nodes, cluster, common, room
from semiseg.registry import find_methods
from semiseg.settings import BenchmarkSettings
from semiseg.training.lease import holder
from semiseg.training.places import Places
from semiseg.training.run import execute

STEPS = 8
TRAINING = {
    "steps": STEPS, "size": [16, 16], "labeled_batch": 2, "unlabeled_batch": 2, "precision": "float32",
    "log_every": 1, "checkpoint_every": 2,
}  # fmt: skip
PLUGIN = '''
import os, signal, time
from pathlib import Path
from semiseg.methods.supervised import Supervised

HERE = Path(__file__).parent

class Plugin(Supervised):
    """{name}"""
    def losses(self, batch, progress):
        with (HERE / "{name}.steps").open("a") as file:
            file.write(f"{{progress.step}}\\n")
        {action}
        return super().losses(batch, progress)
'''
PLUGINS = {
    "deadly": "os._exit(9)",
    "dismissed": "if progress.step == 3: os.kill(os.getpid(), signal.SIGTERM)",
    "endless": "time.sleep(0.3)",
    "patient": "while progress.step == 5 and not (HERE / 'go').exists(): time.sleep(0.1)",
}


@pytest.fixture
def places(tmp_path):
    """Places with the plug-ins above, each of which writes down its steps."""
    for folder in ("data", "plugins"):
        (tmp_path / folder).mkdir()
    tiny_dataset(tmp_path / "data" / "tiny.h5", 2)
    for name, action in PLUGINS.items():
        (tmp_path / "plugins" / f"{name}.py").write_text(PLUGIN.format(name=name, action=action))
    places = Places(tmp_path / "results", tmp_path / "data", tmp_path / "splits", tmp_path / "plugins")
    places.frozen_splits(places.dataset("tiny"))
    return places


@pytest.fixture(scope="module", autouse=True)
def surroundings():
    """Ray's files in a folder whose name is short enough for sockets, and its ports closed to other machines."""
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        yield


def runs_of(places, *methods, folds=(0,), **training):
    content = {"name": "b", "dataset": "tiny", "methods": methods, "labels": [0.25], "folds": folds,
               "network": "unet_small", "training": TRAINING | training}  # fmt: skip
    return expand(BenchmarkSettings.model_validate(content), find_methods(places.methods_dir))


def record(places, spec):
    return json.loads((places.results / spec.folder / "run.json").read_text())


def steps(places, method):
    """How often each step was carried out."""
    return Counter(map(int, (places.methods_dir / f"{method}.steps").read_text().split()))


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


@pytest.mark.parametrize(("options", "device_type"), [
    ({}, "cpu"), ({"device": "cpu"}, "cpu"), ({"device": "cuda"}, "cuda"), ({"gpus_per_run": 0.5}, "cuda"),
    ({"gpus_per_run": 0.5, "device": "cuda"}, "cuda"), ({"gpus_per_run": 0}, "cpu"),
])  # fmt: skip
def test_runs_are_carried_out_on_what_was_asked_for(options, device_type, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert make_executor("ray", options).device_type == device_type
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert make_executor("ray", options).device_type == ("cuda" if not options else device_type)


@pytest.mark.parametrize("options", [
    {"device": "cpu", "gpus_per_run": 1}, {"device": "cuda", "gpus_per_run": 0}, {"gpus_per_run": 1.5},
    {"cpus_per_run": 0}, {"address": "somewhere"}, {"address": "ray://head:10001"}, {"memory_per_run": 0},
    {"device": "tpu"},
])  # fmt: skip
def test_options_that_cannot_be_meant_are_refused_in_one_line(options):
    with pytest.raises(UserError, match="executor ray") as error:
        make_executor("ray", options)
    assert "\n" not in str(error.value)


def test_without_ray_one_line_says_what_to_install(places, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"^[^\n]*pip install 'semiseg\[ray\]'[^\n]*$"):
        list(make_executor("ray", {}).carry_out(runs_of(places, "supervised"), places))


def test_a_cluster_that_does_not_answer_is_told_in_one_line_and_at_once(places):
    began = time.monotonic()
    with pytest.raises(UserError, match=r"^[^\n]*no cluster[^\n]*127\.0\.0\.1:1 [^\n]*ray start --head[^\n]*$"):
        list(make_executor("ray", {"address": "127.0.0.1:1"}).carry_out(runs_of(places, "supervised"), places))
    assert time.monotonic() - began < 60, "Ray itself takes minutes"


def test_a_dry_run_tells_what_would_be_asked_for_and_starts_nothing(places, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    options = {"dry_run": True, "cpus_per_run": 3, "gpus_per_run": 0.5, "address": "head:6379"}
    assert not list(make_executor("ray", options).carry_out(runs_of(places, "supervised"), places))
    (line,) = capsys.readouterr().out.splitlines()
    assert all(part in line for part in ("1 runs", "head:6379", "CPUs: 3", "GPUs: 0.5"))
    assert not places.results.exists()


@pytest.mark.slow
def test_a_process_that_dies_or_is_dismissed_costs_no_other_run_and_no_step_that_was_saved(places, capfd):
    runs = runs_of(places, "supervised", "deadly", "dismissed", "mean_teacher")
    ended = list(make_executor("ray", {"jobs": 1}).carry_out(runs, places))
    assert [spec.method for spec, _ in ended] == [spec.method for spec in runs], "runs begin in their order"
    records = {spec.method: record for spec, record in ended}
    assert records.pop("deadly")["status"] == "failed"
    assert {r["status"] for r in records.values()} == {"finished"}
    assert "process died 2 times" in record(places, runs[1])["reason"]
    assert steps(places, "deadly") == {0: 2}
    assert steps(places, "dismissed") == dict.fromkeys(range(STEPS), 1)
    assert capfd.readouterr() == ("", ""), "Ray does not talk into the progress"
    assert not list(places.results.glob(".*")), "what nodes are tested with is cleared away"


@pytest.fixture(scope="module")
def two_nodes():
    """A cluster with a head that carries out nothing and two nodes of one core, and a way to kill one of these."""
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    try:
        node, _ = (nodes.add_node(num_cpus=1, **small) for _ in range(2))
        yield nodes.address, lambda: nodes.remove_node(node, allow_graceful=False)
    finally:
        nodes.shutdown()


@pytest.mark.slow
def test_a_cluster_that_cannot_do_it_is_refused_before_anything_starts(places, two_nodes):
    address, _ = two_nodes
    runs = runs_of(places, "supervised")
    with pytest.raises(UserError, match=r"^[^\n]*no node is large enough[^\n]*CPUs: 2[^\n]*$"):
        list(make_executor("ray", {"address": address, "cpus_per_run": 2}).carry_out(runs, places))
    with cluster(address) as ray, common(runs, places) as shared:
        nodes = list(room(ray, {"CPU": 1}))
        assert len(nodes) == 2
        check_nodes(ray, nodes, shared)
        for lacking, complaint in [
            (replace(shared, paths=(*shared.paths, places.results / "elsewhere")), "does not see .*elsewhere"),
            (replace(shared, versions=shared.versions | {"torch": "1.0"}), "has torch .* not 1.0"),
        ]:
            with pytest.raises(UserError, match=rf"^[^\n]*the node \S+ {complaint}[^\n]*(\n[^\n]*)?$"):
                check_nodes(ray, nodes, lacking)
    assert not (places.results / "runs").exists()


@pytest.mark.slow
def test_whoever_leaves_early_stops_what_runs_with_a_checkpoint_and_leaves_the_cluster_alone(places, two_nodes):
    address, _ = two_nodes
    (quick,) = runs_of(places, "supervised")
    (endless,) = runs_of(places, "endless", steps=10**6, checkpoint_every=10**6)
    ended = make_executor("ray", {"address": address}).carry_out([endless, quick], places)
    assert next(ended)[0] == quick
    wait_for((places.methods_dir / "endless.steps").exists)
    ended.close()
    assert record(places, endless)["status"] == "left"
    with cluster(address) as ray:
        assert len(room(ray, {"CPU": 1})) == 2


@pytest.mark.slow
def test_runs_of_a_node_that_dies_are_finished_elsewhere_from_their_checkpoints(places, two_nodes):
    address, kill_a_node = two_nodes
    runs = runs_of(places, "patient", folds=(0, 1, 2))

    def kill():
        wait_for(lambda: (places.methods_dir / "patient.steps").exists() and steps(places, "patient")[5] == 2)
        kill_a_node()
        wait_for(lambda: sum(holder(places.results / spec.folder) is not None for spec in runs) == 1)
        (places.methods_dir / "go").touch()

    killer = threading.Thread(target=kill)
    killer.start()
    ended = list(make_executor("ray", {"address": address}).carry_out(runs, places))
    killer.join()
    assert sorted(spec.fold for spec, _ in ended) == [0, 1, 2]
    assert {record["status"] for _, record in ended} == {"finished"}
    assert steps(places, "patient") == {0: 3, 1: 3, 2: 3, 3: 3, 4: 4, 5: 4, 6: 3, 7: 3}, (
        "from step 4, where it was saved"
    )
    undisturbed = replace(places, results=places.results / "undisturbed")
    for spec in runs:
        execute(spec, undisturbed, torch.device("cpu"))
        cases = [(p.results / spec.folder / "cases.csv").read_bytes() for p in (places, undisturbed)]
        assert cases[0] == cases[1]
