"""An image as networks see it, with the way back to the file that it was read from."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from semiseg.data.formats import slices_first, unit_range
from semiseg.data.volume import Volume

Box = tuple[slice, slice, slice]
EVERYTHING: Box = (slice(None), slice(None), slice(None))


@dataclass(frozen=True)
class Original(ABC):
    """An image, (channels, *space) as in a `Case`."""

    image: np.ndarray

    @abstractmethod
    def save(self, mask: np.ndarray, path: Path) -> None:
        """Write a mask (*space) of the image, on the grid of its file; what was cut off is background."""


@dataclass(frozen=True)
class Still(Original):
    """A picture, or the part of it that counts."""

    size: tuple[int, ...] | None = None  # of the picture, if it is larger than the image
    box: tuple[slice, slice] = EVERYTHING[:2]

    def save(self, mask: np.ndarray, path: Path) -> None:
        """Write a mask (height, width), as PNG."""
        whole = np.zeros(self.size or mask.shape, mask.dtype)
        whole[self.box] = mask
        Image.fromarray(whole).save(path)


@dataclass(frozen=True)
class Scan(Original):
    """A volume, or a box in it, slices first."""

    volume: Volume
    box: Box
    order: tuple[int, ...]  # of the axes x, y and z in the image

    @classmethod
    def of(cls, volume: Volume, path: Path, box: Box = EVERYTHING) -> "Scan":
        """A box of a volume with intensities scaled to [0, 1]."""
        order = slices_first(volume.spacing)
        image = unit_range(volume.voxels[:, *box], path).transpose(0, *(axis + 1 for axis in order))
        return cls(np.ascontiguousarray(image), volume, box, order)

    @property
    def spacing(self) -> tuple[float, ...]:
        """The size of a voxel along the axes of the image, in mm."""
        return tuple(self.volume.spacing[axis] for axis in self.order)

    def cut(self, mask: np.ndarray) -> np.ndarray:
        """The part of a mask (x, y, z) of the volume that belongs to the image."""
        return np.ascontiguousarray(mask[self.box].transpose(self.order))

    def save(self, mask: np.ndarray, path: Path) -> None:
        """Write a mask (depth, height, width), as NIfTI."""
        whole = np.zeros(self.volume.voxels.shape[1:], mask.dtype)
        whole[self.box] = mask.transpose(np.argsort(self.order))
        self.volume.as_stored(whole).to_filename(path)
