"""Patches of images by their place in a grid: means over them, and moving them from one image to another."""

from collections.abc import Sequence

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


def certainty(logits: Tensor, parts: int) -> Tensor:
    """Of every patch, (batch, P): the mean of the largest probability."""
    return patch_means(logits.softmax(1).amax(1, keepdim=True), parts)[..., 0]


def nearest(own: Tensor, place: Tensor, other: Tensor, sure: Tensor, number: int) -> Tensor:
    """Of the other's surest patches that with the least KL(p ‖ q) from the own one at a place; (batch,) places.

    Args:
        own: mean logits of p, (batch, P, C).
        place: (batch,).
        other: mean logits of q, (batch, P, C).
        sure: certainty of the other's patches, (batch, P).
        number: of patches to choose from.
    """
    surest = sure.topk(min(number, sure.shape[1]), 1).indices
    items = torch.arange(len(own), device=own.device)
    p = own[items, place].log_softmax(1)[:, None]
    q = other[items[:, None], surest].log_softmax(2)
    best = (p.exp() * (p - q)).sum(2).argmin(1)
    return surest[items, best]


@torch.no_grad()
def exchanged(
    views: Sequence[Tensor], logits: Sequence[Tensor], parts: int, surest: int, by_nearness: Tensor
) -> Tensor:
    """Two views of images, (2 B, channels, *space), each with a patch from the other where its network doubts most.

    Args:
        views: two of (batch, channels, *space).
        logits: what the network of either view says of it.
        surest: of the other's patches to choose the nearest opinion from.
        by_nearness: images (batch,) that choose so; others take the other's surest patch.
    """
    sure, opinions = [certainty(x, parts) for x in logits], [patch_means(x, parts) for x in logits]
    everywhere = torch.ones(len(views[0]), dtype=torch.bool, device=views[0].device)
    results = []
    for own, other in ((0, 1), (1, 0)):
        place = sure[own].argmin(1)
        near = nearest(opinions[own], place, opinions[other], sure[other], surest)
        source = torch.where(by_nearness, near, sure[other].argmax(1))
        results.append(displaced(views[own], place, views[other], source, parts, everywhere))
    return torch.cat(results)
