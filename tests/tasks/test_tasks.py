"""Tasks: found by name, and what a plug-in of one must not be given to another."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from semiseg import tasks
from semiseg.console.terminal import show_left_out
from semiseg.contract import tiny_dataset
from semiseg.errors import UserError
from semiseg.metrics import Metric
from semiseg.registry import find_methods
from semiseg.settings import RunSpec, TrainingSettings
from semiseg.tasks import TaskKind, all_metrics, secret_fields, task_kind
from semiseg.training.assembly import build_method
from semiseg.training.places import Places
from semiseg.training.run import execute

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


class Grading(type(task_kind("segmentation"))):
    """A task of a package of one's own, whose cases have a grade, which is a label, and a remark, which is none."""

    name = "grading"
    metrics = (Metric("exact", "Exact", "higher"), *task_kind("segmentation").metrics)
    secret = ("grade",)

    def scores(self, dataset, case, prediction):
        return [{"exact": 1.0, **row} for row in super().scores(dataset, case, prediction)]

    def example(self, number, dims, changed=False):
        beside = {name: np.ones((1, 4), np.float32) for name in ("grade", "points", "second_observer", "regions")}
        return replace(super().example(number, dims, changed), fields={"remark": "none", **beside})


READER = '''
"""It asks for a field of all images, unlabelled ones as well."""
from semiseg.losses import supervised_loss
from semiseg.method import Method, Paper

class Reader(Method):
    """Learns from labels, and looks at a field."""
    title = "Reader"
    paper = Paper("None", "Nobody", "Nowhere")
    learns = "grading"

    class Config(Method.Config):
        """What it looks at."""
        field: str = "remark"

    def build(self):
        self.model = self.network()

    def losses(self, batch, progress):
        assert len(batch.field(self.config.field)) == len(batch.cases) == len(batch.labels) + 2
        return {"supervised": supervised_loss(self.model(batch.labeled()).logits, batch.labels)}

    def predictors(self):
        return {"network": self.model}
'''


@pytest.fixture
def grading(monkeypatch):
    """The task is installed."""

    class Entry:
        name, value = "grading", "tests:Task"

        def load(self):
            return Grading

    monkeypatch.setattr(tasks, "entry_points", lambda group: [Entry()] if group == "semiseg.tasks" else [])
    caches = tasks.task_kind, tasks._finders, tasks.all_metrics, tasks.secret_fields
    for cached in caches:
        cached.cache_clear()
    yield
    monkeypatch.undo()
    for cached in caches:
        cached.cache_clear()


def test_a_task_of_a_package_of_one_s_own_is_found(grading):
    assert task_kind("grading").primary.title == "Exact"
    assert "exact" in all_metrics()


@pytest.mark.parametrize("name", ["remark", "grade", "points", "second_observer", "regions"])
def test_a_method_cannot_read_of_unlabelled_cases_what_says_as_much_as_a_label(tmp_path, grading, name):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "reader.py").write_text(READER)
    tiny_dataset(tmp_path / "data" / "tiny.h5", 2, kind=task_kind("grading"))
    places = Places(tmp_path / "results", tmp_path / "data", tmp_path / "splits", tmp_path / "plugins")
    training = TrainingSettings(steps=1, size=(16, 16), labeled_batch=2, unlabeled_batch=2, precision="float32")
    spec = RunSpec(
        benchmark="b", dataset="tiny", method="reader", implementation="reader", labels="2 cases", fold=0, seed=0,
        config={"field": name}, network="unet_small", weights=None, training=training,
    )  # fmt: skip
    record = execute(spec, places, torch.device("cpu"))
    if name == "remark":
        assert record["status"] == "finished", record["reason"]
    else:
        assert record["reason"].startswith(f"{name} says what a label says"), record["reason"]


@pytest.mark.parametrize("task", TASKS)
def test_what_is_secret_in_one_task_is_so_in_the_data_of_every_other(task):
    assert secret_fields(task) == {"points", "second_observer", "regions"}


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


class Broken:
    """A package that was installed half."""

    name, value = "half", "half:Task"

    def load(self):
        raise ModuleNotFoundError("No module named 'half'")


class Claimed:
    """A package whose task has the name of another."""

    name, value = "segmentation", "mine:Task"

    def load(self):
        return TaskKind


class Quitting(Broken):
    """A package that ends the program."""

    def load(self):
        raise SystemExit(3)


@pytest.fixture
def offering(monkeypatch):
    """Have a package offer a task."""
    caches = tasks.task_kind, tasks._finders, tasks.all_metrics, tasks.secret_fields

    def offer(entry):
        monkeypatch.setattr(tasks, "entry_points", lambda group: [entry])
        for cached in caches:
            cached.cache_clear()

    yield offer
    for cached in caches:
        cached.cache_clear()


@pytest.mark.parametrize("entry", [Broken(), Quitting()], ids=["missing", "quitting"])
def test_a_broken_task_costs_only_itself(offering, entry):
    before = set(all_metrics())
    offering(entry)
    with pytest.raises(
        UserError, match=r"^the installed plugin half \(half:Task\): the plugin cannot be imported \(.*$"
    ):
        task_kind("half")
    assert set(all_metrics()) == before


def test_no_package_takes_the_place_of_a_task_of_the_suite(offering, capfd):
    before = type(task_kind("segmentation"))
    offering(Claimed())
    assert type(task_kind("segmentation")) is before
    show_left_out(find_methods())
    assert "the installed plugin segmentation (mine:Task) has the name of a task of the suite" in capfd.readouterr().err
