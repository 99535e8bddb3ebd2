"""Starts: learned once for all runs of a fold, without labels, and part of what those runs are."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from semiseg.benchmarks.expansion import expand
from semiseg.benchmarks.readiness import check
from semiseg.benchmarks.state import survey
from semiseg.contract import CPU, tiny_dataset
from semiseg.data.store import DatasetInfo, write_dataset
from semiseg.errors import UserError
from semiseg.registry import find_methods
from semiseg.settings import BenchmarkSettings
from semiseg.tasks import task_kind
from semiseg.training.assembly import build_trainer, partition_for
from semiseg.training.lease import claim
from semiseg.training.places import Places
from semiseg.training.run import execute

PLUGIN = '''
"""A start that can be edited."""
from semiseg.method import Paper
from semiseg.start import Start

class Brightness(Start):
    """Learns to copy the image."""
    title = "Brightness"
    paper = Paper("Brightness", "Nobody", "Nowhere")

    class Config(Start.Config):
        weight: float = 1.0

    def build(self):
        self.model = self.network()

    def losses(self, batch, progress):
        if self.config.weight < 0:
            raise ValueError("no negative weights")
        assert len(batch.labels) == 0
        images = batch.images()
        loss = (self.model(images).logits - images).square().mean()
        return {"copy": FACTOR * self.config.weight * loss}

    def handed_on(self):
        return {k: v for k, v in self.model.state_dict().items() if k.startswith("encoder")}
'''


@pytest.fixture
def places(tmp_path):
    for folder in ("data", "plugins"):
        (tmp_path / folder).mkdir()
    tiny_dataset(tmp_path / "data" / "tiny.h5", 2)
    edit(tmp_path, "1")
    return Places(tmp_path / "results", tmp_path / "data", tmp_path / "splits", tmp_path / "plugins")


def edit(root, factor):
    (root / "plugins" / "brightness.py").write_text(PLUGIN.replace("FACTOR", factor))


def benchmark(method="supervised", /, **start):
    return BenchmarkSettings.model_validate({
        "name": "b", "dataset": "tiny", "labels": [0.25, 0.5], "folds": [0], "seeds": [0], "network": "unet_small",
        "methods": [{"begun": {"method": method, "start": "copied"}}],
        "starts": [{"copied": {"method": "brightness", "training": {"steps": 3}, **start}}],
        "training": {"steps": 4, "size": [16, 16], "labeled_batch": 2, "unlabeled_batch": 2, "precision": "float32",
                     "log_every": 1},
    })  # fmt: skip


def specs(places, **start):
    return expand(benchmark(**start), find_methods(places.methods_dir))


def handed(places, spec):
    return load_file(places.results / spec.start.folder / "model.safetensors")


@pytest.mark.parametrize("method", ["supervised", "cps"])
def test_every_network_of_a_method_begins_with_what_was_learned(places, method):
    found = find_methods(places.methods_dir)
    spec = expand(benchmark(method), found)[0]
    assert execute(spec, places, CPU)["status"] == "finished"
    dataset = places.dataset("tiny")
    partition = partition_for(found[method], places.frozen_splits(dataset), spec, dataset)
    start = places.results / spec.start.folder / "model.safetensors"
    begun = build_trainer(found[method], spec, dataset, partition, CPU, places.results, start).method
    networks = [m for m in begun.modules() if type(m).__name__ == "EncoderDecoder"]
    assert len(networks) == found[method].networks
    for network in networks:
        own = network.state_dict()
        assert all(torch.equal(own[name], value) for name, value in handed(places, spec).items())
    if len(networks) > 1:  # what is not handed on is random, and not alike
        assert not torch.equal(networks[0].head.weight, networks[1].head.weight)


def test_a_start_is_learned_once_for_all_runs_of_a_fold_with_the_steps_it_asks_for(places):
    first, second = specs(places)
    assert (first.start.folder, first.labels) == (second.start.folder, 0.25)
    record = execute(first, places, CPU)
    assert record["start"]["folder"] == "starts/copied/fold-0/seed-0"
    file = places.results / first.start.folder / "run.json"
    learned, steps = file.stat().st_mtime_ns, json.loads(file.read_text())["spec"]["training"]["steps"]
    assert execute(second, places, CPU)["status"] == "finished"
    assert (file.stat().st_mtime_ns, steps) == (learned, 3)


def test_a_start_that_is_a_method_of_another_task_shows_what_that_task_shows(tmp_path):
    kind = task_kind("segmentation")
    cases = [replace(kind.example(n, 2), fields={"text": f"case {n}", "study": str(n)}) for n in range(10)]
    about = ("tiny", "Tiny cases", "generated", kind.example_classes, "MIT", "generated")
    (tmp_path / "data").mkdir()
    write_dataset(tmp_path / "data" / "tiny.h5", DatasetInfo(*about, grouping="case", synthetic=True), cases)
    places = Places(tmp_path / "results", tmp_path / "data", tmp_path / "splits", None)
    record = execute(expand(benchmark(method="image_text"), find_methods(None))[0], places, CPU)
    assert record["status"] == "finished", record["reason"]


def test_a_start_sees_all_training_images_and_no_test_image(places):
    run = specs(places)[0]
    execute(run, places, CPU)
    data = json.loads((places.results / run.start.folder / "run.json").read_text())["data"]
    dataset = places.dataset("tiny")
    assert (data["labeled"], data["unlabeled"]) == (0, len(places.frozen_splits(dataset).folds[0].train))


def test_lost_weights_of_a_start_are_learned_again(places):
    first, second = specs(places)
    execute(first, places, CPU)
    before = handed(places, first)
    (places.results / first.start.folder / "model.safetensors").unlink()
    assert execute(second, places, CPU)["status"] == "finished"
    assert all(torch.equal(value, before[name]) for name, value in handed(places, first).items())


def reasons(places, **start):
    found = find_methods(places.methods_dir)
    runs = expand(benchmark(**start), found)
    return {run.reason for run in survey(runs, places, found, check(runs, found, places))}


def test_runs_of_another_start_are_never_taken_for_those_of_this_one(places, tmp_path):
    for run in specs(places):
        execute(run, places, CPU)
    assert reasons(places) == {""}
    (other,) = reasons(places, weight=2.0)
    assert "start.config.weight" in other
    edit(tmp_path, "2")
    assert reasons(places) == {"made with another start"}
    weights = handed(places, specs(places)[0])
    for run in specs(places):
        assert execute(run, places, CPU)["status"] == "stale"
        json_file = places.results / run.folder / "run.json"  # as --rerun-stale does
        json_file.write_text(json.dumps(json.loads(json_file.read_text()) | {"status": "left"}))
        assert execute(run, places, CPU)["status"] == "finished"
    assert not all(torch.equal(v, weights[k]) for k, v in handed(places, specs(places)[0]).items())
    assert reasons(places) == {""}


def test_a_run_whose_start_somebody_else_learns_waits_for_it(places):
    run = specs(places)[0]
    with claim(places.results / run.start.folder):
        record = execute(run, places, CPU)
    assert record["status"] == "held"
    assert "its start is held by process" in record["reason"]
    assert execute(run, places, CPU)["status"] == "finished"


def test_a_stop_within_the_start_keeps_what_it_has_learned(places):
    run = specs(places)[0]
    steps = iter([False, True])
    record = execute(run, places, CPU, stop=lambda: next(steps, True))
    assert record["status"] == "left"
    assert (places.results / run.start.folder / "checkpoint.safetensors").exists()
    assert execute(run, places, CPU)["status"] == "finished"


def test_a_start_that_fails_says_why_in_every_run(places):
    record = execute(specs(places, weight=-1.0)[0], places, CPU)
    assert record["status"] == "failed"
    assert record["reason"].startswith("its start starts/copied/fold-0/seed-0 failed: ")
    assert "no negative weights" in record["reason"]


def test_a_start_of_a_start_is_refused_rather_than_ignored(places):
    with pytest.raises(UserError, match="'copied' begins at random"):
        specs(places, start="brightness")


@pytest.mark.parametrize(("entry", "problem"), [
    ({"begun": {"method": "supervised", "start": "nothing"}}, "unknown start 'nothing'; there are: brightness"),
    ({"begun": {"method": "brightness"}}, "brightness is a start, no method"),
    ({"begun": {"method": "supervised", "start": {"brightness": {}}}}, "settings go to `starts`"),
    ({"begun": {"method": "supervised", "training": {"labeled_batch": 9}}}, "may set learning_rate"),
])  # fmt: skip
def test_a_misspelt_start_is_named(places, entry, problem):
    settings = benchmark().model_copy(update={"methods": (entry,)})
    with pytest.raises(UserError, match=problem):
        expand(settings, find_methods(places.methods_dir))
