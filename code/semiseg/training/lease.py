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
    images_per_second: float = 0.0
    seconds_left: float | None = None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {time.strftime('%b %d, %H:%M', time.localtime(self.since))}"


class Held(Exception):
    """Somebody else carries out the run."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(f"held by {holder}")
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

    def still_held(self) -> bool:
        """Look whether nobody took the lease over."""
        self.lost = self.lost or not self.path.exists()
        return not self.lost

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
    content = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time(), "device": device} | _place()
    path = folder / f".lease-{uuid.uuid4().hex[:12]}"
    attempts = 5  # of two who withdraw for each other
    while True:
        path.write_bytes(_padded(content))
        rival = _rival(folder, path)
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
        if _alive(content, now - changed):
            known: dict[str, Any] = {"host": "?", "pid": 0, "since": changed}
            return Holder(**known | {k: v for k, v in content.items() if k in Holder.__dataclass_fields__})
        if own is not None:
            path.unlink(missing_ok=True)
    return None


def _alive(content: dict[str, Any], silent: float) -> bool:
    """A process of this machine is looked up, however long it is silent; others must give signs of life."""
    place = _place()
    if not content or any(content.get(key) != place[key] for key in ("boot", "processes")):
        return silent < EXPIRES
    return _started(content["pid"]) == content.get("started")


def _place() -> dict[str, str]:
    """This machine since it was switched on, the process numbers that count here, and when this process started."""
    boot = processes = socket.gethostname()
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        processes = os.readlink("/proc/self/ns/pid")  # a container counts anew
    return {"boot": boot, "processes": processes, "started": _started(os.getpid())}


def _started(pid: int) -> str:
    """When a process started, which tells it from another one of its number; empty if there is none."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if fields[0] in "ZX" else fields[19]  # a zombie is dead
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "unknown"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return {}  # just being written
    return content if isinstance(content, dict) else {}


def _padded(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode().ljust(LENGTH)
