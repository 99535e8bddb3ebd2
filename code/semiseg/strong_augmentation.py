"""nnU-Net's augmentation of images, which labels can follow, batched on their device; every image has its own draw.

Kinds, ranges and probabilities are those of nnU-Net (MIC-DKFZ/nnUNet, 0e49508), for images within [0, 1] instead of
standardized ones: noise is relative to an image's standard deviation, brightness scales from black, and whatever is
left of the range is cut off. Its probability for an image times that for a channel is one probability here, and all
channels change alike but for their noise. As many zooms enlarge as shrink, where its factors shrink a little more
often, and a thin volume is turned as a picture of its aspect. Images are turned within the patch that they are cut
to, so that corners are black, by linear interpolation, and blurred in plane.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from semiseg.losses import in_full_precision
from semiseg.views import Draw, blur, uniform

THIN = 3  # a volume whose first axis is so many times shorter than another is changed in plane alone
LONG = 1.5  # a picture with such an aspect ratio is turned by little


@dataclass(frozen=True)
class Turned:
    """By which matrix (batch, axes, axes) each image was moved, from relative positions in the result to its own."""

    matrix: Tensor

    def images(self, values: Tensor) -> Tensor:
        """Values for every pixel, (batch, channels, *space), by linear interpolation."""
        return _resample(values, self.matrix, "bilinear", "zeros")

    def masks(self, masks: Tensor) -> Tensor:
        """Class indices (L, *space) of the first L images."""
        matrix = self.matrix[: len(masks)]
        return _resample(masks[:, None].to(matrix.dtype), matrix, "nearest", "zeros")[:, 0].to(masks.dtype)

    @in_full_precision
    def points(self, points: Tensor) -> Tensor:
        """Relative positions (L, points, axes)."""
        back = torch.linalg.inv_ex(self.matrix[: len(points)]).inverse  # which does not wait to see if there is one
        return points @ back.mT.to(points.dtype)


def augment_strongly(images: Tensor, generator: Generator, turns: bool = True) -> tuple[Tensor, Turned]:
    """Rotate, scale and mirror images, and say how; then alter noise, sharpness, light and resolution.

    Without `turns` none is mirrored, or turned by more than 30°.

    Args:
        images: (batch, channels, *space) within [0, 1].
    """
    draw = uniform(images, generator)
    turned = Turned(geometry(images, draw, turns))
    images = turned.images(images).clamp(0, 1)
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return _record(images, noise, draw), turned


@in_full_precision
def geometry(images: Tensor, draw: Draw, turns: bool) -> Tensor:
    """For each image a matrix (axes, axes) from relative positions in the result to those in the image.

    Rotation by up to 180° in plane, or by up to 30° about every axis of a volume that is not thin, and a zoom of 0.7 to
    1.4, each with probability 0.2; a reflection along every axis with probability ½.
    """
    lengths = torch.stack([images.new_full((), length) for length in images.shape[2:]])  # filled, not copied there
    axes, plane = len(lengths), images.shape[-2:]
    free = _free(images)
    limit = 30 if free == 3 or not turns else 180
    if free == 2 and max(plane) > LONG * min(plane):
        limit = 15
    turned = draw(0, 1).flatten() < 0.2
    matrix = torch.eye(axes, device=images.device).repeat(len(images), 1, 1)
    for first, second in [(axes - 2, axes - 1), (0, 2), (0, 1)][: 1 if free == 2 else 3]:
        angle = draw(-limit, limit).flatten().deg2rad() * turned
        rotation = torch.eye(axes, device=images.device).repeat(len(images), 1, 1)
        rotation[:, first, first] = rotation[:, second, second] = angle.cos()
        rotation[:, first, second], rotation[:, second, first] = -angle.sin(), angle.sin()
        matrix = matrix @ rotation
    zoom = torch.where(draw(0, 1) < 0.2, _factor(draw, 0.7, 1.4), 1.0).view(-1, 1, 1)
    matrix[:, axes - free :] /= zoom
    if turns:
        for axis in range(axes):
            matrix[:, axis] *= torch.where(draw(0, 1) < 0.5, -1.0, 1.0).view(-1, 1)
    return matrix * lengths / lengths[:, None]


def _record(images: Tensor, noise: Tensor, draw: Draw) -> Tensor:
    """Noise, blur, brightness, contrast, resolution, and gamma of the negative and of the image."""
    space = tuple(range(1, images.ndim))

    def contrast(x: Tensor) -> Tensor:
        mean, low, high = x.mean(space, True), x.amin(space, True), x.amax(space, True)
        return torch.minimum(torch.maximum((x - mean) * _factor(draw, 0.75, 1.25) + mean, low), high)

    changes: list[tuple[float, Callable[[Tensor], Tensor]]] = [
        (0.1, lambda x: x + noise * draw(0, 0.1) * x.std(space, keepdim=True)),
        (0.1, lambda x: blur(x, draw(0.5, 1), 5)),
        (0.15, lambda x: x * _factor(draw, 0.75, 1.25)),
        (0.15, contrast),
        (0.125, lambda x: low_resolution(x, draw(0.5, 1))),
        (0.1, lambda x: 1 - gamma(1 - x, _factor(draw, 0.7, 1.5))),
        (0.3, lambda x: gamma(x, _factor(draw, 0.7, 1.5))),
    ]
    for probability, change in changes:
        images = torch.where(draw(0, 1) < probability, change(images).clamp(0, 1), images)
    return images


def gamma(images: Tensor, power: Tensor) -> Tensor:
    """((x − min) / (max − min))^γ, shifted and scaled to the mean and standard deviation of x, image by image."""
    space = tuple(range(1, images.ndim))
    low, high = images.amin(space, True), images.amax(space, True)
    curved = ((images - low) / (high - low).clamp(min=1e-7)).pow(power)
    spread = images.std(space, keepdim=True) / curved.std(space, keepdim=True).clamp(min=1e-7)
    return (curved - curved.mean(space, True)) * spread + images.mean(space, True)


def low_resolution(images: Tensor, scale: Tensor) -> Tensor:
    """The nearest pixels of a grid that is coarser by a scale below 1, interpolated; thin volumes in plane alone."""
    axes, free = images.ndim - 2, _free(images)
    factors = torch.ones(len(images), axes, device=images.device)
    factors[:, axes - free :] = scale.view(-1, 1)
    for factor, mode in ((1 / factors, "nearest"), (factors, "bilinear")):  # the coarse image lies in the middle
        images = _resample(images, factor.diag_embed(), mode, "border")
    return images


def _free(images: Tensor) -> int:
    """The number of axes, counted from the last, that are changed: 2 in a picture or a thin volume, else 3."""
    space = images.shape[2:]
    return 2 if len(space) == 2 or max(space) > THIN * space[0] else 3


def _factor(draw: Draw, low: float, high: float) -> Tensor:
    """Below 1 as often as above it."""
    return torch.where(draw(0, 1) < 0.5, draw(low, 1), draw(1, high))


@in_full_precision
def _resample(values: Tensor, matrix: Tensor, mode: str, padding: str) -> Tensor:
    """Look positions up in (batch, channels, *space), each axis running from −1 to 1 in the order of space."""
    affine = F.pad(matrix.flip(1, 2), (0, 1))  # torch names the last axis first, and wants a shift
    grid = F.affine_grid(affine, [*values.shape], align_corners=False)
    return F.grid_sample(values, grid, mode=mode, padding_mode=padding, align_corners=False)
