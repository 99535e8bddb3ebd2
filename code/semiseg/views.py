"""What networks see: one random geometry per image, then photometric views that stay pixel-aligned.

All operations are batched and run on the images' device. Volumes (batch, channels, depth, height, width) are
treated like images whose slices share one geometry, so 2D and 3D use the same code.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from semiseg.errors import UserError
from semiseg.losses import in_full_precision


@dataclass(frozen=True)
class Geometry:
    """Where the pixels of moved images come from: one affine map for each image, in plane.

    A map leads from positions in the moved image to those in the one that it was taken from, each axis running from −1
    to 1, as `affine_grid` wants it. Positions are float32 even within mixed precision, which would move them
    by pixels.
    """

    matrix: Tensor  # (batch, 2, 3); positions are (x, y)
    grids: dict[tuple[int, int], Tensor] = field(default_factory=dict, repr=False)  # of sizes asked for

    def images(self, values: Tensor) -> Tensor:
        """Values for every pixel, (batch, channels, *space), moved by linear interpolation; all slices alike."""
        return self._sample(values, "bilinear")

    def masks(self, masks: Tensor) -> Tensor:
        """The same of class indices (batch, *space), which stay what they are."""
        return self._sample(masks[:, None].float(), "nearest")[:, 0].to(masks.dtype)

    @in_full_precision
    def points(self, points: Tensor) -> Tensor:
        """Where points (batch, points, axes), relative positions in the order of space, lie in the moved images."""
        back = self.inverse().matrix[: len(points)].to(points.dtype)
        *depth, y, x = points.unbind(-1)
        x, y = (torch.stack([x, y], -1) @ back[:, :, :2].mT + back[:, None, :, 2]).unbind(-1)
        return torch.stack([*depth, y, x], -1)

    def inverse(self) -> "Geometry":
        """The way back."""
        return Geometry(_inverse(self.matrix))

    @in_full_precision
    def _sample(self, values: Tensor, mode: str) -> Tensor:
        planes = values.flatten(1, -3)
        height, width = planes.shape[2:]
        if (height, width) not in self.grids:  # images and masks have one
            size = [len(self.matrix), 1, height, width]
            self.grids[height, width] = F.affine_grid(self.matrix, size, align_corners=False)
        grid = self.grids[height, width][: len(values)]
        return F.grid_sample(planes, grid, mode=mode, align_corners=False).view_as(values)


@in_full_precision
def _inverse(matrix: Tensor) -> Tensor:
    square = torch.linalg.inv_ex(matrix[:, :, :2]).inverse  # which does not wait to see if there is one
    return torch.cat([square, -square @ matrix[:, :, 2:]], 2)


class Motion(Protocol):
    """How images were moved, which what belongs to the first of them can follow; see `TaskKind.moved`."""

    def masks(self, masks: Tensor) -> Tensor:
        """Class indices (L, *space)."""

    def points(self, points: Tensor) -> Tensor:
        """Relative positions (L, points, axes) in the order of space."""


def warp(images: Tensor, generator: Generator, turns: bool = True) -> tuple[Tensor, Geometry]:
    """Give every image (batch, channels, *space) within [0, 1] its own random geometry, and say which.

    Half of the images are turned by a multiple of 90° and flipped along one axis, the others are rotated by up to
    20°. The SSL4MIS family rotates only every second of these, and leaves a quarter of all images as they are. Volumes
    are warped likewise, all slices in plane. Without `turns` all images are rotated by up to 20°, and none is flipped.
    """
    count, (height, width) = len(images), images.shape[-2:]

    def draw(high: int) -> Tensor:
        return torch.randint(high, (count,), generator=generator, device=images.device)

    right_angle, quarter, axis = draw(2).bool() & turns, draw(4), draw(2)
    if height != width:  # a quarter turn would not fit
        quarter = quarter // 2 * 2
    degrees = torch.rand(count, generator=generator, device=images.device) * 40 - 20
    angle = torch.where(right_angle, quarter * 90.0, degrees).deg2rad()
    flip_x = torch.where(right_angle & (axis == 0), -1.0, 1.0)
    flip_y = torch.where(right_angle & (axis == 1), -1.0, 1.0)
    geometry = _rotation(angle, (flip_x, flip_y), height / width)
    return geometry.images(images).clamp(0, 1), geometry


def move(images: Tensor, generator: Generator) -> Geometry:
    """For a view that does not lie as the others do: turned by up to 30°, zoomed by 0.8 to 1.25, shifted by a tenth."""
    shape, (height, width) = (len(images),), images.shape[-2:]

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(shape, generator=generator, device=images.device) * (high - low) + low

    zoom = draw(math.log(0.8), math.log(1.25)).exp()
    geometry = _rotation(draw(-30, 30).deg2rad(), (zoom, zoom), height / width)
    shift = torch.stack([draw(-0.2, 0.2), draw(-0.2, 0.2)], 1)
    return Geometry(torch.cat([geometry.matrix[:, :, :2], shift[:, :, None]], 2))


def _rotation(angle: Tensor, scale: tuple[Tensor, Tensor], aspect: float) -> Geometry:
    """Rotations of pixels, not of relative positions, that scale x and y besides; images are `aspect` times as high."""
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    x, y = scale
    matrix = torch.stack([
        torch.stack([x * cos, -x * sin * aspect, zero], 1),
        torch.stack([y * sin / aspect, y * cos, zero], 1),
    ], 1)  # fmt: skip
    return Geometry(matrix)


Draw = Callable[[float, float], Tensor]  # one uniform number per image, between the bounds


def uniform(images: Tensor, generator: Generator) -> Draw:
    """Draws numbers for images, shaped to broadcast against them."""
    shape = (len(images),) + (1,) * (images.ndim - 1)

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(shape, generator=generator, device=images.device) * (high - low) + low

    return draw


@dataclass(frozen=True)
class Photometry:
    """How strongly a view alters what the camera or scanner recorded."""

    jitter: float = 1.0  # probability that brightness, contrast, gamma and colours are altered at all
    brightness: float = 0.0  # ± relative
    contrast: float = 0.0  # ± relative
    gamma: float = 1.0  # between 1/gamma and gamma
    blur: int = 0  # side of the Gaussian kernel in pixels
    blurred: float = 1.0  # probability of the blur
    noise: float = 0.0  # standard deviation, image range is 1
    saturation: float = 0.0  # ± relative, colour images only; likewise the next two
    hue: float = 0.0  # ± turns
    gray: float = 0.0  # probability
    grid_mask: float = 0.0  # probability
    cutout: float = 0.0  # probability


Imaging = Literal["camera", "scan"]

# A camera's pictures differ in colour, light and sharpness, and shiny or dirty spots hide parts of them. A scanner's do
# not: what MR or CT of one organ differ in is brightness and contrast.
VIEWS: dict[Imaging, dict[str, Photometry]] = {
    "camera": {
        "plain": Photometry(),
        "weak": Photometry(brightness=0.1, contrast=0.1),
        "moderate": Photometry(brightness=0.2, contrast=0.2, gamma=1.25, blur=3, noise=0.05),
        "strong": Photometry(brightness=0.4, contrast=0.4, gamma=2.0, blur=5, noise=0.1, saturation=0.4, hue=0.1,
                             gray=0.2, grid_mask=0.8, cutout=0.5),
    },
    "scan": {
        "plain": Photometry(),
        "weak": Photometry(brightness=0.1, contrast=0.1),
        "moderate": Photometry(brightness=0.2, contrast=0.2, gamma=1.25, noise=0.05),
        "strong": Photometry(jitter=0.8, brightness=0.5, contrast=0.5, blur=5, blurred=0.5),
    },
}  # fmt: skip


def likely_imaging(channels: int) -> Imaging:
    """What most probably recorded images of so many channels: three are the colours of a camera."""
    return "camera" if channels == 3 else "scan"


MOVED = "moved-"  # before the name of a view that has a geometry of its own


def photometry(name: str, recorded_by: Imaging) -> Photometry:
    """What the named view alters; `strong-2`, and `moved-strong`, alter what `strong` does."""
    kind, views = name.removeprefix(MOVED).partition("-")[0], VIEWS[recorded_by]
    if kind not in views:
        raise UserError(
            f"there is no view {name!r}; choose from {', '.join(views)}, or a further draw such as strong-2, or one "
            "that is moved, such as moved-strong."
        )
    return views[kind]


def view(images: Tensor, name: str, generator: Generator, recorded_by: Imaging = "camera") -> Tensor:
    """Show (batch, channels, *space) images within [0, 1] as the named view; positions do not move.

    A number after the name, as in `strong-2`, stands for a further draw of the same view.
    """
    p, draw = photometry(name, recorded_by), uniform(images, generator)

    def sometimes(probability: float, altered: Tensor, unaltered: Tensor) -> Tensor:
        return altered if probability == 1 else torch.where(draw(0, 1) < probability, altered, unaltered)

    jittered = images
    if p.contrast:
        mean = jittered.flatten(1).mean(1).view(-1, *[1] * (images.ndim - 1))
        jittered = (jittered - mean) * draw(1 - p.contrast, 1 + p.contrast) + mean
    if p.brightness:
        jittered = jittered * draw(1 - p.brightness, 1 + p.brightness)
    if p.saturation and images.shape[1] == 3:
        saturation, hue, gray = draw(1 - p.saturation, 1 + p.saturation), draw(-p.hue, p.hue), draw(0, 1) < p.gray
        jittered = _recolor(jittered, saturation, hue, gray)
    if p.gamma != 1:
        bound = math.log(p.gamma)
        jittered = jittered.clamp(1e-3, 1).pow(draw(-bound, bound).exp())
    images = sometimes(p.jitter, jittered, images)
    if p.blur:
        images = sometimes(p.blurred, blur(images, draw(0.1, p.blur / 3), p.blur), images)
    if p.noise:
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        images = images + p.noise * noise
    if p.grid_mask:
        images = images * (_grid(images, draw) | (draw(0, 1) >= p.grid_mask))
    if p.cutout:
        images = images * (_outside_box(images, draw) | (draw(0, 1) >= p.cutout))
    return images.clamp(0, 1)


def _recolor(images: Tensor, saturation: Tensor, hue: Tensor, gray: Tensor) -> Tensor:
    """Scale and turn the chroma plane of the YIQ colour space: saturation and hue in one linear map."""
    red, green, blue = images.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    i = 0.5959 * red - 0.2746 * green - 0.3213 * blue
    q = 0.2115 * red - 0.5227 * green + 0.3112 * blue
    scale = torch.where(gray, 0.0, saturation)[:, 0]
    cos, sin = scale * (2 * math.pi * hue[:, 0]).cos(), scale * (2 * math.pi * hue[:, 0]).sin()
    i, q = cos * i - sin * q, sin * i + cos * q
    return torch.stack([luma + 0.956 * i + 0.619 * q, luma - 0.272 * i - 0.647 * q, luma - 1.106 * i + 1.703 * q], 1)


def blur(images: Tensor, sigma: Tensor, side: int) -> Tensor:
    """In-plane Gaussian blur with one sigma per image, as one grouped convolution per axis."""
    planes = images.flatten(1, -3)
    count, depth = planes.shape[:2]
    offset = torch.arange(side, device=images.device) - side // 2
    kernel = (-0.5 * (offset / sigma.view(count, 1)).square()).exp()
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(depth, 0)
    stacked = F.pad(planes.reshape(1, count * depth, *planes.shape[2:]), [side // 2] * 4, mode="replicate")
    stacked = F.conv2d(stacked, kernel[:, None, None, :], groups=count * depth)
    return F.conv2d(stacked, kernel[:, None, :, None], groups=count * depth).view_as(images)


def _coordinates(images: Tensor) -> list[Tensor]:
    """Pixel coordinates along every axis of space, each shaped to broadcast against (batch, 1, *space)."""
    axes = images.ndim - 2
    return [
        torch.arange(length, device=images.device).view([-1 if a == axis else 1 for a in range(axes)])[None, None]
        for axis, length in enumerate(images.shape[2:])
    ]


def _grid(images: Tensor, draw: Draw) -> Tensor:
    """False on isolated squares (cubes in 3D) of a turned grid; with a strip of 0.4, 36 % of an image."""
    strip, side = 0.4, min(images.shape[-2:])
    period, angle = draw(20 / 288 * side, 79 / 288 * side), draw(0, math.pi / 2)
    *depth, y, x = _coordinates(images)
    along = [x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos(), *depth]
    removed = torch.ones(1, dtype=torch.bool, device=images.device)
    for coordinate in along:
        removed = removed & ((coordinate / period + draw(0, 1)).remainder(1) < 1 - strip)
    return ~removed


def _outside_box(images: Tensor, draw: Draw) -> Tensor:
    """False inside one box whose sides measure 10 to 30 % of the image's."""
    inside = torch.ones(1, dtype=torch.bool, device=images.device)
    for coordinate in _coordinates(images):
        length = coordinate.numel()
        half, center = draw(0.05, 0.15) * length, draw(0, 1) * length
        inside = inside & ((coordinate - center).abs() < half)
    return ~inside
