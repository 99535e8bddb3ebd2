"""What goes wrong on real machines, done for real: kills, interrupts, full disks, two commands at once."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from semiseg.benchmarks.expansion import expand
from semiseg.contract import CPU, tiny_dataset
from semiseg.registry import find_methods
from semiseg.settings import load_benchmark
from semiseg.training.lease import holder
from semiseg.training.places import Places
from semiseg.training.run import execute

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from survive_kills import trials

pytestmark = pytest.mark.slow
PATIENCE = 240.0  # seconds, for machines that have much else to do
SLOW = '''
import time
from pathlib import Path
from semiseg.methods.mean_teacher import MeanTeacher

class Slow(MeanTeacher):
    """Takes its time, unless told to hurry."""
    def losses(self, batch, progress):
        if not Path("hurry").exists():
            time.sleep(0.1)
        return super().losses(batch, progress)
'''
BENCHMARK = {
    "name": "faults", "dataset": "tiny", "methods": ["slow"], "labels": ["25%"], "folds": [0], "seeds": [0, 1],
    "network": "unet_small",
    "training": {"steps": 40, "size": [16, 16], "labeled_batch": 2, "unlabeled_batch": 2, "log_every": 5,
                 "checkpoint_every": 10, "precision": "float32"},
}  # fmt: skip


def furnish(folder):
    """Data, a benchmark and a slow method."""
    for name in ("data", "plugins"):
        (folder / name).mkdir()
    tiny_dataset(folder / "data" / "tiny.h5", 2)
    (folder / "plugins" / "slow.py").write_text(SLOW)
    (folder / "faults.yaml").write_text(yaml.safe_dump(BENCHMARK))
    return folder


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder to work in."""
    monkeypatch.chdir(furnish(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The scores of the same runs with nothing going wrong."""
    root = furnish(tmp_path_factory.mktemp("undisturbed"))
    (root / "hurry").touch()
    places = Places(root / "results", root / "data", root / "splits", root / "plugins")
    runs = expand(load_benchmark(root / "faults.yaml", {}), find_methods(places.methods_dir))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert [execute(run, places, CPU)["status"] for run in runs] == ["finished"] * 2
    return scores(root / "results")


def scores(out):
    """The files of scores of both runs, byte for byte."""
    return [(folder(out, seed) / "cases.csv").read_bytes() for seed in (0, 1)]


def command(*options, out="results", jobs=1):
    """A `semiseg run` in a process group of its own."""
    code = "import sys; from semiseg.console.cli import main; sys.argv[0] = 'semiseg'; main()"
    arguments = [
        "run",
        "faults.yaml",
        "--methods-dir",
        "plugins",
        "--device",
        "cpu",
        "--jobs",
        str(jobs),
        "--out",
        out,
        "--executor-set",
        "threads=1",
    ]
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def finish(*options, out="results"):
    process = command(*options, out=out)
    text, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, text


def folder(out="results", seed=0):
    return Path(out, f"runs/slow/labels-25/fold-0/seed-{seed}")


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def at_step(step, out="results", seed=0):
    """Wait until a run has come so far."""

    def reached():
        now = holder(folder(out, seed)) if folder(out, seed).exists() else None
        return now is not None and now.step >= step

    until(reached)


def test_a_training_that_is_killed_at_random_moments_ends_with_the_same_bytes(tmp_path):
    result = trials(8, tmp_path)
    assert result["kills"] == 8
    assert result["runs"] > 0
    assert result["different"] == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_a_command_that_is_ended_keeps_the_step_it_reached_and_the_next_one_goes_on(root, undisturbed, how):
    """SIGKILL leaves the worker behind, which notices that nobody waits for it any more."""
    process = command()
    at_step(13)
    process.send_signal(how)
    text, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == (130 if how == signal.SIGTERM else -how)
    until(lambda: holder(folder()) is None)
    record = json.loads((folder() / "run.json").read_text())
    assert record["status"] == "left"
    assert int(record["reason"].split()[-1]) >= 13
    assert (folder() / "checkpoint.safetensors").exists()
    Path("hurry").touch()
    code, text = finish()
    assert code == 0, text
    assert scores("results") == undisturbed


def test_a_worker_that_the_kernel_kills_fails_its_run_alone_and_only_that_is_tried_again(root, undisturbed):
    process = command()
    at_step(3)
    os.kill(holder(folder()).pid, signal.SIGKILL)
    at_step(1, seed=1)
    Path("hurry").touch()
    text, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, text
    assert "its process died" in text
    assert json.loads((folder(seed=1) / "run.json").read_text())["status"] == "finished"
    (folder(seed=1) / "run.json").unlink()  # left, but it did not fail
    code, text = finish("--retry-failed")
    assert code == 1, "another run is still missing"
    assert json.loads((folder() / "run.json").read_text())["status"] == "finished"
    assert not (folder(seed=1) / "run.json").exists()
    assert (folder() / "cases.csv").read_bytes() == undisturbed[0]


def test_two_commands_on_one_folder_share_the_work_and_do_nothing_twice(root):
    first = command()
    at_step(1)
    second = command()
    texts = [process.communicate(timeout=PATIENCE)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], texts
    assert f"held by process {holder_in(texts[1])}" in texts[1]
    for seed in (0, 1):
        assert json.loads((folder(seed=seed) / "run.json").read_text())["status"] == "finished"
        events = list(folder(seed=seed).glob("events.out.tfevents.*"))
        assert len(events) == 1, "one training, one file of events"


def holder_in(text):
    return text.split("held by process ")[1].split()[0]


@pytest.fixture
def disk(root):
    """A file system of two megabytes, where this user may make one."""
    place = root / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")

    def remount(options):
        subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)

    yield remount
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_fails_runs_with_its_name_and_the_same_command_goes_on_when_there_is_space(disk, undisturbed):
    Path("hurry").touch()
    code, text = finish(out="disk/results")
    assert code == 1, text
    assert "No space left on device; free some space" in " ".join(text.split())
    assert "Traceback" not in text
    disk("size=200m")
    code, text = finish(out="disk/results")
    assert code == 0, text
    assert scores("disk/results") == undisturbed


def test_a_disk_that_becomes_read_only_is_named(disk):
    disk("size=200m,ro")
    code, text = finish(out="disk/results")
    assert code == 2, text
    assert "disk/results" in text
    assert "Read-only file system" in text
    assert text.count("\n") == 1


def test_data_that_vanish_fail_the_runs_that_need_them(root):
    process = command()
    at_step(1)
    Path("data/tiny.h5").unlink()
    Path("hurry").touch()
    text, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert "Traceback" not in text
    assert "tiny.h5" in text
