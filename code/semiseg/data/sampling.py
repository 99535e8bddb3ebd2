"""Training images on the device, and which of them make up the batch of a given step."""

import random
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from semiseg.data.cropping import Crop, region
from semiseg.data.scale import pad, to_training
from semiseg.data.splits import Partition
from semiseg.data.store import Dataset
from semiseg.seeding import derive_seed

SHELF = 2**30  # bytes of items that a process keeps for its next run


class Stream:
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


class Shelf:
    """Training items of one data set, size and crop, kept: the next run of a process need not read them again."""

    def __init__(self, size: tuple[int, ...], crop: Crop | None) -> None:
        self.size, self.crop = size, crop
        self.kept: dict[tuple[str, bool], list[Tensor]] = {}
        self.bytes = 0

    def items(self, dataset: Dataset, case: str, is_label: bool) -> list[Tensor]:
        """The items of a case; only what is asked for is ever read."""
        if (case, is_label) in self.kept:
            return self.kept[case, is_label]
        array = dataset.label(case)[None] if is_label else dataset.image(case)
        items = training_items(torch.from_numpy(array), self.size, is_label, self.crop)
        size = sum(item.numel() * item.element_size() for item in items)
        if self.bytes + size <= SHELF:
            self.kept[case, is_label] = items
            self.bytes += size
        return items


@lru_cache(maxsize=1)
def _shelf(path: Path, changed: int, size: tuple[int, ...], crop: Crop | None) -> Shelf:
    return Shelf(size, crop)


def training_items(array: Tensor, size: tuple[int, ...], is_label: bool, crop: Crop | None) -> list[Tensor]:
    """Cut (channels, *space) into items: a padded volume, or resized slices."""
    array = array[region(crop, array.shape)]
    if len(size) == 3:
        return [pad(array, size)]
    slices = array[None] if array.ndim == 3 else array.transpose(0, 1)
    return list(to_training(slices, size, crop, is_label))


class TrainingSet:
    """Labelled and unlabelled training images of one run, as uint8 (or float) tensors on the device.

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
        self.size, self.seed = tuple(size), seed
        self.cuts_patches = len(self.size) == 3 or (crop is not None and crop.at == "anywhere")
        self.unlabeled_batch = unlabeled_batch if partition.unlabeled else 0
        self.images: list[Tensor] = []
        self.labels: list[Tensor] = []
        shelf = _shelf(dataset.path, dataset.path.stat().st_mtime_ns, self.size, crop)
        for case in partition.labeled:
            items = shelf.items(dataset, case, is_label=False)
            self.images += [item.to(device) for item in items]
            self.labels += [item.to(device) for item in shelf.items(dataset, case, is_label=True)]
        labeled = len(self.images)
        if self.unlabeled_batch:
            for case in partition.unlabeled:
                self.images += [item.to(device) for item in shelf.items(dataset, case, is_label=False)]
        self.labeled_count, self.unlabeled_count = labeled, len(self.images) - labeled
        self.parts = disjoint_parts(labeled, labeled_parts, seed) if labeled else []
        self.part_streams = [Stream(len(part), seed, "labeled", k) for k, part in enumerate(self.parts)]
        self.per_part = labeled_batch // labeled_parts
        self.unlabeled_stream = Stream(max(self.unlabeled_count, 1), seed, "unlabeled")
        if not self.cuts_patches:  # all items have one shape: a batch is one gather
            self.stacked_images = torch.stack(self.images)
            empty = self.stacked_images.new_empty((0, 1, *self.size), dtype=torch.uint8)  # without labelled images
            self.stacked_labels = torch.stack(self.labels) if self.labels else empty
            # Views of the stacks: the device must not hold the data set twice.
            self.images, self.labels = list(self.stacked_images), list(self.stacked_labels)

    @property
    def batch_size(self) -> int:
        """Images of a step."""
        return self.per_part * len(self.parts) + self.unlabeled_batch

    @property
    def unlabeled_steps(self) -> int:
        """Steps per pass over the unlabelled items."""
        return -(-self.unlabeled_count // self.unlabeled_batch) if self.unlabeled_batch else 1

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images (L + U, channels, *size) and labels (L, *size) of a step, labelled items first."""
        items = [
            part[i]
            for part, stream in zip(self.parts, self.part_streams, strict=True)
            for i in stream.take(step * self.per_part, self.per_part)
        ]
        labeled = len(items)
        start = step * self.unlabeled_batch
        items += [self.labeled_count + i for i in self.unlabeled_stream.take(start, self.unlabeled_batch)]
        if not self.cuts_patches:
            index = torch.tensor(items).to(self.stacked_images.device, non_blocking=True)
            return self.stacked_images[index], self.stacked_labels[index[:labeled], 0].long()
        origin = random.Random(derive_seed(self.seed, "crop", step))
        windows = [
            [
                slice(None),
                *(
                    self._window(origin, have, want)
                    for have, want in zip(self.images[i].shape[1:], self.size, strict=True)
                ),
            ]
            for i in items
        ]
        images = torch.stack([self.images[i][tuple(w)] for i, w in zip(items, windows, strict=True)])
        labels = [self.labels[i][tuple(w)][0] for i, w in zip(items[:labeled], windows[:labeled], strict=True)]
        return images, (torch.stack(labels) if labels else images.new_empty((0, *self.size))).long()

    @staticmethod
    def _window(origin: random.Random, have: int, want: int) -> slice:
        start = origin.randint(0, have - want)
        return slice(start, start + want)


def disjoint_parts(items: int, number: int, seed: int) -> list[list[int]]:
    """Deal labelled items into parts for networks that learn from different labels.

    Slices of one volume go to different parts: a network that saw the organ of one patient only would soon find
    nothing in anybody else. With fewer items than parts every part holds them all.
    """
    order = list(range(items))
    random.Random(derive_seed(seed, "parts")).shuffle(order)
    parts = [sorted(order[k::number]) for k in range(number)]
    return parts if all(parts) else [list(range(items))] * number
