"""What published rules would have chosen: beside the last weights those that were best on some cases."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from semiseg.data.store import Dataset
from semiseg.method import Method
from semiseg.metrics import foreground_dice
from semiseg.tasks import CaseByCase, task_kind

Row = dict[str, float]  # a step, and the mean Dice of its weights on the cases of every rule


@dataclass
class Selection:
    """Looks at the reported network every so many steps, and keeps the weights that were best, for each rule.

    Nothing of the training depends on it. The mean is over cases of the mean Dice of foreground classes; of equally
    good weights the first are kept.
    """

    rules: dict[str, tuple[str, ...]]  # the cases of each
    every: int
    predict: Callable[[nn.Module, str], tuple[np.ndarray, np.ndarray]]  # of a case: the prediction, and the reference
    classes: int
    rows: list[Row] = field(default_factory=list)
    best: dict[str, dict[str, Tensor]] = field(default_factory=dict)  # weights of the reported network, by rule

    def consider(self, step: int, network: nn.Module) -> None:
        """Compare the weights after a step with the best so far."""
        cases = dict.fromkeys(case for members in self.rules.values() for case in members)
        dice = {case: foreground_dice(*self.predict(network, case), self.classes) for case in cases}
        row = {"step": step, **{rule: fmean(dice[case] for case in members) for rule, members in self.rules.items()}}
        for rule in self.rules:
            if row[rule] > max((earlier[rule] for earlier in self.rows), default=-1.0):
                self.best[rule] = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
        self.rows.append(row)

    def chosen(self) -> dict[str, Row]:
        """The step that every rule chose, and the Dice that it was chosen by."""
        firsts = {rule: max(self.rows, key=lambda row: row[rule]) for rule in self.rules}
        return {rule: {"step": row["step"], "dice": round(row[rule], 6)} for rule, row in firsts.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """The weights that a checkpoint has to keep."""
        return {f"{rule}.{key}": value for rule, weights in self.best.items() for key, value in weights.items()}

    def load(self, rows: Iterable[Row], state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self.rows = list(rows)
        for rule in self.rules if self.rows else ():
            start = f"{rule}."
            self.best[rule] = {k.removeprefix(start): v.cpu() for k, v in state.items() if k.startswith(start)}


def evaluate_selected(
    method: Method,
    selected: dict[str, dict[str, Tensor]],
    dataset: Dataset,
    cases: Sequence[str],
    device: torch.device,
    precision: str,
) -> list[dict[str, Any]]:
    """Rows of `predictors.csv` of the reported network with weights that rules have chosen, which it keeps."""
    network, rows = next(iter(method.predictors().values())), []
    kind = task_kind(dataset.info.task)
    assert isinstance(kind, CaseByCase)  # rules look at cases
    for rule, weights in selected.items():
        network.load_state_dict(weights)
        for case in cases:
            (found,) = kind.predict([network], dataset.image(case), method.task, device, precision)
            scores = kind.rows(dataset, case, found)
            rows += [{"predictor": f"selected on {rule}", "networks": 1, **row} for row in scores]
    return rows
