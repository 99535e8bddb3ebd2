"""Tasks: found by name, and what a plug-in of one must not be given to another."""

import pytest

from semiseg import tasks
from semiseg.contract import tiny_dataset
from semiseg.errors import UserError
from semiseg.metrics import Metric
from semiseg.registry import find_methods
from semiseg.settings import RunSpec, TrainingSettings
from semiseg.tasks import TaskKind, all_metrics, task_kind
from semiseg.training.assembly import build_method

TASKS = ("segmentation", "localization", "alignment")


@pytest.mark.parametrize("name", TASKS)
def test_methods_are_compared_by_a_share_that_is_better_when_higher(name):
    kind = task_kind(name)
    assert isinstance(kind, TaskKind)
    assert kind.name == name
    assert (kind.primary.better, kind.primary.scale) == ("higher", 100)


def test_no_two_tasks_have_a_metric_of_one_name():
    names = [metric.name for task in TASKS for metric in task_kind(task).metrics]
    assert len(set(names)) == len(names)
    assert set(names) == set(all_metrics())


def test_a_task_of_a_package_of_one_s_own_is_found(monkeypatch):
    class Counting(type(task_kind("segmentation"))):
        name = "counting"
        metrics = (Metric("exact", "Exact", "higher"),)

    class Entry:
        name = "counting"

        def load(self):
            return Counting

    monkeypatch.setattr(tasks, "entry_points", lambda group: [Entry()] if group == "semiseg.tasks" else [])
    caches = tasks.task_kind, tasks._finders, tasks.all_metrics
    for cached in caches:
        cached.cache_clear()
    try:
        assert task_kind("counting").primary.title == "Exact"
        assert "exact" in all_metrics()
    finally:
        monkeypatch.undo()
        for cached in caches:
            cached.cache_clear()


def test_an_unknown_task_names_those_that_there_are():
    with pytest.raises(UserError, match=r"unknown task 'guessing'; there are: .*localization.*segmentation"):
        task_kind("guessing")


def test_a_method_of_another_task_is_refused_in_one_line(tmp_path):
    data = tiny_dataset(tmp_path / "tiny.h5", 2, kind=task_kind("localization"))
    spec = RunSpec(
        benchmark="b", dataset="tiny", method="supervised", implementation="supervised", labels=1.0, fold=0, config={},
        seed=0, network="unet_small", weights=None, training=TrainingSettings(size=(32, 32)),
    )  # fmt: skip
    with pytest.raises(UserError, match="supervised learns segmentation, and tiny is for localization"):
        build_method(find_methods()["supervised"], spec, data)


def test_all_methods_of_a_benchmark_are_those_of_segmentation():
    from semiseg.benchmarks.expansion import resolve
    from semiseg.settings import BenchmarkSettings

    found = find_methods()
    settings = resolve(BenchmarkSettings(name="b", dataset="d", methods=("all",)), found)
    names = [next(iter(e)) if isinstance(e, dict) else e for e in settings.methods]
    assert "supervised" in names
    assert {found[name].learns for name in names} == {"segmentation"}
    assert any(method.learns == "localization" for method in found.values())
