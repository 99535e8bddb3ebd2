"""What there is to learn: one file for each task says what its cases show, and how what was learned is scored.

A data set names its task (`DatasetInfo.task`), and a method the one that it learns (`Method.learns`). Tasks are found
like methods: files of this folder, and entry points of the group `semiseg.tasks`. Tables read nothing of a task but its
metrics, so its file loads no PyTorch: what calculates is imported where it is used.
"""

import importlib
import inspect
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from semiseg.data.store import Case, Dataset
from semiseg.errors import UserError
from semiseg.metrics import Metric
from semiseg.plugins import installed, loaded

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from semiseg.data.cropping import Crop
    from semiseg.method import Method, Task
    from semiseg.views import Motion

DEFAULT = "segmentation"  # of data sets and runs that name none; methods of this task are `all` methods
PIXELS = 192  # of an example's longer side at most


@dataclass
class Evaluation:
    """Rows of `cases.csv` and `predictors.csv`, and a small picture of every case to look at."""

    cases: list[dict[str, Any]] = field(default_factory=list)
    predictors: list[dict[str, Any]] = field(default_factory=list)
    examples: dict[str, list[Any]] = field(
        default_factory=lambda: {"ids": [], "images": [], "labels": [], "predictions": []}
    )

    def add_example(self, case: str, image: np.ndarray, label: np.ndarray, prediction: np.ndarray) -> None:
        """Keep an image, or the slice of a volume that shows most of the reference, thinned out."""
        if label.ndim == 3:
            index = int((label > 0).sum((1, 2)).argmax())
            image, label, prediction = image[:, index], label[index], prediction[index]
        step = ceil(max(label.shape) / PIXELS)
        image, label, prediction = image[:, ::step, ::step], label[::step, ::step], prediction[::step, ::step]
        pixels = image if image.dtype == np.uint8 else (255 * image).round().astype(np.uint8)
        for key, value in zip(self.examples, (case, pixels, label, prediction), strict=True):
            self.examples[key].append(value)


class TaskKind(ABC):
    """Base class of all tasks.

    A row of `cases.csv` belongs to a case and to a class of its data set (a structure, a landmark, a direction), and
    has `case`, `group`, `class`, `class_name`, all metrics and all counts. Methods are compared by the first metric,
    which is a share that is better when it is higher.
    """

    name: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    counts: ClassVar[tuple[str, ...]] = ()  # further columns, of whole numbers
    notes: ClassVar[tuple[str, ...]] = ()  # below the table of all metrics; {unit} is that of distances
    dims: ClassVar[tuple[int, ...]] = (2, 3)
    crops: ClassVar[tuple[str, ...]] = ("centre", "anywhere")  # where windows may lie that are seen of images
    has_labels: ClassVar[bool] = True  # which unlabelled cases do not show
    secret: ClassVar[tuple[str, ...]] = ()  # fields of a case that say as much as a label; no batch shows them
    example_classes: ClassVar[tuple[str, ...]] = ("background", "bright", "dark")  # of `example`

    @property
    def primary(self) -> Metric:
        """What methods are compared by."""
        return self.metrics[0]

    @abstractmethod
    def example(self, number: int, dims: int, changed: bool = False) -> Case:
        """A tiny case for the contract's checks, of about 40 × 40 pixels or 10 × 32 × 32 voxels.

        Args:
            changed: with another label, or, where cases have none, with whatever else is paired with the image.
        """

    @abstractmethod
    def evaluate(
        self, method: "Method", dataset: Dataset, cases: Iterable[str], device: "torch.device", precision: str
    ) -> Evaluation:
        """Score cases with every predictor of a method, of which the first is the reported one."""

    # What a label is: a mask, unless a task says otherwise

    def labels(
        self, dataset: Dataset, cases: Sequence[str], size: tuple[int, ...], crop: "Crop | None"
    ) -> "list[Tensor]":
        """What is learned of each of some cases, (items, 1, …): a label for each item that is made of its image.

        That is one of an image, or of a volume in 3D, and one of each slice of a volume in 2D.
        """
        from semiseg.data.cache import item_cache

        return item_cache(dataset.path.resolve(), dataset.hash, size, crop, "label").items(cases)

    def cut(self, label: "Tensor", window: tuple[slice, ...]) -> "Tensor":
        """The label (1, …) of a patch of its image, where trainings cut patches."""
        return label[window]

    def moved(self, labels: "Tensor", motion: "Motion") -> "Tensor":
        """The labels (L, …) of a step after their images were moved."""
        return motion.masks(labels)

    def picture(self, network: "nn.Module", images: "Tensor") -> "Tensor | None":
        """What a network makes of training images, (batch, 1, *space) within [0, 1], to be logged; None for nothing."""
        return None


class CaseByCase(TaskKind):
    """A task whose cases are scored one by one, as most are."""

    @abstractmethod
    def predict(
        self,
        predictors: "Sequence[nn.Module]",
        image: np.ndarray,
        task: "Task",
        device: "torch.device",
        precision: str,
    ) -> list[np.ndarray]:
        """What every predictor makes of an image (channels, *space), at its own resolution."""

    @abstractmethod
    def scores(self, dataset: Dataset, case: str, prediction: np.ndarray) -> list[dict[str, Any]]:
        """The metrics and counts of each class, with `class` and `class_name`."""

    @abstractmethod
    def masks(self, dataset: Dataset, case: str, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The reference and a prediction as class indices (*space), to be looked at."""

    def rows(self, dataset: Dataset, case: str, prediction: np.ndarray) -> list[dict[str, Any]]:
        """The scores with the case's name and group."""
        group = dataset.records[case].group
        return [{"case": case, "group": group, **row} for row in self.scores(dataset, case, prediction)]

    def evaluate(
        self, method: "Method", dataset: Dataset, cases: Iterable[str], device: "torch.device", precision: str
    ) -> Evaluation:
        """While one case is predicted, the one before is measured."""
        result, predictors = Evaluation(), method.predictors()
        distinct = list(dict.fromkeys(predictors.values()))  # an exemplar is one of the others

        def measure(case: str, image: np.ndarray, predictions: list[np.ndarray]) -> None:
            scores = [self.rows(dataset, case, prediction) for prediction in predictions]
            for index, (name, predictor) in enumerate(predictors.items()):
                place = distinct.index(predictor)
                if index:
                    networks = len(getattr(predictor, "networks", [predictor]))  # of an ensemble
                    result.predictors += [{"predictor": name, "networks": networks, **row} for row in scores[place]]
                    continue
                result.cases += scores[place]
                result.add_example(case, image, *self.masks(dataset, case, predictions[place]))

        with ThreadPoolExecutor(1) as beside:
            measured = beside.submit(lambda: None)
            for case in cases:
                image = dataset.image(case)
                predictions = self.predict(distinct, image, method.task, device, precision)
                measured.result()  # no more than one case waits in memory
                measured = beside.submit(measure, case, image, predictions)
            measured.result()
        return result


@cache
def task_kind(name: str) -> TaskKind:
    """The task of a name."""
    known = _finders()
    if name not in known:
        raise UserError(f"unknown task {name!r}; there are: {', '.join(sorted(known))}.")
    return known[name]()


@cache
def secret_fields(task: str) -> frozenset[str]:
    """What no batch shows of a data set for this task: fields that it keeps secret, or a task of this folder does."""
    names = [task, *(module.name for module in pkgutil.iter_modules(__path__))]
    return frozenset(name for kind in map(task_kind, names) for name in kind.secret)


@cache
def all_metrics() -> dict[str, Metric]:
    """The metrics of all tasks by name, which is the same for equal ones; a broken plug-in costs only its own."""
    metrics: dict[str, Metric] = {}
    for name in _finders():
        with suppress(UserError):
            metrics |= {metric.name: metric for metric in task_kind(name).metrics}
    return metrics


@cache
def _finders() -> dict[str, Callable[[], TaskKind]]:
    """What loads each task, by name."""
    found: dict[str, Callable[[], TaskKind]] = {}
    for module in pkgutil.iter_modules(__path__):
        found[module.name] = partial(_of_file, module.name)
    for entry in entry_points(group="semiseg.tasks"):
        found.setdefault(entry.name, partial(_of_package, entry))
    return found


def left_out_tasks() -> list[str]:
    """Why tasks of packages are done without; the engine's own keep their names."""
    own = {module.name for module in pkgutil.iter_modules(__path__)}
    claimed = [entry for entry in entry_points(group="semiseg.tasks") if entry.name in own]
    return [f"{installed(entry)} has the name of a task of the suite; rename its entry point." for entry in claimed]


def _of_package(entry: EntryPoint) -> TaskKind:
    kind = loaded(lambda: entry.load()(), installed(entry))
    if not isinstance(kind, TaskKind) or not hasattr(kind, "metrics"):
        raise UserError(f"{installed(entry)} is no subclass of TaskKind with metrics; uninstall it.")
    return kind


def _of_file(name: str) -> TaskKind:
    module = importlib.import_module(f"{__name__}.{name}")
    own = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]
    (kind,) = [c for c in own if issubclass(c, TaskKind)]
    found: TaskKind = kind()
    return found
