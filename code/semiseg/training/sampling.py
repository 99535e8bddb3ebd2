"""Training images on the device, and which of them make up the batch of a given step."""

import random
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor

from semiseg.data.cache import item_cache
from semiseg.data.cropping import Crop
from semiseg.data.splits import Partition
from semiseg.data.store import Dataset
from semiseg.errors import UserError
from semiseg.seeding import derive_seed
from semiseg.tasks import task_kind

SHARE = 0.25  # of a GPU's free memory that a run's items may take


class Chain:
    """An endless chain of fresh permutations of `count` items, addressable by position.

    Nothing is remembered between calls, so a resumed run draws what an uninterrupted one would have drawn,
    and a set smaller than the batch is simply repeated.
    """

    def __init__(self, count: int, *seed: object) -> None:
        self.count, self.seed = count, seed
        self._permutation = lru_cache(maxsize=2)(self._shuffle)

    def _shuffle(self, epoch: int) -> list[int]:
        order = list(range(self.count))
        random.Random(derive_seed(*self.seed, epoch)).shuffle(order)
        return order

    def take(self, start: int, number: int) -> list[int]:
        """The items at positions start … start + number − 1."""
        return [self._permutation(p // self.count)[p % self.count] for p in range(start, start + number)]


class Items(Sequence[Tensor]):
    """Items of several cases, each case a tensor of its own (items, channels, *size), counted through."""

    def __init__(self, cases: Sequence[Tensor]) -> None:
        self.cases = cases
        self.ends = list(accumulate(map(len, cases)))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        case = bisect_right(self.ends, index)
        return self.cases[case][index - self.ends[case]]

    def to(self, device: torch.device) -> "Items":
        """A copy on a device."""
        return Items([case.to(device) for case in self.cases])


class TrainingSet:
    """Labelled and unlabelled training images of one run, as uint8 (or float) tensors, and labels as its task has them.

    On a CPU they stay in the file that all runs of the machine map into memory. A GPU holds them if they fit, and else
    gets the images of each step.
    The labels of unlabelled cases and everything about test cases are never read from the file.
    In 2D an item is an image, or a slice of a volume, resized to `size`; in 3D it is a volume from which a
    patch of `size` is cut at random. With a crop, only the centre of either is there, or patches are cut in 2D, too.
    """

    def __init__(
        self,
        dataset: Dataset,
        partition: Partition,
        size: Sequence[int],
        device: torch.device,
        seed: int,
        labeled_batch: int,
        unlabeled_batch: int,
        labeled_parts: int = 1,
        crop: Crop | None = None,
    ) -> None:
        self.size, self.seed, self.task = tuple(size), seed, dataset.info.task
        self.cuts_patches = len(self.size) == 3 or (crop is not None and crop.at == "anywhere")
        self.unlabeled_batch = unlabeled_batch if partition.unlabeled else 0
        where = dataset.path.resolve(), dataset.hash, self.size, crop
        cases = (*partition.labeled, *(partition.unlabeled if self.unlabeled_batch else ()))
        self.kind = task_kind(self.task)
        if crop is not None and crop.at not in self.kind.crops:
            raise UserError(
                f"{dataset.info.name}: {self.task} is learned from whole images or their centre; leave out crop, or "
                "let it lie at the centre."
            )
        known = Items(self.kind.labels(dataset, partition.labeled, self.size, crop) if partition.labeled else [])
        seen = Items(item_cache(*where, "image").items(cases))
        for case, items, labels in zip(cases, seen.cases, known.cases, strict=False):
            if len(items) != len(labels):
                raise UserError(
                    f"{dataset.info.name}: {self.task} has {len(labels)} labels for case {case!r}, of which trainings "
                    f"at {list(self.size)} see {len(items)} images; `labels` of the task gives one for each."
                )
        self.cases = [case for case, items in zip(cases, seen.cases, strict=True) for _ in items]
        self.field = lru_cache(maxsize=None)(dataset.field)  # of any name; see `secret_fields` of tasks
        self.labeled_count = len(known)
        self.unlabeled_count = len(seen) - len(known)
        self.device = device
        self.resident = device.type != "cpu" and fits(device, (*seen.cases, *known.cases))
        self.images, self.labels = (seen.to(device), known.to(device)) if self.resident else (seen, known)
        self.parts = disjoint_parts(self.labeled_count, labeled_parts, seed) if self.labeled_count else []
        self.part_streams = [Chain(len(part), seed, "labeled", k) for k, part in enumerate(self.parts)]
        self.per_part = labeled_batch // labeled_parts
        self.unlabeled_stream = Chain(self.unlabeled_count, seed, "unlabeled")

    @property
    def notes(self) -> list[str]:
        """What a user should know about where the images are, one line each."""
        if self.resident or self.device.type == "cpu":
            return []
        return [f"the training images take more than {SHARE:.0%} of the GPU's free memory: each step copies its own"]

    @property
    def batch_size(self) -> int:
        """Images of a step."""
        return self.per_part * len(self.parts) + self.unlabeled_batch

    @property
    def unlabeled_steps(self) -> int:
        """Steps per pass over the unlabelled items."""
        return -(-self.unlabeled_count // self.unlabeled_batch) if self.unlabeled_batch else 1

    def items(self, step: int) -> list[int]:
        """Numbers of the items of a step, labelled ones first."""
        items = [
            part[i]
            for part, stream in zip(self.parts, self.part_streams, strict=True)
            for i in stream.take(step * self.per_part, self.per_part)
        ]
        start = step * self.unlabeled_batch
        return items + [self.labeled_count + i for i in self.unlabeled_stream.take(start, self.unlabeled_batch)]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images (L + U, channels, *size) and labels (L, …) of a step, labelled items first."""
        items, labeled = self.items(step), self.per_part * len(self.parts)
        origin = random.Random(derive_seed(self.seed, "crop", step))
        images = [self.images[i] for i in items]
        labels = [self.labels[i] for i in items[:labeled]]
        if self.cuts_patches:
            windows = [self._window(origin, image.shape[1:]) for image in images]
            images = [image[window] for image, window in zip(images, windows, strict=True)]
            labels = [self.kind.cut(label, window) for label, window in zip(labels, windows[:labeled], strict=True)]
        none = torch.empty((0, *self.size), dtype=torch.uint8, device=self.device)
        known = self._together(labels)[:, 0] if labels else none
        return self._together(images), known if known.is_floating_point() else known.long()

    def _together(self, items: list[Tensor]) -> Tensor:
        """One tensor on the device, to which what lies elsewhere is copied without waiting for it."""
        batch = torch.stack(items)
        if batch.device.type == self.device.type:
            return batch
        return batch.pin_memory().to(self.device, non_blocking=True)

    def _window(self, origin: random.Random, shape: Sequence[int]) -> tuple[slice, ...]:
        """A patch of the training's size somewhere in an item."""
        starts = [(origin.randint(0, have - want), want) for have, want in zip(shape, self.size, strict=True)]
        return (slice(None), *(slice(start, start + want) for start, want in starts))


def fits(device: torch.device, cases: Iterable[Tensor]) -> bool:
    """Whether a GPU may hold all items: they take no more than a part of what is free, as runs share it."""
    free, _ = torch.cuda.mem_get_info(device)
    return sum(case.numel() * case.element_size() for case in cases) <= SHARE * free


def disjoint_parts(items: int, number: int, seed: int) -> list[list[int]]:
    """Deal labelled items into parts for networks that learn from different labels.

    Slices of one volume go to different parts: a network that saw the organ of one patient only would soon find
    nothing in anybody else. With fewer items than parts every part holds them all.
    """
    order = list(range(items))
    random.Random(derive_seed(seed, "parts")).shuffle(order)
    parts = [sorted(order[k::number]) for k in range(number)]
    return parts if all(parts) else [list(range(items))] * number
