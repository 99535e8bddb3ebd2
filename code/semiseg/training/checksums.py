"""Whether the files that tables are made from are those that a run left; needs no PyTorch, as a report does not."""

import functools
import hashlib
from pathlib import Path
from typing import Any

from semiseg.errors import UserError

SCORES = ("cases.csv", "predictors.csv")
WEIGHTS = "model.safetensors"


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content."""
    try:
        return _file_hash(path, path.stat().st_mtime_ns, path.stat().st_size)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of a file that can.") from error


@functools.lru_cache(maxsize=64)
def _file_hash(path: Path, changed: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksums(folder: Path) -> dict[str, str]:
    """Hashes of the files that tables are made from, or of what a start hands on, which has no scores."""
    scores = {name: file_hash(folder / name) for name in SCORES if (folder / name).exists()}
    return scores or {WEIGHTS: file_hash(folder / WEIGHTS)}


def damage(folder: Path, record: dict[str, Any]) -> str:
    """What is wrong with the stored scores of a finished run, if anything is."""
    for name, checksum in record.get("checksums", {}).items():
        if not (folder / name).exists():
            return f"{name} is missing"
        if file_hash(folder / name) != checksum:
            return f"{name} was changed after the run"
    return ""
