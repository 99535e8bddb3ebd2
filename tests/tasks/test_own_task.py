"""A task whose labels are neither masks nor points is one file: an image has a diagnosis, and nothing else knows it."""

import inspect
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from semiseg import tasks
from semiseg.contract import MethodContract, tiny_dataset
from semiseg.data.cropping import Crop
from semiseg.data.scale import as_trained
from semiseg.data.splits import Partition, make_splits
from semiseg.data.store import Case, Dataset, write_dataset
from semiseg.errors import UserError
from semiseg.method import Method, Paper, predict
from semiseg.metrics import Metric
from semiseg.registry import find_methods
from semiseg.report import report
from semiseg.settings import RunSpec, TrainingSettings
from semiseg.source_code import plugin_code
from semiseg.tasks import CaseByCase, task_kind
from semiseg.training.assembly import partition_for
from semiseg.training.identity import code_hash, identify
from semiseg.training.places import Places
from semiseg.training.precision import autocast
from semiseg.training.run import execute
from semiseg.training.sampling import TrainingSet

CPU = torch.device("cpu")


class Diagnosis(CaseByCase):
    """One class for every image."""

    name = "diagnosis"
    metrics = (Metric("correct", "Correct", "higher"),)
    dims = (2,)
    secret = ("diagnosis",)
    example_classes = ("healthy", "ill")

    def labels(self, dataset, cases, size, crop):
        return [torch.tensor([[self.reference(dataset, case)]]) for case in cases]

    def moved(self, labels, motion):
        return labels  # an image that is turned is as ill as before

    def predict(self, predictors, image, task, device, precision):
        images = as_trained(image, task.size, task.crop, device)
        with torch.no_grad(), autocast(precision, device, task.dims):
            return [predict(p, images).logits.mean((2, 3)).argmax(1).cpu().numpy() for p in predictors]

    def scores(self, dataset, case, prediction):
        correct = float(prediction.item() == self.reference(dataset, case))
        return [{"class": 1, "class_name": "ill", "correct": correct}]

    def masks(self, dataset, case, prediction):  # for pictures: all of an image is of its class
        shape = dataset.records[case].shape[1:]
        return tuple(np.full(shape, k, np.uint8) for k in (self.reference(dataset, case), prediction.item()))

    def example(self, number, dims, changed=False):
        ill, name = bool(number % 2) != changed, f"case{number:02d}"
        image = np.random.default_rng(number).random((1, 40, 40)).astype(np.float32) / 2 + (number % 2) / 2
        return Case(name, name, image, None, (1.0, 1.0), {"diagnosis": "ill" if ill else "healthy"})

    def reference(self, dataset, case):
        return dataset.info.classes.index(dataset.field(case, "diagnosis"))


class Doctor(Method):
    """Learns the diagnosis of labelled images, and is sure of the others'."""

    title = "Doctor"
    paper = Paper("None", "Nobody", "Nowhere")
    learns = "diagnosis"

    def build(self):
        self.model = self.network()

    def losses(self, batch, progress):
        logits = self.model(batch.images()).logits.mean((2, 3))
        own, free = batch.split(logits)
        return {"supervised": F.cross_entropy(own, batch.labels), "doubt": -free.softmax(1).max(1).values.mean()}

    def predictors(self):
        return {"model": self.model}


@pytest.fixture(scope="module", autouse=True)
def installed():
    """The task comes with a package."""

    class Entry:
        name, value = "diagnosis", "tests:Diagnosis"

        def load(self):
            return Diagnosis

    caches = tasks.task_kind, tasks._finders, tasks.all_metrics, tasks.secret_fields
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "entry_points", lambda group: [Entry()] if group == "semiseg.tasks" else [])
        for cached in caches:
            cached.cache_clear()
        yield
    for cached in caches:
        cached.cache_clear()


def test_the_page_on_tasks_shows_all_of_it():
    page = (Path(__file__).parents[2] / "docs/tasks.md").read_text(encoding="utf-8")
    assert inspect.getsource(Diagnosis) in page


@pytest.mark.parametrize("check", MethodContract.checks())
def test_a_method_of_it_passes_the_contract(tmp_path, check):
    getattr(MethodContract("doctor", Doctor, 2, tmp_path), check)()


@pytest.mark.parametrize("augmentation", ["customary", "strong"])
def test_labels_stay_with_their_images(tmp_path, augmentation):
    contract = MethodContract("doctor", Doctor, 2, tmp_path)
    spec = contract.spec()
    training = spec.training.model_copy(update={"augmentation": augmentation})
    trainer = contract.trainer("one", spec.model_copy(update={"training": training}))
    for step in range(4):
        batch = trainer.batch(step)
        expected = [int(case[-2:]) % 2 for case in batch.cases[: len(batch.labels)]]
        assert batch.labels.tolist() == expected


def test_a_patch_has_the_label_that_the_task_gives_it(tmp_path, monkeypatch):
    monkeypatch.setattr(Diagnosis, "cut", lambda self, label, window: 1 - label)
    data = tiny_dataset(tmp_path / "tiny.h5", 2, kind=task_kind("diagnosis"))
    patches = Crop(window=(20, 20), at="anywhere")
    drawn = TrainingSet(data, Partition(("case00", "case01"), (), ()), (10, 10), CPU, 0, 2, 0, crop=patches)
    images, labels = drawn.batch(0)
    assert images.shape[2:] == (10, 10)
    assert labels.tolist() == [int(image.mean() < 0.5) for image in images]


def test_a_volume_with_one_label_is_not_trained_slice_by_slice(tmp_path):
    """Its label would go to a slice of its own and those of others to the next ones."""
    info = replace(tiny_dataset(tmp_path / "tiny.h5", 2, kind=task_kind("diagnosis")).info, name="deep")
    deep = np.zeros((1, 4, 16, 16), np.float32)
    write_dataset(tmp_path / "deep.h5", info, [Case(n, n, deep, None, (1.0,) * 3, {"diagnosis": "ill"}) for n in "ab"])
    with pytest.raises(UserError, match=r"deep: diagnosis has 1 labels for case 'a', .* see 4 images"):
        TrainingSet(Dataset(tmp_path / "deep.h5"), Partition(("a",), ("b",), ()), (8, 8), CPU, 0, 1, 1)


def test_the_code_of_a_task_of_one_s_own_is_part_of_what_a_run_is(tmp_path, monkeypatch):
    data = tiny_dataset(tmp_path / "tiny.h5", 2, kind=task_kind("diagnosis"))
    method, spec = find_methods()["supervised"], MethodContract("doctor", Doctor, 2, tmp_path).spec()
    cases = partition_for(method, make_splits(data), spec, data)
    assert code_hash(method) == code_hash(method, task="segmentation"), "the engine's tasks are the engine's"
    before = identify(spec, method, data, cases).code
    assert before == code_hash(method, task="diagnosis") != code_hash(method)
    edited = {type(task_kind("diagnosis")): ("edited = True",)}
    monkeypatch.setattr("semiseg.training.identity.plugin_code", lambda kind: edited.get(kind) or plugin_code(kind))
    assert identify(spec, method, data, cases).code != before


def test_runs_are_trained_scored_and_reported(tmp_path):
    tiny_dataset(tmp_path / "data" / "tiny.h5", 2, kind=task_kind("diagnosis"))
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "doctor.py").write_text(
        "from tests.tasks.test_own_task import Doctor as Base\n\nclass Doctor(Base):\n    'Learns a diagnosis.'\n"
    )
    assert find_methods(tmp_path / "plugins")["doctor"].learns == "diagnosis"
    places = Places(tmp_path / "results", tmp_path / "data", tmp_path / "splits", tmp_path / "plugins")
    training = TrainingSettings(steps=40, size=(32, 32), labeled_batch=2, unlabeled_batch=2, precision="float32")
    for fold in (0, 1):
        spec = RunSpec(
            benchmark="b", dataset="tiny", method="doctor", implementation="doctor", labels="4 cases", fold=fold,
            seed=0, config={}, network="unet_small", weights=None, training=training,
        )  # fmt: skip
        record = execute(spec, places, CPU)
        assert record["status"] == "finished", record["reason"]
    assert "Correct" in report(tmp_path / "results").read_text()
    cases = pd.concat(map(pd.read_csv, (tmp_path / "results").rglob("cases.csv")))
    assert set(cases["class_name"]) == {"ill"}
    assert cases["correct"].mean() > 0.7, "bright images are ill, which a few steps tell"
    assert json.loads(next((tmp_path / "results").rglob("run.json")).read_text())["data"]["task"] == "diagnosis"
