"""Halving and doubling of any size: what is padded on the way down is cropped on the way up."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def pad_to_even(x: Tensor) -> Tensor:
    """Append a plane of zeros to every axis of space with odd length."""
    padding = [amount for length in reversed(x.shape[2:]) for amount in (0, length % 2)]
    return F.pad(x, padding) if any(padding) else x


def crop_to(x: Tensor, reference: Tensor) -> Tensor:
    """Drop the planes at the end of `x` that `reference` does not have."""
    for axis, length in enumerate(reference.shape[2:], start=2):
        x = x.narrow(axis, 0, length)
    return x


def enlarge_to(x: Tensor, size: Sequence[int], mode: str) -> Tensor:
    """Interpolate a coarser map to `size`; its last position may reach beyond that, and is cropped, not squeezed in.

    A level of stride s has size / s positions, rounded up, so that s is the least power of two that covers the size.
    """
    covered = [
        length << (-(-wanted // length) - 1).bit_length() for length, wanted in zip(x.shape[2:], size, strict=True)
    ]
    x = F.interpolate(x, tuple(covered), mode=mode)
    for axis, length in enumerate(size, start=2):
        x = x.narrow(axis, 0, length)
    return x
