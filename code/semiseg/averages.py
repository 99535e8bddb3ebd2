"""Networks that follow or summarize others: moving averages, frozen copies, means of several."""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from semiseg.networks import Output


class MovingAverage(nn.Module):
    """A frozen copy of a network that follows it: θ' ← α θ' + (1 − α) θ, α = min(1 − 1/n, decay) in the n-th update.

    There is an update after every step. The trainer counts them through all stages from the first on that trains
    what is followed: so an average soon leaves random weights behind, and keeps those of a pre-training.
    Floating-point buffers are averaged like parameters and integer ones are copied; forward passes of the copy
    leave its running statistics alone. Averages of running means lag behind the weights that they should fit, so in
    the end those of predictors are taken anew.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.network = frozen_copy(network)
        self.decay = decay
        self.follow = [network]  # in a list, so that the followed network is not registered twice
        self._floating: list[list[Tensor]] = []  # one's own tensors and the followed ones, once they are in place
        self._counting: list[list[Tensor]] = []

    def forward(self, images: Tensor) -> Output:
        return self.network(images)

    def update(self, step: int) -> None:
        """Move towards the followed network after optimiser step `step` of those that count, from 0 on."""
        self._keep(min(1 - 1 / (step + 1), self.decay))

    def restart(self) -> None:
        """Become a copy of the followed network."""
        self._keep(0.0)

    @torch.no_grad()
    def _keep(self, alpha: float) -> None:
        """Keep a share of one's own, and take the rest from the followed network."""
        if not self._floating:  # looking through all modules at every step would take longer than the arithmetic
            both = [_tensors(self.network), _tensors(self.follow[0])]
            self._floating = [[tensor for tensor in tensors if tensor.is_floating_point()] for tensors in both]
            self._counting = [[tensor for tensor in tensors if not tensor.is_floating_point()] for tensors in both]
        own, other = self._floating
        torch._foreach_lerp_(own, other, 1 - alpha)
        if self._counting[0]:
            torch._foreach_copy_(self._counting[0], self._counting[1])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moved elsewhere, buffers are other tensors."""
        self._floating = []
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def take_statistics(self, batches: Iterable[Tensor]) -> None:
        """Take the mean statistics of these batches under the averaged weights for the batch norms' running ones."""
        norms = [m for m in self.network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        if not norms:
            return
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean
        training = self.network.training
        self.network.train()
        for images in batches:
            self.network(images)
        self.network.train(training)
        for norm in norms:
            norm.momentum = 0.0


def _tensors(network: nn.Module) -> list[Tensor]:
    """Parameters and buffers, each once, whatever the number of its names: shared weights are averaged once."""
    return [*network.parameters(), *network.buffers()]


class RunningMean(nn.Module):
    """Exponential running mean of `size` numbers, corrected for its start; NaN is no news."""

    total: Tensor
    mass: Tensor

    def __init__(self, size: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("total", torch.zeros(size))
        self.register_buffer("mass", torch.zeros(size))

    @property
    def mean(self) -> Tensor:
        """The mean so far, 0 before the first number."""
        return self.total / self.mass.clamp(min=1e-8)

    @torch.no_grad()
    def update(self, values: Tensor) -> None:
        """Take in one more number for each."""
        weight = (1 - self.decay) * values.isfinite()
        self.total.lerp_(values.nan_to_num().expand_as(self.total), weight.expand_as(self.total))
        self.mass.lerp_(torch.ones_like(self.mass), weight.expand_as(self.mass))


class Ensemble(nn.Module):
    """The mean of several networks' class probabilities; never what a method reports, which is a single network."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Output:
        probabilities = torch.stack([network(images).logits.softmax(1) for network in self.networks]).mean(0)
        return Output(probabilities.clamp(min=1e-8).log())

    def __len__(self) -> int:
        return len(self.networks)


def jointly(networks: Sequence[nn.Module]) -> dict[str, nn.Module]:
    """Predictors of alike networks: the first is reported, the others and the mean of all stand beside it."""
    if len(networks) == 1:
        return {"network": networks[0]}
    names = ("first", "second", "third")[: len(networks)]
    return {**dict(zip(names, networks, strict=True)), "ensemble": Ensemble(networks)}


def frozen_copy(network: nn.Module) -> nn.Module:
    """A copy that gets no gradients and whose batch statistics no forward pass changes."""
    frozen = copy.deepcopy(network).requires_grad_(False)
    for module in frozen.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.0
    return frozen
