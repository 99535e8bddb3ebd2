"""What the images of a step look like: moved once, with their labels, then shown in every view that is asked for."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
from torch import Generator, Tensor

from semiseg.errors import UserError
from semiseg.method import Batch, Geometry, Made, Method, Stream
from semiseg.settings import TrainingSettings
from semiseg.strong_augmentation import augment_strongly
from semiseg.tasks import secret_fields
from semiseg.training.draws import Draws, Unrepeatable
from semiseg.training.sampling import TrainingSet
from semiseg.views import MOVED, Imaging, Motion, likely_imaging, move, view, warp

Augmentation = Callable[[Tensor, Generator, bool], tuple[Tensor, Motion]]
AUGMENTATIONS: dict[str, Augmentation] = {"customary": warp, "strong": augment_strongly}


@dataclass
class Showing:
    """The batches of a training, each of which follows from the seed and its step alone."""

    method: Method
    data: TrainingSet
    settings: TrainingSettings
    seed: int
    device: torch.device
    streams: dict[str, tuple[Stream, TrainingSet]] = field(default_factory=dict)  # of the method, with their images

    def __post_init__(self) -> None:
        self.draws = Draws(self.seed, self.device)

    @property
    def imaging(self) -> Imaging:
        """What recorded the images, which decides how views alter them."""
        chosen = self.settings.imaging
        return likely_imaging(self.method.task.channels) if chosen == "auto" else chosen

    @property
    def augment(self) -> Augmentation:
        """What all images undergo before they are shown in views."""
        return AUGMENTATIONS[self.method.augmentation or self.settings.augmentation]

    def batch(self, step: int) -> Batch:
        """The images of a step in the views that the method declared; what streams give is drawn when asked for."""
        return self.show(*self.data.batch(step), step)

    def show(self, raw: Tensor, labels: Tensor, step: int) -> Batch:
        """The same of images as they are stored, which are the step's."""
        return self._show(self.data, raw, labels, self.method.views, step, "", draw=partial(self._drawn, step))

    def _drawn(self, step: int, name: str) -> Batch:
        """What a stream gives at a step."""
        if name not in self.streams:
            known = ", ".join(self.streams) or "none"
            raise UserError(f"{type(self.method).__name__} asks for the stream {name!r}; its `streams` has {known}.")
        stream, data = self.streams[name]
        self._refuse_recording(f"images of the stream {name}")
        return self._show(data, *data.batch(step), stream.views, step, f"stream {name}, ", stream.still)

    def _show(
        self,
        data: TrainingSet,
        raw: Tensor,
        labels: Tensor,
        views: Sequence[str],
        step: int,
        whose: str,
        still: bool = False,
        draw: Callable[[str], Batch] | None = None,
    ) -> Batch:
        """Images of a step in some views.

        Labelled and unlabelled images have random numbers of their own, so that the labelled ones look the same
        whether unlabelled ones come with them or not.
        """
        count = len(labels)
        images = raw.float() / 255 if raw.dtype == torch.uint8 else raw.float()
        labeled, moved, motion = self.looks(f"{whose}labeled", views, step, images[:count], still)
        unlabeled, others, _ = self.looks(f"{whose}unlabeled", views, step, images[count:], still)
        labels = labels if motion is None else data.kind.moved(labels, motion)
        shown = {name: (labeled[name], unlabeled[name]) for name in views}
        geometries = {name: Geometry(torch.cat([moved[name], others[name]])) for name in moved}
        return Batch(shown, labels, partial(self._cases, data, step), geometries, partial(_field, data), draw)

    def _cases(self, data: TrainingSet, step: int) -> list[str]:
        """Whose images a step has."""
        self._refuse_recording("names of cases")
        return [data.cases[i] for i in data.items(step)]

    def _refuse_recording(self, what: str) -> None:
        """What the host looks up is another thing at every step."""
        if self.draws.recording:
            raise Unrepeatable(f"it asks for {what}")

    def looks(
        self, part: str, names: Sequence[str], step: int, images: Tensor, still: bool = False
    ) -> tuple[dict[str, Made], dict[str, Tensor], Motion | None]:
        """Move images once, unless they keep still, and say how to show them in every view.

        Returns:
            What makes the views; the matrices of those that have a geometry of their own; and how all were moved, which
            their labels follow.
        """
        motion: Motion | None = None
        if len(images) and not still:
            with _apart(self.device):
                generator = self.draws.of(step, part, "geometry")
                images, motion = self.augment(images, generator, self.settings.turns)
        moved = [name for name in names if name.startswith(MOVED)]
        matrices = {name: move(images, self.draws.of(step, part, name, "matrix")).matrix for name in moved}
        return {name: cache(partial(self._look, images, step, part, name)) for name in names}, matrices, motion

    def _look(self, images: Tensor, step: int, part: str, name: str) -> Tensor:
        """Images in a view."""
        if not len(images):
            return images
        with _apart(self.device):
            # In plain layout: convolutions follow their weights anyway, and drawing noise like a channels-last tensor
            # takes a CPU six times as long (2.5 against 0.4 ms for 4 × 3 × 64 × 64, one thread).
            generator = self.draws.of(step, part, name)
            if name.startswith(MOVED):  # the geometry is drawn first, as it was for its matrix
                images = move(images, generator).images(images)
            return view(images, name, generator, self.imaging)


@contextmanager
def _apart(device: torch.device) -> Iterator[None]:
    """Images are the same wherever in a step they are asked for, within mixed precision for instance."""
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


def _field(data: TrainingSet, case: str, name: str) -> Any:
    """A field of a case, unless it is what unlabelled cases must not show."""
    if name in secret_fields(data.task):
        raise UserError(f"{name} says what a label says; of labels, a batch shows `batch.labels`.")
    return data.field(case, name)
