"""Random perturbations of feature maps: pure functions from (batch, channels, *space) to the same shape and type.

Every item of a batch gets its own draw, from torch's generator of the features' device. What is compared or
summed is computed in float32 whatever the precision of the features.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Perturbation = Callable[[Tensor], Tensor]


def feature_noise(features: Tensor, bound: float = 0.3) -> Tensor:
    """x (1 + u) with u ~ U(−bound, bound) for every element."""
    u = bound * (2 * torch.rand(features.shape, device=features.device) - 1)
    return (features * (1 + u)).to(features.dtype)


def attention_dropout(features: Tensor, low: float = 0.7, high: float = 0.9) -> Tensor:
    """Remove the most active region: x_i [a_i < r max_j a_j] in all channels, a = mean_c x.

    r ~ U(low, high), one for each item. An item whose map a, (batch, 1, *space), is nowhere positive has no
    active region and is left as it is.
    """
    attention = features.mean(1, keepdim=True, dtype=torch.float32)
    peak = attention.amax(tuple(range(1, features.ndim)), keepdim=True)
    r = low + (high - low) * torch.rand(peak.shape, device=features.device)
    return features * ((attention < r * peak) | (peak <= 0))


def element_dropout(features: Tensor, probability: float = 0.5) -> Tensor:
    """m x / (1 − p) with m = 0 with probability p, else 1, for every element."""
    return F.dropout(features, probability)


def channel_dropout(features: Tensor, probability: float = 0.5) -> Tensor:
    """m x / (1 − p) with m = 0 with probability p, else 1, for every channel of every item."""
    return torch.feature_dropout(features, probability, train=True)


def half_boxes(images: Tensor) -> Tensor:
    """True inside a box of half the area in plane, at least half as wide as the image; (batch, 1, *ones, h, w)."""

    def inside(length: int, side: Tensor) -> Tensor:
        place = (torch.arange(length, device=images.device) + 0.5) / length
        start = torch.rand(len(images), 1, device=images.device) * (1 - side)
        return (place >= start) & (place <= start + side)

    across = 0.5 + 0.5 * torch.rand(len(images), 1, device=images.device)
    height, width = images.shape[-2:]
    box = inside(height, 0.5 / across)[:, :, None] & inside(width, across)[:, None]
    return box.view(len(images), *[1] * (images.ndim - 3), height, width)
