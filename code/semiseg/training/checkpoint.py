"""The state of an unfinished run in one file, with the identity that it belongs to."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from semiseg.training.files import save_tensors

NAME, SET_ASIDE = "checkpoint.safetensors", "set-aside-{}.safetensors"
KNOWN = ("identity", "curve", "noted", "notes", "micro_batches", "selection", "selection_seconds", "environment")


@dataclass
class Checkpoint:
    """Everything that a training needs to go on; random numbers follow from the step."""

    step: int
    seconds: float  # of training so far, without those of the selection
    state: dict[str, Tensor]  # of the method and its optimizers
    identity: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)
    noted: dict[str, float] = field(default_factory=dict)  # diagnostics, as they were last noted
    notes: list[str] = field(default_factory=list)  # what the user should know of the run
    micro_batches: int = 1
    selection: list[dict[str, float]] = field(default_factory=list)  # the weights that rules have compared so far
    selection_seconds: float = 0.0  # what that took
    environment: dict[str, Any] = field(default_factory=dict)  # of the attempt that wrote it

    def save(self, folder: Path) -> None:
        """Replace the folder's checkpoint."""
        known = {key: getattr(self, key) for key in KNOWN}
        metadata = {"step": str(self.step), "seconds": str(self.seconds), "known": json.dumps(known)}
        save_tensors(folder / NAME, self.state, metadata)


def load_checkpoint(folder: Path, device: torch.device) -> Checkpoint | None:
    """The folder's checkpoint, if there is one.

    Raises:
        ValueError: it is damaged.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        with safe_open(str(path), "pt", device=str(device)) as file:
            metadata = file.metadata()
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return Checkpoint(
            int(metadata["step"]), float(metadata["seconds"]), state, **json.loads(metadata.get("known", "{}"))
        )
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())) from error


def belongs_to(folder: Path) -> dict[str, Any] | None:
    """The identity of the folder's checkpoint, whose tensors stay where they are; None where there is none to read."""
    try:
        with safe_open(str(folder / NAME), "pt") as file:
            identity: dict[str, Any] = json.loads(file.metadata()["known"])["identity"]
        return identity
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def set_aside(folder: Path, kept_as: str, why: str) -> str:
    """Rename a checkpoint that cannot be gone on with; returns a line that says so.

    `kept_as` is the hash of the identity that it belongs to, or what else is the matter with it.
    """
    place = _aside(folder, kept_as)
    (folder / NAME).replace(place)
    return f"the checkpoint was set aside as {place.name}, until the run has finished: {why}"


def was_set_aside(folder: Path, identity: str) -> bool:
    """Whether a checkpoint of the identity with this hash was set aside."""
    return _aside(folder, identity).exists()


def take_up(folder: Path, identity: str) -> None:
    """Put a checkpoint that was set aside back into its place."""
    _aside(folder, identity).replace(folder / NAME)


def discard(folder: Path) -> None:
    """Remove what only an unfinished run needs."""
    for path in (folder / NAME, *folder.glob(SET_ASIDE.format("*"))):
        path.unlink(missing_ok=True)


def _aside(folder: Path, kept_as: str) -> Path:
    return folder / SET_ASIDE.format(kept_as[:12])
