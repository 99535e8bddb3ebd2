"""Between the pixels of a slice and those that a network sees."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from semiseg.data.cropping import Crop, middle, region


def as_trained(image: np.ndarray, size: tuple[int, ...], crop: Crop | None, device: torch.device) -> Tensor:
    """A picture (channels, height, width) as networks were trained to see it, (1, channels, *size) within [0, 1]."""
    values = torch.tensor(image[region(crop, image.shape)], device=device)[None]
    return to_training(values.float() / 255 if values.dtype == torch.uint8 else values, size, crop)


def to_training(slices: Tensor, size: tuple[int, ...], crop: Crop | None = None, is_label: bool = False) -> Tensor:
    """Bring slices (batch, channels, height, width) to the scale of the training.

    Whole slices, or their central windows, get the given size. Of windows that lie anywhere each would get it: so do
    slices that are smaller, by padding, while larger ones stay larger.
    """
    if crop is None:
        return resize(slices, size, is_label)
    if crop.at == "centre":
        return resize(pad(slices, crop.window), size, is_label)
    return pad(resize(slices, crop.scaled(slices.shape[2:], size), is_label), size)


def from_training(probabilities: Tensor, shape: Sequence[int], size: tuple[int, ...], crop: Crop | None) -> Tensor:
    """Bring what was predicted for slices of a shape (height, width) back to it: the inverse of `to_training`."""
    if crop is None:
        return _interpolate(probabilities, shape)
    if crop.at == "centre":
        return _interpolate(probabilities, crop.window)[middle(crop.window, shape)]
    return _interpolate(probabilities[middle(probabilities.shape, crop.scaled(shape, size))], shape)


def relative(points: Tensor, shape: Sequence[int], crop: Crop | None) -> Tensor:
    """Positions in pixels of an image (*space) as those in what is seen of it, along axes that run from −1 to 1."""
    start, length = _seen(points, shape, crop)
    return 2 * (points + 0.5 - start) / length - 1


def absolute(points: Tensor, shape: Sequence[int], crop: Crop | None) -> Tensor:
    """The inverse of `relative`."""
    start, length = _seen(points, shape, crop)
    return (points + 1) * length / 2 + start - 0.5


def _seen(points: Tensor, shape: Sequence[int], crop: Crop | None) -> tuple[Tensor, Tensor]:
    """Where what is seen of an image begins, outside of it if it is padded, and how long it is along every axis."""
    length = list(shape)
    if crop is not None:
        length[-len(crop.window) :] = crop.window
    start = [
        (have - want) // 2 if want <= have else -((want - have) // 2) for have, want in zip(shape, length, strict=True)
    ]
    return points.new_tensor(start), points.new_tensor(length)


def _interpolate(probabilities: Tensor, shape: Sequence[int]) -> Tensor:
    return F.interpolate(probabilities, tuple(shape), mode="bilinear")


def pad(array: Tensor, least: Sequence[int]) -> Tensor:
    """Pad the last axes with zeros, on both sides, to a least shape; `middle` undoes it."""
    missing = [max(0, want - have) for want, have in zip(least, array.shape[-len(least) :], strict=True)]
    return F.pad(array, [p for m in reversed(missing) for p in (m // 2, m - m // 2)])


def resize(images: Tensor, size: Sequence[int], is_label: bool = False) -> Tensor:
    """Resize (batch, channels, height, width), keeping the type; masks keep their classes."""
    if tuple(images.shape[2:]) == tuple(size):
        return images
    if is_label:
        return F.interpolate(images.float(), tuple(size), mode="nearest-exact").to(images.dtype)
    resized = F.interpolate(images.float(), tuple(size), mode="bilinear", antialias=True)
    return resized if images.is_floating_point() else resized.round().to(images.dtype)
