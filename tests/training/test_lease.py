"""A run has one holder at a time, the dead hold nothing, and whoever lost a lease knows it."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from semiseg.training import lease as leases
from semiseg.training.lease import Held, claim, holder


def test_a_held_run_cannot_be_claimed_and_a_released_one_can(tmp_path):
    with claim(tmp_path / "run", "cpu") as lease:
        lease.show(step=3, steps=9)
        with pytest.raises(Held, match=f"process {os.getpid()}"), claim(tmp_path / "run"):
            pass
        assert holder(tmp_path / "run").pid == os.getpid()
    assert holder(tmp_path / "run") is None
    assert not list((tmp_path / "run").iterdir())
    with claim(tmp_path / "run"):
        pass


HOLD = """
import sys, time
from pathlib import Path
from semiseg.training.lease import claim
with claim(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_holder_that_was_killed_holds_nothing_from_then_on(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    assert holder(tmp_path).pid == process.pid
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert holder(tmp_path) is None
    with claim(tmp_path) as lease:
        assert [path.name for path in tmp_path.iterdir()] == [lease.path.name]


def forged(folder: Path, **changes: object) -> Path:
    """The lease of a living process, with something else in it."""
    content = {"pid": os.getpid(), "since": time.time()} | leases._place() | changes
    path = folder / ".lease-forged"
    path.write_bytes(leases._padded(content))
    return path


def test_a_process_number_that_was_given_away_again_holds_nothing(tmp_path):
    forged(tmp_path)
    assert holder(tmp_path) is not None
    forged(tmp_path, started="12345")
    assert holder(tmp_path) is None


@pytest.mark.parametrize(
    "elsewhere",
    [{"host": "another"}, {"boot": "another"}, {"processes": "pid:[4026532]"}],
    ids=["copy", "node", "container"],
)
def test_a_holder_elsewhere_is_given_up_when_its_heartbeat_stops(tmp_path, elsewhere):
    path = forged(tmp_path, pid=4_000_000, **elsewhere)
    assert holder(tmp_path).host == elsewhere.get("host", socket.gethostname())
    os.utime(path, (0, time.time() - leases.EXPIRES - 1))
    assert holder(tmp_path) is None
    with claim(tmp_path):
        assert not path.exists()


def test_a_process_of_this_machine_is_not_given_up_for_being_slow(tmp_path):
    path = forged(tmp_path)
    os.utime(path, (0, 0))
    assert holder(tmp_path) is not None


def test_a_heartbeat_tells_how_far_the_run_is_and_who_lost_the_lease_knows(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "BEAT", 0.02)
    with claim(tmp_path) as lease:
        lease.show(step=7, steps=9, loss=0.5)
        until(lambda: holder(tmp_path).step == 7)
        lease.demand()
        lease.path.unlink()  # somebody took it over
        until(lambda: lease.lost)
        assert not list(tmp_path.iterdir()), "the heartbeat must not make the file anew"


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def race(folder, start, counted):
    """Claim again and again; note when two are inside at once."""
    start.wait()
    end = time.monotonic() + 2
    while time.monotonic() < end:
        try:
            with claim(folder):
                inside = folder / "inside"
                handle = os.open(inside, os.O_CREAT | os.O_EXCL)
                os.close(handle)
                counted.put(1)
                inside.unlink()
        except Held:
            time.sleep(0.001)


def test_of_many_who_claim_at_once_never_two_hold(tmp_path, monkeypatch):
    context = multiprocessing.get_context("fork")
    start, counted = context.Event(), context.Queue()
    processes = [context.Process(target=race, args=(tmp_path / "run", start, counted)) for _ in range(4)]
    for process in processes:
        process.start()
    start.set()
    total = 0
    for process in processes:
        while process.is_alive() or not counted.empty():
            try:
                total += counted.get(timeout=0.1)
            except Exception:
                continue
        process.join()
        assert process.exitcode == 0, "two held the run at the same time"
    assert total > 10, "somebody must get it"


def test_a_claim_that_fails_leaves_nothing_that_would_hold_the_run(tmp_path, monkeypatch):
    def broken(folder, own):
        raise OSError(116, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(leases, "_rival", broken)
        with pytest.raises(OSError, match="Stale"), claim(tmp_path):
            pass
    assert holder(tmp_path) is None
    with claim(tmp_path):
        pass


def test_a_lease_that_cannot_be_read_is_somebodys(tmp_path, monkeypatch):
    with claim(tmp_path):
        monkeypatch.setattr(leases, "_read", lambda path: (_ for _ in ()).throw(PermissionError(13, "denied")))
        assert holder(tmp_path) is not None


def test_a_lease_that_is_just_being_written_is_one(tmp_path):
    (tmp_path / ".lease-new").touch()
    assert holder(tmp_path) is not None
    (tmp_path / ".lease-new").write_text(json.dumps([]))
    assert holder(tmp_path) is not None


def test_a_dead_holder_elsewhere_is_cleared_away_and_a_living_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "BEAT", 0.02)
    monkeypatch.setattr(leases, "EXPIRES", 0.2)
    path = forged(tmp_path, boot="another")
    os.utime(path, (0, time.time() + 60))  # its clock is ahead
    leases.bury(tmp_path)
    assert not path.exists()
    with claim(tmp_path) as lease:
        leases.bury(tmp_path)
        lease.demand()
