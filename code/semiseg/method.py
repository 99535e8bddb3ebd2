"""The plugin contract: what a method declares, what it is given, and what it returns.

A method is one class in one file. It builds its networks in `build`, and returns named losses in `losses`;
the trainer adds them up, takes the gradient step and everything else. Whatever a method keeps (networks,
buffers) is an attribute of an `nn.Module`, so it is moved, saved and resumed without further ado. Numbers and
tensors in plain attributes are not: register a buffer, or define `get_extra_state` and `set_extra_state`.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import exp
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.optim import Optimizer

from semiseg.data.cropping import Crop
from semiseg.errors import UserError
from semiseg.networks import EncoderDecoder, Output, build_network
from semiseg.networks.auxiliary import AuxiliaryDecoder
from semiseg.seeding import derive_seed
from semiseg.views import likely_imaging, photometry


@dataclass(frozen=True)
class Paper:
    """Where a method was published."""

    title: str
    authors: str
    venue: str


@dataclass(frozen=True)
class Task:
    """What there is to learn, and with which backbone."""

    channels: int
    classes: int  # background included
    size: tuple[int, ...]  # of a training image (height, width) or patch (depth, height, width)
    network: str
    seed: int = 0
    weights: Path | None = None  # of a pretrained encoder
    unlabeled_steps: int = 1  # steps per pass over the unlabelled images
    trained: bool = False  # networks get the weights of a finished run, so that files of initial ones are not opened
    crop: Crop | None = None  # what of an image is seen, in training and in prediction

    @property
    def dims(self) -> int:
        """2 for images and slices, 3 for volumes."""
        return len(self.size)


@dataclass(frozen=True)
class Progress:
    """How far the training has come.

    What happens every so many steps is `if progress.every(self.config.refresh): ...`, what begins or ends somewhere
    `if progress.fraction >= self.config.starts_at: ...`, and whatever else a paper counts is in `progress.step`.
    """

    step: int  # counted from 0; the same in `losses`, `adversary_losses` and `after_step` of one step
    total: int  # steps of the whole training

    @property
    def fraction(self) -> float:
        """Between 0 and 1."""
        return self.step / self.total

    def ramp_up(self, over: float = 1.0) -> float:
        """exp(−5 (1 − t)²), which rises from 0.0067 to 1 within the given fraction of the training; 1 within none."""
        return exp(-5 * (1 - min(self.fraction / over, 1.0)) ** 2) if over else 1.0

    def every(self, steps: int) -> bool:
        """Whether a multiple of `steps` steps is complete once this one is."""
        return (self.step + 1) % steps == 0


class Batch:
    """Labelled and unlabelled images of one step, shown in the views that the method declared.

    All views of an image share one geometry and so do its labels: pixels correspond.
    """

    def __init__(self, views: dict[str, Tensor], labels: Tensor) -> None:
        self._views = views
        self.labels = labels  # (L, *space)

    def images(self, view: str = "plain") -> Tensor:
        """All images, (L + U, channels, *space), labelled ones first."""
        return self._views[view]

    def labeled(self, view: str = "plain") -> Tensor:
        """The labelled images, (L, channels, *space)."""
        return self._views[view][: len(self.labels)]

    def unlabeled(self, view: str = "plain") -> Tensor:
        """The unlabelled images, (U, channels, *space)."""
        return self._views[view][len(self.labels) :]

    def part(self, number: int, parts: int) -> "Batch":
        """One of several equal parts, with as many labelled and unlabelled images as every other."""
        views = {}
        for name, images in self._views.items():
            labeled, unlabeled = self.split(images)
            views[name] = torch.cat([labeled[number::parts], unlabeled[number::parts]])
        return Batch(views, self.labels[number::parts])

    def split(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Cut anything computed for all images into its labelled and its unlabelled part."""
        return values[: len(self.labels)], values[len(self.labels) :]


class Updates(NamedTuple):
    """Parameters with an optimizer of their own, in place of the benchmark's."""

    module: nn.Module
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    adversarial: bool  # in a turn of its own, after every step


class MovingAverage(nn.Module):
    """A frozen copy of a network that follows it: θ' ← α θ' + (1 − α) θ, α = min(1 − 1/n, decay) in the n-th update.

    There is an update after every step, or after each `every` steps. Floating-point buffers are averaged like
    parameters and integer ones are copied; forward passes of the copy leave its running statistics alone. Averages of
    running means lag behind the weights that they should fit, so in the end those of predictors are taken anew.
    """

    def __init__(self, network: nn.Module, decay: float, every: int = 1) -> None:
        super().__init__()
        self.network = frozen_copy(network)
        self.decay, self.every = decay, every
        self.follow = [network]  # in a list, so that the followed network is not registered twice

    def forward(self, images: Tensor) -> Output:
        return self.network(images)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the followed network after optimiser step `step`, counted from 0, if its turn has come."""
        number, rest = divmod(step + 1, self.every)
        if rest:
            return
        alpha = min(1 - 1 / number, self.decay)
        pairs = list(zip(_tensors(self.network), _tensors(self.follow[0]), strict=True))
        floating = [(own, other) for own, other in pairs if own.is_floating_point()]
        torch._foreach_lerp_([own for own, _ in floating], [other for _, other in floating], 1 - alpha)
        for own, other in pairs:
            if not own.is_floating_point():
                own.copy_(other)

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


@torch.no_grad()
def predict(network: nn.Module, images: Tensor) -> Output:
    """Run a network in evaluation mode without gradient, and leave its mode as it was."""
    training = network.training
    network.eval()
    output = network(images)
    network.train(training)
    return output


class Method(nn.Module, ABC):
    """Base class of all methods."""

    title: ClassVar[str]
    paper: ClassVar[Paper]
    networks: int = 1  # how many are trained by gradient
    views: Sequence[str] = ("plain",)  # see semiseg.views
    uses_unlabeled: ClassVar[bool] = True
    uses_all_labels: ClassVar[bool] = False  # an upper bound: ignores the label fraction
    divisible: ClassVar[bool] = False  # where memory is short, the mean loss of a batch's halves may stand for its own
    labeled_parts: ClassVar[int] = 1  # disjoint parts of the labelled set, each in its own share of every batch

    # Settings with which six steps reach every branch: short periods such as {"refresh": 2}, early starts, low
    # thresholds. The contract's checks use them, so that what comes late in a real training is tested, too.
    brief: ClassVar[dict[str, Any]] = {}

    # Values of settings among which `semiseg tune` draws, the default among them: a handful for each of the two or
    # three that matter, such as {"cross": (0.1, 1.5, 6.0), "ramp_up": (0.3, 1.0)}. Learning rate and weight decay are
    # drawn for every method and not named here.
    space: ClassVar[dict[str, tuple[Any, ...]]] = {}

    class Config(BaseModel):
        """Hyper-parameters, all with a default; the class's docstring says whose it is."""

        model_config = ConfigDict(extra="forbid", frozen=True)

    config: Any  # an instance of the class's own Config

    def __init__(self, task: Task, config: BaseModel | None = None) -> None:
        super().__init__()
        self.task = task
        self.config = config or self.Config()
        self.noted: dict[str, Tensor | float] = {}
        self.updates: list[Updates] = []
        self._networks_built = self._decoders_built = 0
        torch.manual_seed(derive_seed(task.seed, "build"))
        self.build()
        self._refuse_unknown_views()

    def _refuse_unknown_views(self) -> None:
        """Before training starts; `build` may have chosen the views by the configuration."""
        try:
            for name in self.views:
                photometry(name, likely_imaging(self.task.channels))
        except UserError as error:
            raise UserError(f"{type(self).__name__}.views is {self.views!r}: {error}") from None

    # What a method defines

    @abstractmethod
    def build(self) -> None:
        """Create networks and whatever else has weights or state."""

    @abstractmethod
    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Named scalar losses, already weighted; their sum is minimized.

        What learns from labels is called `supervised`, or begins like that (`supervised_1`): the contract sees by
        these names whether a method learns at all. All other names are free.
        """

    @abstractmethod
    def predictors(self) -> dict[str, nn.Module]:
        """Networks that can predict, by name; the first is the one that is reported.

        That is a single network, fixed beforehand: a mean of several would be compared with one Supervised network.
        An `Ensemble` may stand beside it; the report compares it with as many Supervised networks.
        """

    def adversary_losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Named losses that the adversaries minimize after every step; nothing else may get a gradient."""
        raise NotImplementedError(f"{type(self).__name__} has adversaries and must say what they learn")

    def after_step(self, progress: Progress) -> None:
        """Do what follows an optimizer step. Moving averages need nothing here, they are updated already."""

    def concerns(self) -> list[str]:
        """What a user should know about a finished training, one line each."""
        return []

    # What a method is given

    def network(self, name: str | None = None, weights: Path | None = None) -> EncoderDecoder:
        """One more network with its own random initial weights, of the task's kind unless a name is given."""
        torch.manual_seed(derive_seed(self.task.seed, "network", self._networks_built))
        self._networks_built += 1
        task = self.task
        if name is None:
            name, weights = task.network, task.weights
        weights = None if task.trained else weights
        return build_network(name, task.channels, task.classes, task.size, weights)

    def decoder(self) -> AuxiliaryDecoder:
        """One more decoder of the task's kind with its own random weights, for features of another network."""
        torch.manual_seed(derive_seed(self.task.seed, "decoder", self._decoders_built))
        self._decoders_built += 1
        task = self.task
        return AuxiliaryDecoder(build_network(task.network, task.channels, task.classes, task.size))

    def moving_average(self, network: nn.Module, decay: float, every: int = 1) -> MovingAverage:
        """A teacher that follows a student; the trainer updates it after every step, or after each `every` steps.

        There can be several, of one network or of many: `self.fast = self.moving_average(self.student, 0.9)`,
        `self.slow = self.moving_average(self.student, 0.99, every=10)`.
        """
        return MovingAverage(network, decay, every)

    def optimize(self, module: nn.Module, optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]) -> None:
        """Update a module by an optimizer of its own, in place of the benchmark's; its learning rate decays as all do.

        `self.optimize(self.model, AdamW)` or, with settings, `self.optimize(self.model, partial(AdamW, lr=1e-4))`.
        """
        self._update(Updates(module, optimizer, adversarial=False))

    def adversary(self, module: nn.Module, optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]) -> nn.Module:
        """A module that learns from `adversary_losses`, at a constant rate.

        In `losses` it is frozen and in evaluation mode, so that a gradient passes through it and stops nowhere in it.
        """
        self._update(Updates(module.requires_grad_(False), optimizer, adversarial=True))
        return module

    def _update(self, new: Updates) -> None:
        """Refuse what no two optimizers, or none, could update."""
        parameters, where = list(new.module.parameters()), f"{type(self).__name__}: {type(new.module).__name__}"
        if not parameters:
            raise UserError(f"{where} has no parameters that an optimizer could update; take it out.")
        taken = {p for update in self.updates for p in update.module.parameters()}
        if taken.intersection(parameters):
            raise UserError(f"{where}, or a part of it, is given to two optimizers; give it to one.")
        self.updates.append(new)

    def train(self, mode: bool = True) -> Self:
        """Adversaries are in training mode only in their own turn."""
        super().train(mode)
        for update in self.updates:
            update.module.train(mode and not update.adversarial)
        return self

    def note(self, name: str, value: Tensor | float) -> None:
        """Have a diagnostic logged beside the losses."""
        self.noted[name] = value.detach() if isinstance(value, Tensor) else value
