"""Smooth random deformations in plane, as grids to sample images, labels and maps by; volumes keep their slices."""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

CONTROL = 5  # control points along each axis
SQUARINGS = 8


def deform(values: Tensor, grid: Tensor, mode: str = "bilinear") -> Tensor:
    """Sample (batch, channels, *space) at the positions (batch, height, width, 2); zero beyond the border."""
    planes = values.flatten(1, -3).float()
    return F.grid_sample(planes, grid, mode=mode, align_corners=False).view_as(values).to(values.dtype)


def similarity_and_spline(images: Tensor, jitter: float = 0.01, mirror: bool = True) -> Tensor:
    """Grids of thin-plate splines through jittered control points, then rotated, scaled, shifted and mirrored.

    Rotation up to 60°, scale 1/1.2 to 1/0.8, shift up to a tenth of the half-width, for each image; one coin decides
    whether all of them are mirrored.
    """
    count, (height, width), device = len(images), images.shape[-2:], images.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, device=device) * (high - low) + low

    offsets = uniform(-jitter, jitter, CONTROL**2, 2)
    points = _identity(height, width, device).view(-1, 2) + _spline(height, width, device) @ offsets
    angle, scale = uniform(-math.pi / 3, math.pi / 3), uniform(1 / 1.2, 1 / 0.8)
    cos, sin, aspect = scale * angle.cos(), scale * angle.sin(), height / width
    flip = torch.where(torch.rand((), device=device) < 0.5 * mirror, -1.0, 1.0)
    x, y = points.unbind(2)
    x, y = x * cos[:, None] - y * sin[:, None] * aspect, x * sin[:, None] / aspect + y * cos[:, None]
    turned = torch.stack([flip * x, y], 2) + uniform(-0.1, 0.1, 1, 2)
    return turned.view(count, height, width, 2)


def diffeomorphism(images: Tensor, strength: float = 0.033) -> Tensor:
    """Grids of random smooth maps that fold nowhere: a velocity field, integrated by scaling and squaring.

    Velocities are uniform on a grid eight times as coarse as the image, with a root mean square of `strength` (the
    half-width is 1) before they are smoothed.
    """
    height, width = images.shape[-2:]
    coarse = (max(2, height // 8), max(2, width // 8))
    velocity = 2 * torch.rand(len(images), 2, *coarse, device=images.device) - 1
    velocity = velocity * strength / velocity.square().mean((1, 2, 3), keepdim=True).sqrt()
    flow = F.interpolate(_smooth(velocity), (height, width), mode="bilinear") / 2**SQUARINGS
    identity = _identity(height, width, images.device)
    for _ in range(SQUARINGS):
        moved = identity + flow.movedim(1, 3)
        flow = flow + F.grid_sample(flow, moved, padding_mode="border", align_corners=False)
    last = identity[-1, -1]  # the centre of a corner's pixel; beyond it, samples fade to zero
    return (identity + _smooth(flow).movedim(1, 3)).clamp(-last, last)


def _identity(height: int, width: int, device: torch.device) -> Tensor:
    """(height, width, 2) positions x, y of pixels, the image's edges being at −1 and 1."""
    y, x = ((2 * torch.arange(n, device=device) + 1) / n - 1 for n in (height, width))
    return torch.stack([x[None].expand(height, width), y[:, None].expand(height, width)], 2)


def _smooth(field: Tensor) -> Tensor:
    """Gaussian of standard deviation 1 over 7 × 7."""
    taps = torch.exp(-0.5 * torch.arange(-3.0, 4.0, device=field.device).square())
    kernel = torch.outer(taps, taps) / taps.sum().square()
    return F.conv2d(field, kernel.expand(2, 1, 7, 7), padding=3, groups=2)


@lru_cache(maxsize=8)
def _spline(height: int, width: int, device: torch.device) -> Tensor:
    """(pixels, control points): by how much each control point's offset moves each pixel; calculated on the host."""
    axis = torch.linspace(-1, 1, CONTROL, dtype=torch.float64)
    control = torch.cartesian_prod(axis, axis)

    def basis(points: Tensor) -> Tensor:
        squares = torch.cdist(points, control).square()
        return torch.where(squares > 0, 0.5 * squares * squares.clamp(min=1e-30).log(), 0.0)  # r² ln r

    def affine(points: Tensor) -> Tensor:
        return torch.cat([torch.ones(len(points), 1, dtype=torch.float64), points], 1)

    corner = torch.zeros(3, 3, dtype=torch.float64)
    system = torch.cat([torch.cat([basis(control), affine(control)], 1), torch.cat([affine(control).T, corner], 1)])
    pixels = _identity(height, width, torch.device("cpu")).view(-1, 2).double()
    weights = torch.cat([basis(pixels), affine(pixels)], 1) @ torch.linalg.inv(system)
    return weights[:, : CONTROL**2].float().to(device)
