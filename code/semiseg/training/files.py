"""The files of a run, each written at once or not at all."""

import csv
import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from semiseg.errors import UserError


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
    """Write a CSV file atomically, with what any of the rows has; no rows, no file."""
    if not rows:
        return
    columns = dict.fromkeys(key for row in rows for key in row)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    partial.replace(path)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors atomically. What shares memory (one module under two names, tied weights) is written twice."""
    partial = path.with_name(path.name + ".partial")
    try:
        save_file(_separate(tensors), partial, metadata)
    except SafetensorError as error:  # which hides what the system said in its text
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    partial.replace(path)


def _separate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors, no two of which share memory: safetensors refuses those that do."""
    separate: dict[str, Tensor] = {}
    taken: set[tuple[torch.device, int]] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        if (tensor.device, tensor.untyped_storage().data_ptr()) in taken:
            tensor = tensor.clone()
        taken.add((tensor.device, tensor.untyped_storage().data_ptr()))
        separate[name] = tensor
    return separate
