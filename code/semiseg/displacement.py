"""Patches of images by their place in a grid: means over them, and moving them from one image to another."""

import torch
from torch import Tensor


def grid(values: Tensor, parts: int) -> Tensor:
    """(batch, channels, *space) as a view (batch, *places, channels, *side) of patches of equal size.

    There are `parts` places along every axis, or one for each position of a shorter axis; positions that are left over
    at the end belong to no patch.
    """
    axes = values.ndim - 2
    for axis, length in enumerate(values.shape[2:]):
        number = min(parts, length)
        side = length // number
        values = values.narrow(2 + axis, 0, number * side).unfold(2 + axis, side, side)
    return values.movedim(1, 1 + axes)


def patch_means(values: Tensor, parts: int) -> Tensor:
    """Means over the patches, (batch, channels, *space) to (batch, P, channels)."""
    axes = values.ndim - 2
    return grid(values, parts).flatten(-axes).mean(-1).flatten(1, axes)


def displaced(images: Tensor, places: Tensor, others: Tensor, sources: Tensor, parts: int, chosen: Tensor) -> Tensor:
    """Images (batch, channels, *space) in which a patch is that of another image, where the item is chosen.

    Args:
        images: what is altered; stays as it is.
        places: of the patch that is replaced, (batch,) numbers as in `patch_means`.
        others: where the patch comes from, of the same shape.
        sources: its place there, (batch,).
        parts: patches along every axis.
        chosen: (batch,) booleans.
    """
    result = images.clone()
    into, out_of = grid(result, parts), grid(others, parts)
    shape, items = into.shape[1 : images.ndim - 1], torch.arange(len(images), device=images.device)
    there, here = ((items, *torch.unravel_index(number, shape)) for number in (places, sources))
    into[there] = torch.where(chosen.view(-1, *[1] * (images.ndim - 1)), out_of[here], into[there])
    return result
