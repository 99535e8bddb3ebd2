"""The machine and the code that a run is carried out with."""

import contextlib
import ctypes
import functools
import gc
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semiseg.history import git
from semiseg.training.identity import engine_hash

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
CLEAR_REFS, STATUS, CPUINFO = map(Path, ("/proc/self/clear_refs", "/proc/self/status", "/proc/cpuinfo"))  # Linux


def environment(device: torch.device) -> dict[str, Any]:
    """What a result or its speed may depend on besides the run's identity."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "semiseg": version("semiseg"),
        "engine": engine_hash(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "monai": version("monai"),
        "system": f"{platform.system()} {platform.machine()}",
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }


@functools.cache
def _processor() -> str:
    if CPUINFO.exists() and (model := re.search(r"^model name\s*:\s*(.+)$", CPUINFO.read_text(), re.MULTILINE)):
        return model[1]
    return platform.processor() or platform.machine()


@functools.cache
def git_commit() -> str:
    """The commit of the code, marked if files were changed or added since; empty outside a checkout."""
    root = Path(__file__).parents[3]
    if not (root / "code" / "semiseg").is_dir():  # installed somewhere, perhaps inside another repository
        return ""
    code = [name for name in ("code", "methods", "data_prep") if (root / name).is_dir()]
    commit = git(root, "rev-parse", "HEAD")
    return commit + ("-modified" if commit and git(root, "status", "--porcelain", "--", *code) else "")


@functools.cache
def keep_freed_memory() -> bool:
    """Have this process use freed memory again instead of giving it back to the system; whether it will.

    A step frees and asks for the same large tensors over and over, and the system fills each anew with zeros, page by
    page: 57,000 pages and a fifth of the time for 8 images of 256×256 through `unet_small`. More than a GB at the
    heap's end is still given back.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another system's library
        return False
    return bool((mallopt(MMAP_THRESHOLD, 2**30) or mallopt(MMAP_THRESHOLD, 2**25)) and mallopt(TRIM_THRESHOLD, 2**30))


def forget_peak_memory(device: torch.device) -> None:
    """Begin to measure peak memory anew."""
    if device.type == "cuda":
        release_memory(device)  # of earlier runs
        torch.cuda.reset_peak_memory_stats(device)
    elif CLEAR_REFS.exists():
        gc.collect()
        with contextlib.suppress(AttributeError, OSError, TypeError):  # of other systems
            ctypes.CDLL(None).malloc_trim(0)  # else what an earlier run freed, and this process keeps, would count
        with contextlib.suppress(OSError):
            CLEAR_REFS.write_text("5")


def peak_memory(device: torch.device) -> float | None:
    """Peak memory in MB: of the device, or of this process if it trains on the CPU; None where unknown."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_reserved(device) / 2**20, 1)  # recordings hold on to what they do not use
    if not STATUS.exists():
        return None
    kilobytes = re.search(r"VmHWM:\s*(\d+)", STATUS.read_text())
    return round(int(kilobytes[1]) / 2**10, 1) if kilobytes else None


def release_memory(device: torch.device) -> None:
    """Give back what is no longer needed."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
