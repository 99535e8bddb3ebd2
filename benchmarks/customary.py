"""Mean Teacher's step as the SSL4MIS family takes it, for `speed.py` to compare with."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from semiseg.data.splits import Partition
from semiseg.data.store import Dataset
from semiseg.training.sampling import Chain
from semiseg.training.trainer import Trainer


class CustomaryLoop:
    """Mean Teacher as the SSL4MIS family trains it: files on disk, samples one by one, no mixed precision.

    Kinder than the original in that the loader's processes live on, rather than anew for every short epoch.
    """

    def __init__(self, trainer: Trainer, dataset: Dataset, partition: Partition, workers: int, folder: Path) -> None:
        task, settings, self.device = trainer.method.task, trainer.settings, trainer.device
        self.labeled, self.size = settings.labeled_batch, settings.size
        self.files = [f for case in partition.labeled for f in write_slices(dataset, case, folder)]
        count = len(self.files)
        self.files += [f for case in partition.unlabeled for f in write_slices(dataset, case, folder)]
        streams = Chain(count, "labeled"), Chain(len(self.files) - count, "unlabeled")
        batches = (
            streams[0].take(t * settings.labeled_batch, settings.labeled_batch)
            + [count + i for i in streams[1].take(t * settings.unlabeled_batch, settings.unlabeled_batch)]
            for t in itertools.count()
        )
        samples: Any = self  # a map-style data set without a length: the batches never end
        pinned = self.device.type == "cuda"
        self.loader = iter(DataLoader(samples, batch_sampler=batches, num_workers=workers, pin_memory=pinned))
        self.student, self.teacher = (type(trainer.method)(task).network().to(self.device) for _ in range(2))
        self.teacher.requires_grad_(False)
        self.optimizer = torch.optim.SGD(
            self.student.parameters(), settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay
        )

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        with h5py.File(self.files[index]) as file:
            image, label = file["image"][:], file["label"][:]
        if np.random.rand() < 0.5:
            quarter, axis = np.random.randint(4), np.random.randint(-2, 0)
            image, label = (np.flip(np.rot90(a, quarter, (-2, -1)), axis) for a in (image, label))
        else:
            angle = np.random.randint(-20, 20)
            image, label = (ndimage.rotate(a, angle, (-1, -2), reshape=False, order=0) for a in (image, label))
        height, width = (want / have for want, have in zip(self.size, label.shape, strict=True))
        image, label = ndimage.zoom(image, (1, height, width), order=0), ndimage.zoom(label, (height, width), order=0)
        return torch.from_numpy(image.astype(np.float32)), torch.from_numpy(label.astype(np.uint8))

    def take(self, steps: int) -> None:
        """Train for a few steps."""
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        """One optimizer step."""
        images, labels = (x.to(self.device) for x in next(self.loader))
        logits, labels = self.student(images).logits, labels[: self.labeled].long()
        unlabeled = images[self.labeled :]
        with torch.no_grad():
            noisy = unlabeled + (0.1 * torch.randn_like(unlabeled)).clamp(-0.2, 0.2)
            target = self.teacher(noisy).logits.softmax(1)
        probabilities = logits.softmax(1)
        consistency = (probabilities[self.labeled :] - target).square().mean()
        cross_entropy = F.cross_entropy(logits[: self.labeled], labels)
        dice = torch.zeros((), device=self.device)
        for c in range(logits.shape[1]):
            p, y = probabilities[: self.labeled, c], (labels == c).float()
            dice = dice + 1 - (2 * (p * y).sum() + 1e-5) / (p.square().sum() + y.square().sum() + 1e-5)
        loss = 0.5 * (cross_entropy + dice / logits.shape[1]) + 0.1 * consistency
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        for own, other in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            own.data.mul_(0.99).add_(other.data, alpha=0.01)
        loss.item()


def write_slices(dataset: Dataset, case: str, folder: Path) -> Iterator[Path]:
    """Write every slice of a case to a file of its own; a 2D image is one slice."""
    image, label = dataset.image(case).astype(np.float32), dataset.label(case)
    if dataset.image(case).dtype == np.uint8:
        image /= 255
    slices = zip(np.moveaxis(image, 1, 0), label, strict=True) if label.ndim == 3 else [(image, label)]
    for index, (plane, mask) in enumerate(slices):
        path = folder / f"{case}_{index}.h5"
        with h5py.File(path, "w") as file:
            file["image"], file["label"] = plane, mask
        yield path
