"""What a training says of itself on its way: losses and speed every few steps, and that a loss went astray."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from semiseg.training.files import write_rows

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

EXPLODED = 1e6  # no loss of a training that goes well comes near it


class Diverged(Exception):
    """A loss is no longer a number, or beyond all bounds."""


class Curve:
    """Rows of numbers in a table and in TensorBoard; losses stay on the device until somebody looks at them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, float]] = []
        self._unseen: list[dict[str, Tensor]] = []  # the losses of all steps since they were last looked at

    def keep(self, losses: dict[str, Tensor]) -> None:
        """Remember the losses of a step, which nobody waits for."""
        self._unseen.append(losses)

    def refuse_divergence(self, last: int) -> None:
        """Name the first of the steps up to the last one in which a loss went astray."""
        unseen, self._unseen = self._unseen, []
        if not unseen:
            return
        values = iter(torch.stack([loss for losses in unseen for loss in losses.values()]).tolist())
        for step, losses in enumerate(unseen, last + 1 - len(unseen)):
            for name, value in [(name, next(values)) for name in losses]:
                if not abs(value) < EXPLODED:
                    what = f"exploded ({value:.1e})" if math.isfinite(value) else "is no longer finite"
                    raise Diverged(f"the loss {name} {what} at step {step + 1}; lower the learning rate")

    def add(self, writer: "SummaryWriter", number: int, values: dict[str, float]) -> None:
        """Note what was seen after so many steps."""
        self.rows.append({"step": number, **values})
        for name, value in values.items():
            writer.add_scalar(name, value, number)

    def forget(self) -> None:
        """Remove what an earlier training of this folder, which is not gone on with, left to look at."""
        for path in (self.folder / "curve.csv", *self.folder.glob("events.out.tfevents.*")):
            path.unlink(missing_ok=True)

    def save(self) -> None:
        """Replace the table."""
        write_rows(self.folder / "curve.csv", self.rows)
