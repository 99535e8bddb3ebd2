"""`semiseg tune`: a file of chosen settings, equal trials, nothing trained twice, and what a benchmark makes of it."""

import json
import shutil

import pytest
import yaml

from commands import call, carried_out, in_this_process
from semiseg.contract import tiny_dataset
from semiseg.executors import local

BENCHMARK = {
    "name": "quick",
    "dataset": "tiny",
    "methods": ["supervised", "ict"],
    "labels": ["25%"],
    "folds": [0],
    "network": "unet_small",
    "training": {
        "steps": 2, "size": [16, 16], "labeled_batch": 2, "unlabeled_batch": 2, "log_every": 1, "precision": "float32",
    },
}  # fmt: skip
TUNE = ("tune", "quick.yaml", "--trials", "3", "--device", "cpu")


def records(root):
    paths = sorted(root.glob("results/tuning/quick/runs/*/*/*/*/run.json"))
    return {path.parent: json.loads(path.read_text()) for path in paths}


def file_of(root):
    return yaml.safe_load((root / "tuned" / "quick.yaml").read_text())


@pytest.fixture(scope="module")
def tuned_once(tmp_path_factory):
    root = tmp_path_factory.mktemp("tune")
    (root / "data").mkdir()
    tiny_dataset(root / "data" / "tiny.h5", 2)
    (root / "quick.yaml").write_text(yaml.safe_dump(BENCHMARK))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(local.Local, "carry_out", in_this_process)
        assert call(*TUNE) == 0
    return root


@pytest.fixture
def root(tuned_once, tmp_path, monkeypatch):
    """A copy of what was tuned."""
    shutil.copytree(tuned_once, tmp_path / "root")
    monkeypatch.chdir(tmp_path / "root")
    monkeypatch.delenv("SEMISEG_DATA", raising=False)
    monkeypatch.setattr(local.Local, "carry_out", in_this_process)
    carried_out.clear()
    return tmp_path / "root"


def test_the_file_holds_the_best_of_equal_trials_and_all_that_was_tried(root):
    file = file_of(root)
    runs = records(root)
    assert len(runs) == 2 * 3 * 2
    assert {name: len(trials) for name, trials in file["trials"].items()} == {"supervised": 3, "ict": 3}
    for entry in file["methods"]:
        ((name, settings),) = entry.items()
        best = {}
        for trial in file["trials"][name]:
            dice = [trial["dice"][f"labels-25/fold-0.inner-{k}/seed-0"] for k in (0, 1)]
            stored = [r["metrics"]["dice"] for p, r in runs.items() if f"/{name}.{trial['trial']:02d}/" in p.as_posix()]
            assert dice == stored
            assert trial["mean"] == pytest.approx(sum(dice) / 2, abs=1e-6)
            best[trial["trial"]] = trial["mean"]
        (chosen,) = (trial for trial in file["trials"][name] if trial.get("chosen"))
        assert chosen["trial"] == max(best, key=best.get)
        flat = {k: v for k, v in settings.items() if k != "training"}
        assert chosen["settings"] == flat | {f"training.{k}": v for k, v in settings["training"].items()}
    assert file["command"] == "semiseg tune quick.yaml --trials 3"
    assert file["training"]["precision"] == "float32"
    assert len(file["data_hash"]) == 64


def test_the_same_command_trains_nothing_again_and_writes_the_same_file(root, capfd):
    before = (root / "tuned" / "quick.yaml").read_bytes()
    assert call(*TUNE) == 0
    assert carried_out == []
    assert (root / "tuned" / "quick.yaml").read_bytes() == before
    out = capfd.readouterr().out
    assert "supervised: no search space of its own; learning rate and weight decay alone are tuned." in out
    assert "ict: no search space" not in out
    assert out.count("chosen") == 2


def test_what_is_left_is_carried_out_and_more_trials_leave_the_others_as_they_are(root):
    shutil.rmtree(next(p for p in records(root) if "ict.01" in p.as_posix()))
    assert call(*TUNE) == 0
    assert carried_out == ["runs/ict.01/labels-25/fold-0.inner-0/seed-0"]
    carried_out.clear()
    assert call(*TUNE[:3], 4, *TUNE[4:]) == 0
    assert {folder.split("/")[1] for folder in carried_out} == {"supervised.03", "ict.03"}
    carried_out.clear()
    assert call(*TUNE) == 0
    assert carried_out == []


def test_a_method_is_written_only_once_all_its_trials_are_done(root, monkeypatch, capfd):
    path = next(p for p in records(root) if "ict.01" in p.as_posix()) / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "failed", "reason": "disk full"}))
    monkeypatch.setattr(
        local.Local, "carry_out", lambda self, specs, places: ((s, json.loads(path.read_text())) for s in specs)
    )
    before = (root / "tuned" / "quick.yaml").read_text()
    assert call(*TUNE) == 1
    out = " ".join(capfd.readouterr().out.split())
    assert "ict: 1 of 3 trials are not done" in out
    assert "or ict would be lost" in out, out
    assert (root / "tuned" / "quick.yaml").read_text() == before, "what was chosen earlier is not forgotten"
    (root / "tuned" / "quick.yaml").unlink()
    assert call(*TUNE) == 1
    assert list(file_of(root)["trials"]) == ["supervised"]


def test_a_trial_that_diverged_is_shown_and_neither_wins_nor_is_carried_out_again(root, capfd):
    winner = next(trial["trial"] for trial in file_of(root)["trials"]["ict"] if trial.get("chosen"))
    path = root / f"results/tuning/quick/runs/ict.{winner:02d}/labels-25/fold-0.inner-0/seed-0/run.json"
    failed = {"status": "failed", "reason": "the loss is not a number", "diverged": True}
    path.write_text(json.dumps(json.loads(path.read_text()) | failed))
    assert call(*TUNE) == 0
    assert carried_out == []
    trials = file_of(root)["trials"]["ict"]
    assert "chosen" not in trials[winner]
    assert trials[winner]["dice"]["labels-25/fold-0.inner-0/seed-0"] == "failed: the loss is not a number"
    assert sum(t.get("chosen", False) for t in trials) == 1
    assert "the loss is not a number" in " ".join(capfd.readouterr().out.split())


def test_trials_in_another_folder_leave_the_choice_for_benchmarks_alone(root):
    before = (root / "tuned" / "quick.yaml").read_text()
    assert call(*TUNE, "--methods", "supervised", "--out", "elsewhere", "--set", "training.steps=1") == 0
    assert (root / "tuned" / "quick.yaml").read_text() == before
    assert list(yaml.safe_load((root / "elsewhere" / "tuned.yaml").read_text())["trials"]) == ["supervised"]


def test_methods_can_be_tuned_one_after_the_other(root):
    (root / "tuned" / "quick.yaml").unlink()
    shutil.rmtree(root / "results")
    assert call(*TUNE, "--methods", "ict") == 0
    assert {folder.split(".")[0] for folder in carried_out} == {"runs/ict"}
    assert call(*TUNE, "--methods", "supervised") == 0
    assert list(file_of(root)["trials"]) == ["supervised", "ict"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods: [", "tuned/quick.yaml, line 1: not valid YAML"),
        ("trials: {}", "tuned/quick.yaml: methods: Input should be a list"),
        ("- 3", "tuned/quick.yaml: should be a mapping"),
    ],
)
def test_a_damaged_choice_is_refused_before_anything_is_trained(root, capfd, text, message):
    shutil.rmtree(root / "results")
    (root / "tuned" / "quick.yaml").write_text(text)
    assert call(*TUNE) == 2
    err = capfd.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert carried_out == []


def test_an_older_choice_without_trials_keeps_its_methods(root):
    file = root / "tuned" / "quick.yaml"
    file.write_text("methods: []")
    assert call(*TUNE) == 0
    assert list(file_of(root)["trials"]) == ["supervised", "ict"]
    file.write_text("methods: [supervised, mean_teacher]")
    assert call(*TUNE) == 1
    assert file.read_text() == "methods: [supervised, mean_teacher]"


def test_a_dry_run_and_a_status_touch_nothing(root, capfd):
    shutil.rmtree(root / "results" / "tuning" / "quick" / "runs" / "ict.02")
    before = (root / "tuned" / "quick.yaml").read_bytes()
    assert call(*TUNE, "--dry-run") == 0
    assert "runs/ict.02/labels-25/fold-0.inner-1/seed-0" in capfd.readouterr().out
    assert call("status", "results/tuning/quick") == 0
    assert "finished  10" in capfd.readouterr().out
    assert carried_out == []
    assert (root / "tuned" / "quick.yaml").read_bytes() == before


def test_a_benchmark_runs_with_what_was_chosen(root, capfd):
    content = BENCHMARK | {"name": "final", "tuned": "quick", "methods": ["supervised", "ict", "mean_teacher"]}
    (root / "final.yaml").write_text(yaml.safe_dump(content))
    assert call("run", "final.yaml", "--device", "cpu") == 0
    out = capfd.readouterr().out
    assert "tuned/quick.yaml has no settings for mean_teacher: not tuned." in out
    chosen = {name: settings for entry in file_of(root)["methods"] for name, settings in entry.items()}
    for name, settings in chosen.items():
        spec = json.loads((root / f"results/final/runs/{name}/labels-25/fold-0/seed-0/run.json").read_text())["spec"]
        training = settings.pop("training")
        assert spec["config"].items() >= settings.items()
        assert spec["training"].items() >= training.items()
    assert "Settings chosen by equal trials (tuned/quick.yaml" in (root / "results/final/tables/main.md").read_text()
    carried_out.clear()
    assert call("run", "final.yaml", "--device", "cpu") == 0
    assert call("status", "results/final") == 0
    assert carried_out == []


@pytest.mark.parametrize(("arguments", "message"), [
    (("--inner-folds", "5"), "inner_folds"), (("--folds", "a"), "folds"), (("--methods", "nothing"), "nothing"),
    (("--set", "tuned=quick"), "tuned settings already"), (("--labels", "0%"), "above 0"),
])  # fmt: skip
def test_a_bad_request_is_refused_in_one_line(root, capfd, arguments, message):
    assert call(*TUNE, *arguments) == 2
    err = capfd.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert carried_out == []
