"""What a run is: nothing that its result depends on can change unnoticed, and nothing else makes it another run."""

import csv
import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import semiseg.methods
from semiseg import source_code
from semiseg.benchmarks.state import standing
from semiseg.contract import CPU, Interrupted, tiny_dataset
from semiseg.data.protocol import Protocol
from semiseg.data.splits import load_or_freeze
from semiseg.registry import Methods, find_methods, get_method
from semiseg.settings import RunSpec, TrainingSettings
from semiseg.source_code import without_comments
from semiseg.training import run as runs
from semiseg.training import trainer as trainers
from semiseg.training.assembly import identity_of
from semiseg.training.files import read_record
from semiseg.training.identity import code_hash, identify
from semiseg.training.places import Places
from semiseg.training.run import execute

TRAINING = TrainingSettings(
    steps=6, size=(16, 16), labeled_batch=2, unlabeled_batch=2, precision="float32", log_every=1, checkpoint_every=2
)
PLUGIN = '''
"""A method that can be edited."""
from semiseg.methods.supervised import Supervised

class Edited(Supervised):
    """Weighs its loss."""
    def losses(self, batch, progress):
        if progress.step == 2:
            self.note("rare", 0.25)
        return {"supervised": WEIGHT * super().losses(batch, progress)["supervised"]}
'''


@pytest.fixture
def places(tmp_path):
    for folder in ("data", "plugins"):
        (tmp_path / folder).mkdir()
    tiny_dataset(tmp_path / "data" / "tiny.h5", 2)
    edit(tmp_path, "1.0")
    return Places(tmp_path / "results", tmp_path / "data", tmp_path / "splits", tmp_path / "plugins")


def edit(root: Path, weight: str) -> None:
    (root / "plugins" / "edited.py").write_text(PLUGIN.replace("WEIGHT", weight))


def spec(**changes):
    content = {"benchmark": "b", "dataset": "tiny", "method": "edited", "implementation": "edited", "config": {},
               "labels": 0.25, "fold": 0, "seed": 0, "network": "unet_small", "weights": None,
               "training": TRAINING}  # fmt: skip
    return RunSpec.model_validate(content | changes)


def interrupted(places, run, after=5):
    """Carry out a run up to a step and leave it as a killed process does: with its last checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        fetch = trainers.Trainer._fetch

        def killed(self, losses, step):
            if step + 1 == after:
                raise Interrupted
            return fetch(self, losses, step)

        patch.setattr(trainers.Trainer, "_fetch", killed)
        assert execute(run, places, CPU)["status"] == "failed"
    assert (places.results / run.folder / "checkpoint.safetensors").exists()


def weights(places, run):
    return load_file(places.results / run.folder / "model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def fresh(places, run):
    """The weights of the same run, carried out elsewhere without interruption."""
    elsewhere = Places(places.results.with_name("fresh"), places.data, places.splits, places.methods_dir)
    assert execute(run, elsewhere, CPU)["status"] == "finished"
    return weights(elsewhere, run)


def test_an_identity_is_written_when_a_run_starts_and_into_its_checkpoints(places):
    interrupted(places, spec())
    folder = places.results / spec().folder
    record = json.loads((folder / "run.json").read_text())
    assert set(record["identity"]) == {"hash", "settings", "data", "split", "code", "weights"}
    checkpoint = trainers.load_checkpoint(folder, CPU)
    assert checkpoint.identity == record["identity"]
    assert "benchmark" not in record["identity"]["settings"]


def test_a_checkpoint_of_an_edited_loss_is_not_gone_on_with(places, tmp_path):
    interrupted(places, spec())
    edit(tmp_path, "3.0")
    record = execute(spec(), places, CPU)
    assert "set aside" in record["warnings"][0]
    assert "other code of the method" in record["warnings"][0]
    assert same(weights(places, spec()), fresh(places, spec()))


def test_a_regrouping_cannot_carry_a_test_case_into_the_weights(places):
    """The leak: a run is interrupted, cases are grouped otherwise, the split is frozen anew, training goes on."""
    interrupted(places, spec())
    dataset = places.dataset("tiny")
    before = load_or_freeze(places.splits / "tiny.json", dataset).folds[0]
    stored = json.loads((places.splits / "tiny.json").read_text())
    stored["folds"] = stored["folds"][1:] + stored["folds"][:1]  # what were training cases are tested now
    (places.splits / "tiny.json").write_text(json.dumps(stored))
    after = load_or_freeze(places.splits / "tiny.json", dataset).folds[0]
    assert set(after.test) <= set(before.train)
    record = execute(spec(), places, CPU)
    assert "another split" in record["warnings"][0]
    assert same(weights(places, spec()), fresh(places, spec()))


def test_an_untouched_checkpoint_is_gone_on_with_to_the_same_weights_and_curve(places):
    interrupted(places, spec(), after=6)
    record = execute(spec(), places, CPU)
    assert record["warnings"] == []
    expected = fresh(places, spec())
    assert same(weights(places, spec()), expected)

    def curve(results):
        with (results / spec().folder / "curve.csv").open() as rows:
            return [{k: v for k, v in row.items() if k != "images_per_second"} for row in csv.DictReader(rows)]

    whole = curve(places.results.with_name("fresh"))
    assert [row["rare"] for row in whole] == ["", "", "0.25", "0.25", "0.25", "0.25"], "noted once"
    assert curve(places.results) == whole


def test_whoever_takes_a_slip_back_goes_on_where_he_was(places, monkeypatch):
    """A long training, a command with another setting that begins anew, and the first command again."""
    other = spec(training=TRAINING.model_copy(update={"learning_rate": 0.5}))
    folder = places.results / spec().folder

    def stands(run):
        record = json.loads((folder / "run.json").read_text()) | {"status": "running"}  # as a killed process leaves it
        (folder / "run.json").write_text(json.dumps(record))
        dataset = places.dataset("tiny")
        data = dataset, load_or_freeze(places.splits / "tiny.json", dataset)
        return standing(run, identity_of(run, find_methods(places.methods_dir), data), folder).reason

    interrupted(places, spec())
    assert stands(spec()) == "interrupted, will resume"
    assert stands(other) == "interrupted, will begin anew, made with other settings (training.learning_rate)"
    interrupted(places, other, after=3)
    assert stands(other) == stands(spec()) == "interrupted, will resume"
    taken = []
    step = trainers.Trainer.step
    monkeypatch.setattr(trainers.Trainer, "step", lambda self, progress: taken.append(1) or step(self, progress))
    record = execute(spec(), places, CPU)
    assert len(taken) == 2, "from step 4 on"
    assert "a checkpoint of this very run, which had been set aside, was gone on with" in record["warnings"]
    assert same(weights(places, spec()), fresh(places, spec()))
    assert not [*folder.glob("*aside*")], "what is finished needs none"


@pytest.mark.parametrize("how", ["truncated", "renamed", "reshaped", "without identity"])
def test_a_checkpoint_that_cannot_be_used_is_named_and_costs_no_more_than_its_steps(places, how):
    interrupted(places, spec())
    path = places.results / spec().folder / "checkpoint.safetensors"
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif how == "without identity":
        save_file(load_file(path), path, {"step": "2", "seconds": "1"})
    else:
        checkpoint = trainers.load_checkpoint(path.parent, CPU)
        name = next(name for name in checkpoint.state if name.startswith("method."))
        value = checkpoint.state.pop(name)
        checkpoint.state[name if how == "reshaped" else "method.another"] = torch.cat([value, value])
        checkpoint.save(path.parent)
    record = execute(spec(), places, CPU)
    assert record["status"] == "finished"
    assert "the checkpoint was set aside" in record["warnings"][0]
    assert same(weights(places, spec()), fresh(places, spec()))


def test_a_finished_run_is_not_repeated_but_one_of_edited_code_is(places, tmp_path):
    first = execute(spec(), places, CPU)
    path = places.results / spec().folder / "model.safetensors"
    written = path.stat().st_mtime_ns
    assert execute(spec(benchmark="another"), places, CPU) == first
    assert path.stat().st_mtime_ns == written
    edit(tmp_path, "2.0")
    assert execute(spec(), places, CPU)["status"] == "stale", "nobody asked for it to be replaced"
    assert path.stat().st_mtime_ns == written
    (places.data / "tiny.h5").rename(places.data / "away.h5")
    assert execute(spec(), places, CPU)["status"] == "failed"
    assert read_record(path.parent) == first, "a failure that comes before the run begins replaces no result"


def test_what_a_process_holds_of_a_module_is_what_counts_and_not_what_was_written_since(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "shared_part.py").write_text("WEIGHT = 1\n")
    text = "from shared_part import WEIGHT\n" + PLUGIN
    for name in ("early", "late"):
        (tmp_path / f"{name}_method.py").write_text(text)
    early = code_hash(importlib.import_module("early_method").Edited)
    (tmp_path / "shared_part.py").write_text("WEIGHT = 2\n")
    assert code_hash(importlib.import_module("late_method").Edited) == early


def test_what_is_in_a_file_of_weights_counts_and_not_where_it_lies(places, tmp_path):
    from semiseg.networks import build_network

    def identity(path, seed):
        torch.manual_seed(seed)
        network = build_network("res2net50_unet", 3, 2, (32, 32))
        state = {k: v for k, v in network.encoder.state_dict().items() if v.ndim == 4}
        save_file({k: v.contiguous() for k, v in state.items()}, path)
        return execute(spec(weights=str(path)), places, CPU)["identity"]

    # `unet_small` starts from no file, so these runs fail; what they are is on record all the same.
    one, other = identity(tmp_path / "a.safetensors", 0), identity(tmp_path / "a.safetensors", 1)
    moved = identity(tmp_path / "b.safetensors", 1)
    assert one["weights"] != other["weights"]
    assert one["hash"] != other["hash"] == moved["hash"]


def test_comments_and_docstrings_are_no_code():
    text = 'import a  # why\n\n\ndef f(x):\n    """What."""\n    return "# no comment" + x\n'
    assert without_comments(text) == 'import a\ndef f(x):\n    return "# no comment" + x'
    assert without_comments(text) == without_comments(text.replace("# why", "# because").replace("What.", "More."))
    assert without_comments(text) != without_comments(text.replace("no comment", "another"))


def test_code_that_shares_its_lines_with_a_docstring_counts():
    one = 'class A(B): """Doc."""\n'
    assert without_comments(one) != without_comments(one.replace("(B)", "(C)"))
    assert without_comments('def f(): "d"; return 1\n') != without_comments('def f(): "d"; return 2\n')
    assert without_comments('x = "\x0c"\ny = 1  # one\n') == without_comments('x = "\x0c"\ny = 1  # two\n')


def test_code_that_a_method_imports_beside_the_engine_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lab").mkdir()
    files = {
        "__init__": "",
        "method": "from lab.part import x\n" + PLUGIN.replace("WEIGHT", "1"),
        "part": "def late():\n    from .deep import y\nx = 1\n",
        "deep": "y = 1\n",
        "unused": "z = 1\n",
    }

    def hash_with(**changes):
        for name, text in (files | changes).items():
            (tmp_path / "lab" / f"{name}.py").write_text(text)
        for name in [name for name in sys.modules if name.startswith("lab")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        return code_hash(importlib.import_module("lab.method").Edited)

    before = hash_with()
    assert hash_with(unused="z = 2\n", part=files["part"] + "# a comment\n") == before
    assert hash_with(part=files["part"] + "x = 2\n") != before
    assert hash_with(deep="y = 2\n") != before


@pytest.mark.parametrize("library", ["tool.py", "tool/__init__.py"])
def test_a_library_is_no_code_of_a_method_wherever_it_was_installed(tmp_path, monkeypatch, library):
    for folder in ("target", "target/tool", "own"):
        (tmp_path / folder).mkdir()
    monkeypatch.syspath_prepend(tmp_path / "target")  # filled by `pip install --target`
    monkeypatch.syspath_prepend(tmp_path / "own")
    (tmp_path / "own" / "using.py").write_text("from tool import x\n" + PLUGIN.replace("WEIGHT", "1"))

    def hash_with(text):
        (tmp_path / "target" / library).write_text(text)
        source_code._holds_distributions.cache_clear()
        for name in ("using", "tool"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return code_hash(importlib.import_module("using").Edited)

    assert hash_with("x = 1\n") != hash_with("x = 2\n")  # nobody installed it
    (tmp_path / "target" / "tool-1.0.dist-info").mkdir()
    assert hash_with("x = 1\n") == hash_with("x = 2\n")


def test_a_method_that_builds_on_another_depends_on_its_code_too(tmp_path, monkeypatch):
    path = tmp_path / "parent_method.py"
    monkeypatch.setattr(semiseg.methods, "__path__", [*semiseg.methods.__path__, str(tmp_path)])

    def hash_with(weight):
        path.write_text(PLUGIN.replace("WEIGHT", weight))
        (tmp_path / "child_method.py").write_text(
            "from semiseg.methods.parent_method import Edited\nclass Child(Edited):\n    'Child.'\n"
        )
        importlib.invalidate_caches()
        for name in ("parent_method", "child_method"):
            sys.modules.pop(f"semiseg.methods.{name}", None)
        return code_hash(get_method("child_method"))

    before, after = hash_with("1.0"), hash_with("2.0")
    for name in ("parent_method", "child_method"):
        sys.modules.pop(f"semiseg.methods.{name}", None)
        vars(semiseg.methods).pop(name, None)
    assert before != after


def test_the_precision_on_record_is_the_one_in_effect(places):
    run = spec(training=TRAINING.model_copy(update={"precision": "auto"}))
    record = execute(run, places, CPU)
    expected = "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"
    assert record["identity"]["settings"]["training"]["precision"] == expected
    assert read_record(places.results / run.folder)["spec"]["training"]["precision"] == expected


def test_a_record_tells_the_engine_the_machine_and_how_many_runs_shared_it(places):
    environment = execute(spec(), places, CPU, concurrency=3)["environment"]
    assert environment["concurrency"] == 3
    assert len(environment["engine"]) == 64
    assert {"torch", "threads", "device", "load"} <= set(environment)


def test_who_lost_a_run_to_somebody_else_writes_nothing_into_its_folder(places, monkeypatch):
    """A process that was suspended for longer than its lease lasts."""
    folder = places.results / spec().folder

    def suspended(self, step, steps, loss):
        if step == 3:
            next(folder.glob(".lease-*")).unlink()
            self.before = {path: path.read_bytes() for path in folder.iterdir() if "tfevents" not in path.name}

    monkeypatch.setattr(runs._Pace, "__call__", suspended)
    pace = []
    monkeypatch.setattr(runs._Pace, "__init__", lambda self, *arguments: pace.append(self))
    assert execute(spec(), places, CPU)["status"] == "held"
    after = {path: path.read_bytes() for path in folder.iterdir() if "tfevents" not in path.name}
    assert after == pace[0].before


def test_a_resume_goes_on_with_halves_and_still_tells_of_them(places, monkeypatch):
    """Memory was short until the run was interrupted; its second half must not be trained otherwise than its first."""
    build = runs.build_trainer

    def in_halves(*arguments):
        trainer = build(*arguments)
        fit = trainer.fit

        def fit_halves():
            trainer.micro_batches = max(trainer.micro_batches, halves[0])
            trainer.notes += ["in halves"] * (halves[0] == 2)
            fit()
            used.append(trainer.micro_batches)

        trainer.fit = fit_halves
        return trainer

    halves, used = [2], []
    monkeypatch.setattr(runs, "build_trainer", in_halves)
    run = spec(training=TRAINING.model_copy(update={"labeled_batch": 4, "size": (32, 32)}))
    interrupted(places, run)
    halves[0] = 1
    record = execute(run, places, CPU)
    assert used == [2]
    assert record["warnings"] == ["in halves"]


def test_divergence_is_found_before_a_checkpoint_keeps_it(places, tmp_path):
    text = (tmp_path / "plugins" / "edited.py").read_text()
    (tmp_path / "plugins" / "edited.py").write_text(
        text.replace("return {", "return {'supervised': loss * float('nan')} if progress.step == 2 else {").replace(
            "        if progress.step == 2",
            "        loss = super().losses(batch, progress)['supervised']\n        if progress.step == 2",
        )
    )
    run = spec(training=TRAINING.model_copy(update={"log_every": 100, "checkpoint_every": 2}))
    assert "supervised is no longer finite at step 3" in execute(run, places, CPU)["reason"]
    assert trainers.load_checkpoint(places.results / run.folder, CPU).step == 2


def test_the_number_of_networks_on_record_is_the_one_that_was_trained(places):
    """Settings may change it, and a table that compares costs by networks would be wrong."""
    run = spec(method="three", implementation="supervised", config={"networks": 3})
    assert execute(run, places, CPU)["method"]["networks"] == 3


def stored_records():
    """Of all runs whose results come with the project."""
    files = sorted((Path(__file__).parents[2] / "results").glob("*/runs/*/*/*/*/run.json"))
    return [record for file in files if "identity" in (record := json.loads(file.read_text(encoding="utf-8")))]


def test_a_setting_that_came_later_makes_no_stored_run_stale():
    records = stored_records()
    assert len(records) > 10
    assert any("augmentation" not in record["spec"]["training"] for record in records)
    assert any(record["spec"].get("start") for record in records)
    for record in records:
        today = identity_of(RunSpec.model_validate(record["spec"]), Methods(), None)
        assert not [reason for reason in today.differences(record["identity"]) if "settings" in reason]
        training = record["spec"]["training"]
        other = "customary" if training.get("augmentation") == "strong" else "strong"
        otherwise = {**record["spec"], "training": {**training, "augmentation": other}}
        assert (
            "training.augmentation"
            in identity_of(RunSpec.model_validate(otherwise), Methods(), None).differences(record["identity"])[0]
        )


def test_a_setting_that_came_later_leaves_the_hash_of_a_start_as_it_was():
    today = identify(spec(), None, None, None)
    assert set(today.settings["training"]) == {
        "steps", "size", "crop", "turns", "imaging", "labeled_batch", "unlabeled_batch", "learning_rate", "momentum",
        "weight_decay", "poly_power", "precision",
    }  # fmt: skip
    assert "protocol" not in today.settings
    for changes in ({"augmentation": "strong"}, {"decay_every": 2}):
        other = identify(spec(training=TRAINING.model_copy(update=changes)), None, None, None)
        (name,) = changes
        assert other.settings["training"][name] == changes[name]
        assert f"training.{name}" in today.differences(other.record())[0]
        assert f"training.{name}" in other.differences(today.record())[0]
    official = identify(spec(protocol=Protocol()), None, None, None)
    assert "protocol" in today.differences(official.record())[0]
    assert "protocol" in official.differences(today.record())[0]


def test_a_run_that_goes_on_elsewhere_says_with_what_its_first_steps_were_made(places, monkeypatch):
    with monkeypatch.context() as patch:
        here = runs.environment
        patch.setattr(runs, "environment", lambda device: here(device) | {"torch": "1.0", "threads": 7})
        interrupted(places, spec())
    record = execute(spec(), places, CPU)
    assert record["warnings"] == ["its first 4 steps were made with another torch 1.0"]
