"""The files of a run that are not weights, and what they say about machine and code."""

import contextlib
import csv
import functools
import json
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semiseg.errors import UserError

CLEAR_REFS, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")  # Linux


def read_record(folder: Path) -> dict[str, Any]:
    """The run.json of a run; empty if it has not begun."""
    path = folder / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if not isinstance(record, dict):
            raise ValueError("no object")
    except ValueError as error:
        raise UserError(f"{path}: not the record of a run ({error}); delete the folder to repeat the run.") from error
    return record


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a CSV file atomically; no rows, no file."""
    if not rows:
        return
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    partial.replace(path)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def environment(device: torch.device) -> dict[str, Any]:
    """What a result may depend on besides the code and the data."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "semiseg": version("semiseg"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
    }


@functools.cache
def git_commit() -> str:
    """The commit of the code, marked if files were changed since; empty outside a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-modified" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def forget_peak_memory(device: torch.device) -> None:
    """Begin to measure peak memory anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif CLEAR_REFS.exists():
        with contextlib.suppress(OSError):
            CLEAR_REFS.write_text("5")


def peak_memory(device: torch.device) -> float | None:
    """Peak memory in MB: of the device, or of this process if it trains on the CPU; None where unknown."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    if not STATUS.exists():
        return None
    kilobytes = re.search(r"VmHWM:\s*(\d+)", STATUS.read_text())
    return round(int(kilobytes[1]) / 2**10, 1) if kilobytes else None
