"""Who carries out a run: a file in its folder that is written again every few seconds."""

import json
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BEAT = 2.0  # seconds between two heartbeats
EXPIRES = 120.0  # seconds without one after which a holder on another machine is given up
PROCESSES = Path("/proc")  # Linux; elsewhere only heartbeats count
SAME = ("host", "boot", "processes", "user")  # what processes that can look each other up have in common
LENGTH = 1024  # of the file: overwriting equal lengths never leaves half of an old one behind


@dataclass(frozen=True)
class Holder:
    """Who holds a run, and how far it has come."""

    host: str
    pid: int
    since: float  # seconds since the epoch
    device: str = ""
    step: int = 0
    steps: int = 0
    loss: float | None = None
    images_per_second: float | None = None
    seconds_left: float | None = None

    @property
    def seconds(self) -> float | None:
        """How long the whole training takes at its present pace."""
        ahead = self.steps - self.step
        return self.seconds_left * self.steps / ahead if self.seconds_left and ahead else None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {time.strftime('%b %d, %H:%M', time.localtime(self.since))}"


class Lost(Exception):
    """The lease expired, and somebody else may carry the run out now."""


class Held(Exception):
    """Somebody else carries out the run."""

    def __init__(self, holder: Holder | None, what: str = "held") -> None:
        super().__init__(f"{what} by {holder or 'another process'}")
        self.holder = holder


@dataclass
class Lease:
    """A claim of a run's folder. Once `lost` is true, somebody else may write there."""

    path: Path
    content: dict[str, Any]
    lost: bool = False
    _released: threading.Event = field(default_factory=threading.Event)

    def show(self, **progress: Any) -> None:
        """Tell with the next heartbeat how far the run is: fields of `Holder`."""
        self.content = self.content | progress

    def demand(self) -> None:
        """Raise `Lost` if somebody took the lease over; asked before anything is written."""
        self.lost = self.lost or not self.path.exists()
        if self.lost:
            raise Lost("the lease expired; somebody else holds the run now")

    def _beat(self) -> None:
        while not self._released.wait(BEAT):
            try:
                with self.path.open("r+b") as file:  # never makes a file anew that was taken away
                    file.write(_padded(self.content))
            except FileNotFoundError:
                self.lost = True
                return
            except OSError:
                continue  # a full disk or a network file system that hangs: whoever sees no heartbeat takes over


@contextmanager
def claim(folder: Path, device: str = "") -> Iterator[Lease]:
    """Hold a run's folder for as long as the context lasts, or raise `Held`.

    Everybody writes a file of a name of his own first and looks for others then. Of two who do so at the same time at
    least one sees the other and withdraws, so never do two hold a run, and the files of the dead can be removed by
    anyone at any time. That takes no locks, which network file systems often lack.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {"pid": os.getpid(), "since": time.time(), "device": device} | _place()
    path = folder / f".lease-{uuid.uuid4().hex[:12]}"
    attempts = 5  # of two who withdraw for each other
    while True:
        try:
            path.write_bytes(_padded(content))
            rival = _rival(folder, path)
        except BaseException:  # a lease that stays behind would hold the run as long as this process lives
            path.unlink(missing_ok=True)
            raise
        if rival is None:
            break
        path.unlink(missing_ok=True)
        attempts -= 1
        if not attempts or time.time() - rival.since > BEAT:
            raise Held(rival)
        time.sleep(random.uniform(0.01, 0.2))
    lease = Lease(path, content)
    thread = threading.Thread(target=lease._beat, daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        lease._released.set()
        thread.join()
        path.unlink(missing_ok=True)


def holder(folder: Path) -> Holder | None:
    """Who holds a run at this moment."""
    return _rival(folder, None)


def bury(folder: Path) -> None:
    """Clear away the lease of a holder who is said to be dead, once it has been silent for as long as a lease lasts.

    One that shows life meanwhile is somebody else's, and stays.
    """
    heard: dict[Path, int] = {}
    end = time.monotonic() + EXPIRES
    while holder(folder) is not None:
        seen: dict[Path, int] = {}
        for path in folder.glob(".lease-*"):
            with suppress(FileNotFoundError):
                seen[path] = path.stat().st_mtime_ns
        if heard and seen != heard:
            return
        if time.monotonic() > end:
            for path in seen:
                path.unlink(missing_ok=True)
            return
        heard = seen
        time.sleep(BEAT)


def _rival(folder: Path, own: Path | None) -> Holder | None:
    """A living holder other than oneself; what the dead left behind is cleared away."""
    now = time.time()
    if own is not None:
        with suppress(FileNotFoundError):
            now = own.stat().st_mtime  # by the clock that stamps the others, too
    for path in sorted(folder.glob(".lease-*")):
        if path == own:
            continue
        try:
            content, changed = _read(path), path.stat().st_mtime
        except FileNotFoundError:
            continue
        except OSError:  # of somebody whose files one may not read, or on a file system that hangs
            content, changed = {}, now
        if _alive(content, now - changed):
            known: dict[str, Any] = {"host": "?", "pid": 0, "since": changed}
            return Holder(**known | {k: v for k, v in content.items() if k in Holder.__dataclass_fields__})
        if own is not None:
            with suppress(OSError):  # in a folder where one may not remove the files of others, it stays
                path.unlink()
    return None


def _alive(content: dict[str, Any], silent: float) -> bool:
    """A process of this machine and user is looked up, however long it is silent; others must give signs of life."""
    place = _place()
    if not content or not (PROCESSES / "self" / "stat").exists() or any(content.get(key) != place[key] for key in SAME):
        return silent < EXPIRES
    return _started(content["pid"]) == content.get("started")


def _place() -> dict[str, str]:
    """This machine since it was switched on, the process numbers that count here, and when this process started."""
    host = boot = processes = socket.gethostname()  # copies of one running machine share the rest
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        processes = os.readlink("/proc/self/ns/pid")  # a container counts anew
    user = str(os.getuid()) if hasattr(os, "getuid") else ""  # one may not see the processes of others
    return {"host": host, "boot": boot, "processes": processes, "user": user, "started": _started(os.getpid())}


def _started(pid: int) -> str:
    """When a process started, which tells it from another one of its number; empty if there is none."""
    try:
        fields = (PROCESSES / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]  # a zombie is dead


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return {}  # just being written
    return content if isinstance(content, dict) else {}


def _padded(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode().ljust(LENGTH)
