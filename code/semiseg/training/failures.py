"""Why a run failed, in one line that says what to do."""

import errno
import traceback
from pathlib import Path

import torch

from semiseg.errors import UserError, told
from semiseg.training.curve import Diverged

MEMORY = "out of memory; use fewer --jobs, a smaller batch or smaller images"


def reason(error: Exception) -> str:
    """What went wrong, for a person."""
    if isinstance(error, UserError | Diverged):
        return str(error)
    if out_of_memory(error):
        return MEMORY
    if isinstance(error, OSError) and error.strerror:
        return told(error, "mend that, and run the command again")
    return f"{type(error).__name__}: {error}".splitlines()[0]


def told_in_line(error: Exception, file: Path) -> str:
    """An exception with the line of a file that it came through last, or else that where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    last = next((frame for frame in reversed(frames) if Path(frame.filename) == file), frames[-1])
    return f"{type(error).__name__}: {' '.join(str(error).split())} ({last.filename}, line {last.lineno})"


def is_understood(error: Exception) -> bool:
    """Whether the reason says it all, and a traceback would add nothing."""
    return isinstance(error, UserError | Diverged) or (isinstance(error, OSError) and bool(error.strerror))


def out_of_memory(error: Exception) -> bool:
    """Whether a device, or this machine, had no memory left; torch says it of the latter in words alone."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return any(words in str(error) for words in ("can't allocate memory", "CUDA error: out of memory", "ALLOC_FAILED"))
