"""What somebody who waits is shown: where bars move, and in a log."""

import io
import re
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from semiseg.benchmarks.state import Standing
from semiseg.console import running
from semiseg.console import watch as watching
from semiseg.console.watch import Watch
from semiseg.registry import find_methods
from semiseg.settings import RunSpec, StartSpec, TrainingSettings
from semiseg.training import lease as lease_module
from semiseg.training.identity import Identity
from semiseg.training.lease import claim
from semiseg.training.places import Places

FOUND = find_methods()
PACE = {"step": 50, "steps": 200, "loss": 0.412, "images_per_second": 151.4, "seconds_left": 24.0}


def spec(method: str, fold: int = 0) -> RunSpec:
    return RunSpec(
        benchmark="b", dataset="d", method=method, implementation=method, config={}, labels=0.05, fold=fold, seed=0,
        network="unet_small", weights=None, training=TrainingSettings(steps=200),
    )  # fmt: skip


@pytest.fixture
def watch(tmp_path, monkeypatch):
    """Makes a watch over a finished run, one that goes on, and one that is left; with what it printed."""
    monkeypatch.setattr(watching, "LOOK", 0.01)
    monkeypatch.setattr(watching, "QUIET", (0.05, 0.1))
    monkeypatch.setattr(lease_module, "BEAT", 0.02)
    monkeypatch.setattr(watching, "MEASURED", 0.0)

    def make(*, terminal: bool, **numbers: float) -> tuple[Watch, io.StringIO]:
        for name, number in numbers.items():
            monkeypatch.setattr(watching, name, number)
        out = io.StringIO()
        console = Console(file=out, force_terminal=terminal, width=80)
        specs = [spec("supervised"), spec("entropy_minimization"), spec("cps")]
        states = ["finished", "running", "left"]
        runs = [Standing(s, Path(), Identity({}), state) for s, state in zip(specs, states, strict=True)]
        return Watch(console, tmp_path, runs, specs[1:], FOUND), out

    return make


def until(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_log_gets_a_line_with_the_time_for_every_run_that_goes_on(watch, tmp_path):
    display, out = watch(terminal=False)
    with claim(tmp_path / spec("entropy_minimization").folder) as lease:
        lease.show(**PACE)
        with display:
            until(lambda: "step 50" in out.getvalue())
            time.sleep(0.3)
    lines = out.getvalue().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)
    assert lines[0][9:] == "1 of 3 runs are done, starting"  # nothing is silent, not even the first moment
    line = next(line for line in lines if "step 50" in line)
    for part in ("entropy_minimization, 5 % labels, fold 0", "of 200", "loss 0.412", "151 img/s", "24 s left"):
        assert part in line
    # Of two networks, CPS takes twice as long as the one that goes on: 24 s, and 2 × 32 s.
    assert any(re.search("1 of 3 runs are done, 88 s left", line) for line in lines)
    assert len(lines) < 20  # a line now and then, not with every look


def test_runs_that_are_neither_finished_nor_carried_out_do_not_count_as_done(watch):
    display, out = watch(terminal=False)
    display.left.discard(spec("cps").folder)  # as when only what failed is tried again
    with display:
        until(lambda: out.getvalue())
    assert "1 of 3 runs are done" in out.getvalue()


def test_bars_keep_names_and_times_whole_in_80_columns(watch, tmp_path):
    display, _ = watch(terminal=True)
    with claim(tmp_path / spec("entropy_minimization").folder) as lease:
        lease.show(**PACE)
        with display:
            until(lambda: "50/200" in shown(display))
            text = shown(display)
    assert "entropy_minimization 5 % fold 0 ━" in text
    assert "50/200 loss 0.412, 151 img/s, 24 s left" in text
    assert re.search("All runs .*1/3 .*88 s left", text)


def shown(display: Watch) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(display.display.progress.get_renderable())
    return console.file.getvalue()


def test_long_work_is_announced_once_as_soon_as_its_pace_is_known(watch, tmp_path):
    display, out = watch(terminal=False, LONG=80.0)
    with claim(tmp_path / spec("entropy_minimization").folder) as lease, display:
        time.sleep(0.1)
        assert "About" not in out.getvalue()
        lease.show(**PACE)
        until(lambda: "About 88 s from here" in out.getvalue())
        time.sleep(0.1)
    assert out.getvalue().count("About") == 1


def test_a_run_that_ends_leaves_one_line_and_no_bar(watch, tmp_path):
    display, _ = watch(terminal=True)
    done = spec("entropy_minimization")
    with claim(tmp_path / done.folder) as lease:
        lease.show(**PACE)
        with display:
            until(lambda: display.display.bars)
            display.end(done, {"status": "finished", "data": {}, "metrics": {"dice": 0.5}, "seconds": 40.0})
            assert not display.display.bars
            assert re.search("All runs .*2/3 .*80 s left", shown(display))


def test_a_training_that_is_being_evaluated_says_so(watch):
    holder = watching.Holder("h", 1, 0.0, step=200, steps=200, loss=0.3, seconds_left=0.0)
    assert watching.pace(holder) == ["loss 0.300", "evaluation"]


def test_a_run_whose_start_another_command_trains_is_handed_out_once_and_when_that_is_done(tmp_path, monkeypatch):
    """Else processes, or whole jobs of a cluster, are begun and ended every few seconds for as long as it takes."""
    monkeypatch.setattr(running, "POLL", 0.05)
    monkeypatch.setattr(running, "RETRY", 0.05)
    start = StartSpec.model_validate(spec("local_discrimination").model_dump() | {"labels": 0.0})
    run = spec("supervised").model_copy(update={"start": start})
    standing = Standing(run, tmp_path / run.folder, Identity({}), "left")
    handed, told = [], []

    class Carrier:
        def carry_out(self, runs, places):
            handed.append(time.monotonic())
            yield from ((one, {"status": "finished"}) for one in runs)

    class Told:
        def wait_for(self, spec, reason):
            told.append(reason)

        def end(self, spec, record):
            pass

    with claim(tmp_path / start.folder):
        places = Places(tmp_path, tmp_path, tmp_path, None)
        thread = threading.Thread(target=running._until_done, args=([standing], Carrier(), places, Told()))
        thread.start()
        time.sleep(0.5)
        assert not handed
    thread.join(20)
    assert len(handed) == 1
    assert [reason.split(" by ")[0] for reason in told] == ["its start is held"]
