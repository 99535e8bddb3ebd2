"""Halving and doubling of any size: what is padded on the way down is cropped on the way up."""

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
