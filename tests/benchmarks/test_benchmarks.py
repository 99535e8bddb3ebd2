"""From a benchmark file to finished runs: which there are, which are left, and what a dying process costs."""

import json
import os
import socket

import pytest

from semiseg.benchmarks.expansion import Selection, expand, resolve, write_benchmark
from semiseg.benchmarks.readiness import check
from semiseg.benchmarks.state import state
from semiseg.contract import tiny_dataset
from semiseg.errors import UserError
from semiseg.executors.local import carry_out, choose_devices
from semiseg.registry import find_methods
from semiseg.settings import BenchmarkSettings, load_benchmark
from semiseg.training.files import write_json
from semiseg.training.places import Places

TRAINING = {
    "steps": 2, "size": [16, 16], "labeled_batch": 2, "unlabeled_batch": 2, "log_every": 1, "precision": "float32",
}  # fmt: skip


@pytest.fixture
def places(tmp_path):
    (tmp_path / "data").mkdir()
    tiny_dataset(tmp_path / "data" / "tiny.h5", 2)
    return Places(tmp_path / "results", tmp_path / "data", tmp_path / "splits")


def benchmark(**changes):
    content = {"name": "b", "dataset": "tiny", "methods": ["supervised", "mean_teacher"], "labels": [0.25, 0.5],
               "folds": [0, 1], "seeds": [0], "network": "unet_small", "training": TRAINING}  # fmt: skip
    return BenchmarkSettings.model_validate(content | changes)


def refusal(call):
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_combination_is_one_run_in_a_folder_of_its_own(places):
    specs = expand(benchmark(seeds=[0, 1]), places)
    assert len({spec.folder for spec in specs}) == len(specs) == 2 * 2 * 2 * 2
    first = [(s.method, s.labels) for s in specs[:4]]
    assert first == [("supervised", 0.25), ("mean_teacher", 0.25), ("supervised", 0.5), ("mean_teacher", 0.5)]
    assert {(s.fold, s.seed) for s in specs[:4]} == {(0, 0)}, "a fold is complete before the next one begins"


def test_the_upper_bound_is_trained_once_per_fold_with_all_labels(places):
    specs = [
        s for s in expand(benchmark(methods=["fully_supervised", "supervised"]), places) if s.method != "supervised"
    ]
    assert [(s.labels, s.fold) for s in specs] == [(1.0, 0), (1.0, 1)]
    selected = expand(benchmark(methods=["fully_supervised"]), places, Selection(labels=(0.5,)))
    assert [s.labels for s in selected] == [1.0, 1.0]


def test_all_means_every_method_found(places):
    resolved = resolve(benchmark(methods=["all", {"slow": {"method": "mean_teacher", "ema_decay": 0.9}}]), places)
    assert {s.method for s in expand(resolved, places)} == {*find_methods(), "slow"}
    slow = next(s for s in expand(resolved, places) if s.method == "slow")
    assert (slow.implementation, slow.config["ema_decay"]) == ("mean_teacher", 0.9)
    assert resolve(resolved, places) == resolved


def test_methods_can_be_added_from_the_command_line(places):
    resolved = resolve(benchmark(methods=["supervised"]), places, ("cps",))
    assert {s.method for s in expand(resolved, places, Selection(methods=("cps",)))} == {"cps"}


def test_a_record_names_every_hyper_parameter_even_those_left_at_their_default(places):
    spec = next(s for s in expand(benchmark(), places) if s.method == "mean_teacher")
    assert set(spec.config) == set(find_methods()["mean_teacher"].Config.model_fields)


@pytest.mark.parametrize(("selection", "message"), [
    (Selection(methods=("cps",)), "no methods cps"), (Selection(labels=(0.05,)), "no labels 0.05"),
    (Selection(folds=(4,)), "no folds 4"), (Selection(seeds=(7,)), "no seeds 7"),
])  # fmt: skip
def test_a_selection_of_what_is_not_there_is_refused(places, selection, message):
    assert message in refusal(lambda: expand(benchmark(), places, selection))


def test_unknown_names_are_refused_before_anything_is_written(places):
    assert "unknown method 'nothing'" in refusal(lambda: resolve(benchmark(methods=["nothing"]), places))
    for changes, message in [
        ({"dataset": "nothing"}, "semiseg prepare nothing"),
        ({"network": "nothing"}, "network 'nothing'"),
        ({"network": "unet_3d"}, "3D"),
        ({"weights": "nothing.pth"}, "nothing.pth"),
        ({"training": TRAINING | {"size": [8, 8, 8]}}, "2D images"),
        ({"methods": ["min_max_similarity"], "training": TRAINING | {"labeled_batch": 3}}, "labeled_batch"),
    ]:
        assert message in refusal(lambda c=changes: check(benchmark(**c), expand(benchmark(**c), places), places))
    assert "unknown key 'ema'" in refusal(lambda: expand(benchmark(methods=[{"mean_teacher": {"ema": 1}}]), places))
    assert "ema_decay" in refusal(lambda: expand(benchmark(methods=[{"mean_teacher": {"ema_decay": 2}}]), places))
    assert not places.results.exists()


def test_labels_that_leave_nothing_unlabeled_are_refused(places):
    refusal(lambda: check(benchmark(labels=[1.0]), expand(benchmark(labels=[1.0]), places), places))


def test_a_refused_benchmark_freezes_no_splits(places):
    refusal(lambda: check(benchmark(network="nothing"), expand(benchmark(network="nothing"), places), places))
    assert not places.splits.exists()


def record(places, spec, **content):
    folder = places.results / spec.folder
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "run.json", {"spec": spec.model_dump(mode="json"), **content})


def test_results_made_with_other_settings_are_refused_by_what_changed(places):
    spec, *_ = expand(benchmark(), places)
    record(places, spec, status="finished")
    check(benchmark(), expand(benchmark(), places), places)
    changed = benchmark(training=TRAINING | {"steps": 3})
    assert "other settings (training)" in refusal(lambda: check(changed, expand(changed, places), places))
    check(
        benchmark(folds=[1, 2]), expand(benchmark(folds=[1, 2]), places), places
    )  # more runs beside the old ones are welcome


def test_results_from_before_a_setting_existed_count_as_made_with_its_default(places):
    spec, *_ = expand(benchmark(), places)
    record(places, spec, status="finished")
    path = places.results / spec.folder / "run.json"
    stored = json.loads(path.read_text())
    del stored["spec"]["training"]["turns"]
    write_json(path, stored)
    check(benchmark(), expand(benchmark(), places), places)
    changed = benchmark(training=TRAINING | {"turns": False})
    assert "other settings (training)" in refusal(lambda: check(changed, expand(changed, places), places))


def test_results_made_on_other_data_are_refused(places):
    spec, *_ = expand(benchmark(), places)
    dataset = places.dataset("tiny")
    record(places, spec, status="finished", data={"hash": "0" * 64, "split_hash": places.frozen_splits(dataset).hash})
    refusal(lambda: check(benchmark(), expand(benchmark(), places), places))


def test_the_state_of_a_run_is_what_its_record_and_process_say(places):
    spec, *_ = expand(benchmark(), places)
    assert state(spec, places.results) == ("left", "")
    host = socket.gethostname()
    for content, expected in [
        ({"status": "finished"}, ("finished", "")),
        ({"status": "failed", "reason": "no luck"}, ("failed", "no luck")),
        ({"status": "running", "process": {"host": host, "pid": os.getpid()}}, ("running", "")),
        ({"status": "running", "process": {"host": host, "pid": 2**22 + 1}}, ("left", "interrupted, will resume")),
        ({"status": "running", "process": {"host": "elsewhere", "pid": 2**22 + 1}}, ("running", "")),
    ]:
        record(places, spec, **content)
        assert state(spec, places.results) == expected


@pytest.mark.parametrize("content", ["{", "", "[]"])
def test_a_damaged_record_is_named(places, content):
    spec, *_ = expand(benchmark(), places)
    record(places, spec)
    (places.results / spec.folder / "run.json").write_text(content)
    assert "run.json" in refusal(lambda: state(spec, places.results))


def test_what_was_asked_for_is_kept_and_can_be_read_again(places):
    settings = resolve(benchmark(methods=["all"]), places)
    write_benchmark(settings, places.results)
    assert load_benchmark(places.results / "benchmark.yaml", {}) == settings


def test_devices_are_shared_out(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(6)), raising=False)
    assert choose_devices("cpu", 2) == (["cpu"] * 2, 3)
    assert choose_devices("auto", 100) == (["cpu"] * 100, 1)
    for device, jobs in [("tpu", None), ("cuda", None), ("cpu", 0), ("cpu", -1)]:
        refusal(lambda d=device, j=jobs: choose_devices(d, j))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert choose_devices("auto", None) == (["cuda:0", "cuda:1"], 3)
    assert choose_devices("cuda", 3) == (["cuda:0", "cuda:1", "cuda:0"], 2)


DEADLY = '''
import os, time
from pathlib import Path
from semiseg.methods.supervised import Supervised

class Plugin(Supervised):
    """{name}"""
    def losses(self, batch, progress):
        {action}
        return super().losses(batch, progress)
'''
DIES = "time.sleep(0.5); os._exit(9)"
WAITS = "time.sleep(3)"  # long enough to be running still when the other process dies


@pytest.fixture
def plugins(places, tmp_path):
    """Places with the methods `deadly`, which kills its process, and `slow`."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    for name, action in (("deadly", DIES), ("slow", WAITS)):
        (folder / f"{name}.py").write_text(DEADLY.format(name=name, action=action))
    return Places(places.results, places.data, places.splits, folder)


def finish(settings, places, jobs):
    """Carry out a benchmark with so many processes; the records by method."""
    specs = expand(settings, places)
    check(settings, specs, places)
    steps = []
    ended = carry_out(specs, places, ["cpu"] * jobs, 1, lambda *step: steps.append(step))
    records = {spec.method: record for spec, record in ended}
    return records, steps


def test_a_process_that_dies_fails_its_run_and_not_those_after_it(plugins):
    settings = benchmark(methods=["deadly", "supervised", "mean_teacher"], labels=[0.25], folds=[0])
    records, steps = finish(settings, plugins, jobs=1)
    assert records["deadly"]["status"] == "failed"
    assert "process died" in records["deadly"]["reason"]
    assert {records[m]["status"] for m in ("supervised", "mean_teacher")} == {"finished"}
    assert {(spec.method, step) for spec, step, *_ in steps} >= {("supervised", 1), ("mean_teacher", 2)}
    for spec in expand(settings, plugins):
        stored = json.loads((plugins.results / spec.folder / "run.json").read_text())
        assert stored == json.loads(json.dumps(records[spec.method]))
        assert state(spec, plugins.results)[0] == records[spec.method]["status"]


def test_a_process_that_dies_does_not_fail_the_run_beside_it(plugins):
    settings = benchmark(methods=["slow", "deadly"], labels=[0.25], folds=[0], training=TRAINING | {"steps": 1})
    records, _ = finish(settings, plugins, jobs=2)
    assert records["deadly"]["status"] == "failed"
    assert records["slow"]["status"] == "finished"


def test_runs_of_another_budget_cannot_stand_in_one_table(places):
    """Not even in other folds: the report would average them."""
    spec, *_ = expand(benchmark(folds=[0]), places)
    write_json(made(places, spec), {"spec": spec.model_dump(mode="json"), "status": "finished"})
    changed = benchmark(folds=[1], training=TRAINING | {"steps": 3})
    assert "other settings (training)" in refusal(lambda: check(changed, expand(changed, places), places))


def made(places, spec):
    folder = places.results / spec.folder
    folder.mkdir(parents=True)
    return folder / "run.json"
