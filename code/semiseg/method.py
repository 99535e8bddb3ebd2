"""The plugin contract: what a method declares, what it is given, and what it returns.

A method is one class in one file. It builds its networks in `build`, and returns named losses in `losses`;
the trainer adds them up, takes the gradient step and everything else. Whatever a method keeps (networks,
buffers) is an attribute of an `nn.Module`, so it is moved, saved and resumed without further ado. Numbers and
tensors in plain attributes are not: register a buffer, or define `get_extra_state` and `set_extra_state`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.optim import Optimizer

from semiseg.averages import Ensemble, MovingAverage, RunningMean, frozen_copy, jointly
from semiseg.data.cropping import Crop
from semiseg.errors import UserError
from semiseg.names import did_you_mean
from semiseg.networks import EncoderDecoder, build_network, predict
from semiseg.networks.auxiliary import AuxiliaryDecoder
from semiseg.networks.pretrained import load_part
from semiseg.seeding import derive_seed
from semiseg.tasks import DEFAULT
from semiseg.views import Geometry, likely_imaging, photometry

__all__ = [
    "Batch",
    "Ensemble",
    "Geometry",
    "Method",
    "MovingAverage",
    "Paper",
    "Progress",
    "RunningMean",
    "Stage",
    "Stream",
    "Task",
    "Updates",
    "frozen_copy",
    "jointly",
    "predict",
]


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
    start: Path | None = None  # weights that a start handed on
    unlabeled_steps: int = 1  # steps per pass over the unlabelled images
    trained: bool = False  # networks get the weights of a finished run, so that files of initial ones are not opened
    crop: Crop | None = None  # what of an image is seen, in training and in prediction
    stride: tuple[int, ...] | None = None  # between the windows of a volume in prediction; None: they overlap by half
    turns: bool = True  # images may be turned and mirrored; not where left and right, or up and down, are told apart

    @property
    def dims(self) -> int:
        """2 for images and slices, 3 for volumes."""
        return len(self.size)


@dataclass(frozen=True)
class Progress:
    """How far a stage of the training has come; most methods have a single one.

    What happens every so many steps is `if progress.every(self.config.refresh): ...`, what begins or ends somewhere
    `if progress.fraction >= self.config.starts_at: ...`, and whatever else a paper counts is in `progress.step`.
    """

    step: int  # counted from 0; the same in `losses`, `adversary_losses` and `after_step` of one step
    total: int  # steps of the stage
    stage: str = "training"  # its name
    before: int = 0  # steps of earlier stages

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


Made = Callable[[], Tensor]  # images that are made when they are first asked for


class Batch:
    """Labelled and unlabelled images of one step, shown in the views that the method declared.

    All views of an image share one geometry and so do its labels: pixels correspond. A view that is called `moved-…`
    has one of its own, and `geometry` says which. What nobody asks for, such as the strong view of labelled images,
    costs nothing.
    """

    def __init__(
        self,
        views: Mapping[str, Tensor | tuple[Made, Made]],  # of all images, or what makes labelled and unlabelled ones
        labels: Tensor,
        cases: Sequence[str] | Callable[[], Sequence[str]] = (),
        geometries: dict[str, Geometry] | None = None,
        read: Callable[[str, str], Any] = lambda case, field: None,
        draw: Callable[[str], "Batch"] | None = None,
    ) -> None:
        self._views, self._geometries = dict(views), geometries or {}
        self._read, self._draw = read, draw
        self.labels = labels  # as the task has them: class indices (L, *space), positions (L, points, 2), …
        self._cases = cases

    @property
    def cases(self) -> tuple[str, ...]:
        """Whose images they are, labelled ones first."""
        return tuple(self._cases() if callable(self._cases) else self._cases)

    def images(self, view: str = "plain") -> Tensor:
        """All images, (L + U, channels, *space), labelled ones first."""
        shown = self._shown(view)
        if not isinstance(shown, Tensor):
            shown = self._views[view] = torch.cat([make() for make in shown])
        return shown

    def labeled(self, view: str = "plain") -> Tensor:
        """The labelled images, (L, channels, *space)."""
        shown = self._shown(view)
        return shown[: len(self.labels)] if isinstance(shown, Tensor) else shown[0]()

    def unlabeled(self, view: str = "plain") -> Tensor:
        """The unlabelled images, (U, channels, *space)."""
        shown = self._shown(view)
        return shown[len(self.labels) :] if isinstance(shown, Tensor) else shown[1]()

    def _shown(self, view: str) -> Tensor | tuple[Made, Made]:
        if view not in self._views:
            raise UserError(
                f"a batch is asked for the view {view!r}, {did_you_mean(view, self._views)}it has "
                f"{', '.join(self._views)}; a method names its views in `views`."
            )
        return self._views[view]

    def geometry(self, view: str) -> Geometry:
        """How a `moved-…` view lies: `geometry(view).images(x)` moves what belongs to any other view of all images."""
        return self._geometries[view]

    def field(self, name: str) -> list[Any]:
        """What the data set holds beside the images, such as a `text`, for every image; never what is a label."""
        return [self._read(case, name) for case in self.cases]

    def __getitem__(self, stream: str) -> "Batch":
        """What a stream of the method gives at this step."""
        if self._draw is None:
            raise KeyError(stream)
        return self._draw(stream)

    def part(self, number: int, parts: int) -> "Batch":
        """One of several equal parts, with as many labelled and unlabelled images as every other."""

        def cut(values: Tensor) -> Tensor:
            labeled, unlabeled = self.split(values)
            return torch.cat([labeled[number::parts], unlabeled[number::parts]])

        def cut_view(shown: Tensor | tuple[Made, Made]) -> Tensor | tuple[Made, Made]:
            if isinstance(shown, Tensor):
                return cut(shown)
            labeled, unlabeled = shown
            return (lambda: labeled()[number::parts].contiguous()), (lambda: unlabeled()[number::parts].contiguous())

        views = {name: cut_view(shown) for name, shown in self._views.items()}
        moved = {name: Geometry(cut(own.matrix)) for name, own in self._geometries.items()}
        first = len(self.labels)

        def cases() -> tuple[str, ...]:
            return (*self.cases[:first][number::parts], *self.cases[first:][number::parts])

        whole = self._draw
        draw = None if whole is None else lambda stream: whole(stream).part(number, parts)
        return Batch(views, self.labels[number::parts], cases, moved, self._read, draw)

    def split(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Cut anything computed for all images into its labelled and its unlabelled part."""
        return values[: len(self.labels)], values[len(self.labels) :]


@dataclass(frozen=True)
class Stream:
    """Images that are drawn beside those of the batch, whenever a loss asks for them: `batch[name]`.

    They are training images of the benchmark's data, or all that another prepared data set holds, with its labels:
    nothing of it is tested, and nothing pairs it with the benchmark's images.
    """

    name: str
    batch: int
    of: Literal["training", "labeled", "unlabeled"] = "training"
    data: str = ""  # name of another data set; then `of` says nothing
    views: Sequence[str] = ("plain",)
    still: bool = False  # shown as they are stored, not warped


@dataclass(frozen=True)
class Stage:
    """A part of the training with a loss, a schedule, optimizers and a progress of its own.

    Whatever is kept between stages is an attribute of the method. When a stage begins, optimizers have no memory, and
    moving averages are copies of what they follow.
    """

    losses: Callable[[Batch, Progress], dict[str, Tensor]]
    name: str = "training"
    share: float = 1.0  # of the steps, in proportion to the other stages'; without any, it is left out
    trains: Sequence[nn.Module] | None = None  # all that learns; the whole method by default
    begin: Callable[[], None] = lambda: None  # called before the first step


class Updates(NamedTuple):
    """Parameters with an optimizer of their own, in place of the benchmark's."""

    module: nn.Module
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    adversarial: bool  # in a turn of its own, after every step


class Method(nn.Module, ABC):
    """Base class of all methods."""

    title: ClassVar[str]
    paper: ClassVar[Paper]
    published_as: ClassVar[tuple[str, ...]] = ()  # what else `results/published.csv` calls it
    networks: int = 1  # how many are trained by gradient
    views: Sequence[str] = ("plain",)  # see semiseg.views
    learns: ClassVar[str] = DEFAULT  # the task of data sets that it is for, see semiseg.tasks; empty: any
    uses_unlabeled: ClassVar[bool] = True
    uses_labels: ClassVar[bool] = True  # without, all training images are unlabelled ones
    supervised: ClassVar[bool] = True  # labels teach it by a loss; without, they are only looked up
    uses_all_labels: ClassVar[bool] = False  # an upper bound: ignores the label fraction
    augmentation: ClassVar[Literal["customary", "strong"] | None] = None  # in place of the benchmark's
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
        shown = {f"{type(self).__name__}.views is": self.views}
        shown |= {f"stream {s.name!r} of {type(self).__name__} shows": s.views for s in self.streams(self.config)}
        for where, views in shown.items():
            try:
                for name in views:
                    photometry(name, likely_imaging(self.task.channels))
            except UserError as error:
                raise UserError(f"{where} {views!r}: {error}") from None

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

    def stages(self) -> Sequence[Stage]:
        """What follows what in a training; a single stage with `losses` by default.

        A pre-training that takes a quarter of the steps:
        `[Stage(self.contrast, "pretraining", share=1, trains=[self.model.encoder]), Stage(self.losses, share=3)]`.
        """
        return [Stage(self.losses)]

    @classmethod
    def streams(cls, config: Any) -> Sequence[Stream]:
        """What is drawn beside the labelled and unlabelled images of a step; nothing by default."""
        return ()

    def adversary_losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Named losses that the adversaries minimize after every step; nothing else may get a gradient.

        Without any they rest, for instance in another stage (`progress.stage`).
        """
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
        task, start = self.task, None
        if name is None:
            name, weights, start = task.network, task.weights, task.start
        network = build_network(name, task.channels, task.classes, task.size, None if task.trained else weights)
        if start is not None and not task.trained:
            load_part(network, start)
        return network

    def decoder(self) -> AuxiliaryDecoder:
        """One more decoder of the task's kind with its own random weights, for features of another network."""
        torch.manual_seed(derive_seed(self.task.seed, "decoder", self._decoders_built))
        self._decoders_built += 1
        task = self.task
        return AuxiliaryDecoder(build_network(task.network, task.channels, task.classes, task.size))

    def moving_average(self, network: nn.Module, decay: float) -> MovingAverage:
        """A teacher that follows a student; the trainer updates it after every step.

        There can be several, of one network or of many: `self.fast = self.moving_average(self.student, 0.9)`,
        `self.slow = self.moving_average(self.student, 0.99)`.
        """
        return MovingAverage(network, decay)

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
