"""How parameters are updated: the benchmark's SGD, a method's own optimizers, and adversaries in turn."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from semiseg.errors import UserError
from semiseg.method import Method, Progress
from semiseg.settings import TrainingSettings


class Optimization:
    """All optimizers of a stage, with their schedule and what a checkpoint needs of them."""

    def __init__(self, method: Method, settings: TrainingSettings, repeatable: bool = False) -> None:
        special = {p for update in method.updates for p in update.module.parameters()}
        rest = [p for p in method.parameters() if p.requires_grad and p not in special]
        self.adversaries = [update.module for update in method.updates if update.adversarial]
        self.own: list[Optimizer] = []
        self.adversarial: list[Optimizer] = []
        if rest:  # a method may have optimizers of its own for everything
            self.own.append(_sgd(rest, settings))
        self.repeatable = repeatable and bool(rest) and not method.updates  # rates are where a recording finds them
        for update in method.updates:
            optimizers = self.adversarial if update.adversarial else self.own
            if learning := [p for p in update.module.parameters() if update.adversarial or p.requires_grad]:
                optimizers.append(update.optimizer(learning))
        if not self.own:
            raise UserError(
                f"{type(method).__name__}: nothing can learn; what `build` sets, or a stage `trains`, needs gradients."
            )
        self.rates = [group["lr"] for optimizer in self.own for group in optimizer.param_groups]
        if self.repeatable:
            for group in self.own[0].param_groups:
                group["lr"] = torch.tensor(group["lr"], device=rest[0].device)
        self.power, self.decay_every = settings.poly_power, settings.decay_every
        self.share = 1.0  # of the rates, at the step

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Everything that some optimizer updates."""
        return [p for o in (*self.own, *self.adversarial) for p in _parameters(o)]

    @property
    def learning_rate(self) -> float:
        """The current rate of the benchmark's SGD, or of the method's first optimizer where nothing is left to SGD."""
        return float(self.rates[0] * self.share)

    def schedule(self, progress: Progress) -> None:
        """Let all learning rates decay but those of adversaries."""
        groups = [group for optimizer in self.own for group in optimizer.param_groups]
        self.share = (1 - progress.fraction) ** self.power
        if self.decay_every:
            self.share = 0.1 ** (progress.step // self.decay_every)
        for group, rate in zip(groups, self.rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * self.share)
            else:
                group["lr"] = rate * self.share

    def step(self, parts: Iterable[dict[str, Tensor]], number: int = 1) -> dict[str, Tensor]:
        """Descend along the gradient of the sum of the losses; returns them, without gradient.

        Args:
            parts: the losses of each part of a batch; the graph of one is freed before the next is asked for.
            number: of parts; gradients and losses are their means.
        """
        return _step(self.own, parts, number)

    def adversarial_step(self, losses: dict[str, Tensor]) -> None:
        """The same for the adversaries, in their turn."""
        _step(self.adversarial, [losses])

    @contextmanager
    def adversaries_turn(self) -> Iterator[None]:
        """Adversaries can learn, for as long as it is their turn."""
        for module in self.adversaries:
            module.requires_grad_(True).train()
        try:
            yield
        finally:
            for module in self.adversaries:
                module.requires_grad_(False).eval()

    def state_dict(self) -> dict[str, Tensor]:
        """Momenta and counters by the numbers of optimizer and parameter."""
        return {
            f"{number}.{index}.{key}": value
            for number, optimizer in enumerate((*self.own, *self.adversarial))
            for index, parameter in enumerate(_parameters(optimizer))
            for key, value in optimizer.state[parameter].items()
            if value is not None
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on with saved momenta and counters."""
        optimizers = (*self.own, *self.adversarial)
        for name, value in state.items():
            number, index, key = name.split(".")
            optimizer = optimizers[int(number)]
            parameter = _parameters(optimizer)[int(index)]
            # A momentum is laid out like its parameter; a counter of steps stays on the host unless a kernel counts.
            elsewhere = key != "step" or any(optimizer.defaults.get(option) for option in ("fused", "capturable"))
            device = parameter.device if elsewhere else torch.device("cpu")
            like = parameter if value.shape == parameter.shape else torch.empty(value.shape)
            optimizer.state[parameter][key] = torch.empty_like(like, device=device).copy_(value)


def _sgd(parameters: list[nn.Parameter], settings: TrainingSettings) -> SGD:
    """SGD in one kernel, and on a CPU in one pass, in half the time of the customary one."""
    optimizer = SGD(
        parameters, settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay, fused=True
    )
    for parameter in parameters if settings.momentum else ():  # it cannot add those of what learns later than others
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def require_losses(losses: object, method: str) -> None:
    """Refuse, by the name of what is wrong, what a method may return by mistake."""
    if not isinstance(losses, dict) or not losses:
        found = "nothing" if losses is None or losses == {} else f"a {type(losses).__name__}"
        raise UserError(f"{method}.losses returns {found}; it should be named losses, such as {{'supervised': loss}}.")
    for name, loss in losses.items():
        if not isinstance(loss, Tensor) or loss.ndim:
            found = f"of shape {list(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
            raise UserError(
                f"{method}.losses: the loss {name!r} is {found}; it should be a tensor of one number, such as a mean."
            )
    if not any(loss.requires_grad for loss in losses.values()):
        raise UserError(
            f"{method}.losses: no loss has a gradient, so nothing would be learned; something is detached, or computed "
            "under no_grad."
        )


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _step(optimizers: list[Optimizer], parts: Iterable[dict[str, Tensor]], number: int = 1) -> dict[str, Tensor]:
    for optimizer in optimizers:
        for parameter in _parameters(optimizer):
            parameter.grad = None
    means: dict[str, Tensor] = {}
    for losses in parts:
        shares = torch.stack(list(losses.values())) / number
        shares.sum().backward()
        for name, share in zip(losses, shares.detach(), strict=True):
            means[name] = means[name] + share if name in means else share
    for optimizer in optimizers:
        optimizer.step()
    return means
