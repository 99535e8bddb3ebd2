"""How far each run of a benchmark has come."""

import os
import socket
from pathlib import Path
from typing import Any

from semiseg.settings import RunSpec
from semiseg.training.files import read_record


def state(spec: RunSpec, results: Path) -> tuple[str, str]:
    """finished, running, failed or left, and the reason for a failure."""
    record = read_record(results / spec.folder)
    status = record.get("status", "left")
    if status == "running" and not _alive(record["process"]):
        return "left", "interrupted, will resume"
    return status, record.get("reason", "")


def _alive(process: dict[str, Any]) -> bool:
    """Whether a process runs; one on another machine is given the benefit of the doubt."""
    if process["host"] != socket.gethostname():
        return True
    try:
        os.kill(process["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
