"""CTAugment: augmentation whose strength follows what a network copes with, batched on the images' device.

Images are (items, channels, *space) within [0, 1] with any number of channels. Volumes are treated like images
whose slices share one geometry; their intensities are those of the whole volume.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semiseg.losses import in_full_precision, one_hot

DEPTH = 2  # operations per policy
BINS = 17  # of an operation's magnitude


@dataclass(frozen=True)
class Policy:
    """Which operations every item undergoes, in this order, and how strongly."""

    operations: Tensor  # (items, DEPTH) indices, on the host: it groups items by operation without waiting
    magnitudes: Tensor  # (items, DEPTH) within [0, 1], on the device

    @property
    def placed(self) -> Tensor:
        """The operations on the device of the magnitudes; so few numbers are copied without a wait."""
        return self.operations.to(self.magnitudes.device, non_blocking=True)


class Rates(nn.Module):
    """How close to the label predictions stay, by operation and by bin of its magnitude.

    Magnitudes are drawn from bins whose rate is at least `threshold` of the operation's best one, with a
    probability in proportion to the rate.
    """

    rates: Tensor

    def __init__(self, bins: list[int], decay: float = 0.99, threshold: float = 0.85) -> None:
        super().__init__()
        self.decay, self.threshold = decay, threshold
        exists = torch.arange(max(bins)) < torch.tensor(bins)[:, None]
        self.register_buffer("rates", torch.where(exists, 1.0, -1.0))  # −1 keeps missing bins below any threshold

    @property
    def likelihood(self) -> Tensor:
        """Unnormalized probability of every bin, (operations, bins)."""
        value = self.rates + (1 - self.decay)
        value = value / value.amax(1, keepdim=True)
        return value * (value >= self.threshold)

    def draw(self, items: int, uniform: bool = False) -> Policy:
        """A policy of its own for every item; with `uniform`, every magnitude is as likely as any other."""
        operations = torch.randint(len(self.rates), (items, DEPTH))
        policy = Policy(operations, torch.rand(items, DEPTH, device=self.rates.device))
        if uniform:
            return policy
        likelihood = self.likelihood[policy.placed]
        # The first of exponential clocks is a multinomial draw, of which torch's own waits for the device.
        chosen = (likelihood / torch.empty_like(likelihood).exponential_()).argmax(2)
        return Policy(operations, (chosen + policy.magnitudes) / self._bins(policy))

    @torch.no_grad()
    def update(self, policy: Policy, proximity: Tensor) -> None:
        """Move the rates of a policy's bins: rate ← decay rate + (1 − decay) proximity, (items,) within [0, 1].

        Where several items share a bin, this happens once for each of them with the mean of their proximities.
        """
        bins = self._bins(policy)
        position = (policy.magnitudes * bins).long().minimum(bins - 1)
        hits = F.one_hot(policy.placed * self.rates.shape[1] + position, self.rates.numel()).sum(1)  # (items, rates)
        count = hits.sum(0).view_as(self.rates)
        mean = (hits * proximity[:, None]).sum(0).view_as(self.rates) / count.clamp(min=1)
        self.rates.lerp_(mean, 1 - self.decay**count)

    def _bins(self, policy: Policy) -> Tensor:
        return (self.rates >= 0).sum(1)[policy.placed]


class CTAugment(nn.Module):
    """A weak, geometric policy for images and labels alike, and a strong, photometric one on top of it.

    The rates are buffers, so that they are saved and resumed like weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.geometry = Rates([1 if name == "identity" else BINS for name in GEOMETRIES])
        self.photometry = Rates([8 if name == "posterize" else BINS for name in PHOTOMETRIES])

    def weak(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Move the images, and the (L, *space) labels of the first L of them likewise."""
        return distort(images, labels, self.geometry.draw(len(images)))

    def strong(self, images: Tensor) -> Tensor:
        """Alter intensities; positions do not move."""
        return recolor(images, self.photometry.draw(len(images)))

    @torch.no_grad()
    def probe(self, predict: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> None:
        """Learn from labelled images, at magnitudes anywhere in their range, what a network copes with.

        An item's proximity is 1 − ½ mean |p − one_hot(y)|₁ over its pixels.

        Args:
            predict: images to (items, C, *space) logits.
            images: (items, channels, *space).
            labels: y, (items, *space).
        """
        geometry = self.geometry.draw(len(images), uniform=True)
        photometry = self.photometry.draw(len(images), uniform=True)
        images, labels = distort(images, labels, geometry)
        probabilities = predict(recolor(images, photometry)).float().softmax(1)
        distance = (probabilities - one_hot(labels, probabilities.shape[1])).abs().sum(1)
        proximity = 1 - 0.5 * distance.flatten(1).mean(1)
        self.geometry.update(geometry, proximity)
        self.photometry.update(photometry, proximity)


# Geometry: one map from positions of the result to positions of the image

GEOMETRIES = ("identity", "rescale", "rotate", "shear_x", "shear_y", "translate_x", "translate_y", "cutout")
OUTSIDE = 100.0  # a coordinate that remains beyond the image, which spans −1 to 1, whatever follows


def distort(images: Tensor, labels: Tensor, policy: Policy) -> tuple[Tensor, Tensor]:
    """Apply a policy of `GEOMETRIES` to images, and to the labels of the first of them, sampling each once.

    Zoom by up to 2, rotation by up to 45°, shear and translation (of the size) by up to 0.3, all about the centre,
    and a square hole anywhere with a side of up to half the image's. Beyond the image all is 0, as in a hole.
    """
    x, y = _positions(policy, *images.shape[-2:])
    grid = torch.stack([x, y], 3)

    def sample(values: Tensor, mode: str) -> Tensor:
        planes = values.flatten(1, -3)
        return F.grid_sample(planes, grid[: len(planes)], mode=mode, align_corners=False).view_as(values)

    moved = sample(images, "bilinear")
    if not len(labels):
        return moved, labels
    return moved, sample(labels[:, None].to(images.dtype), "nearest")[:, 0].to(labels.dtype)


def _positions(policy: Policy, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where in the image every pixel of the result lies, two times (items, height, width)."""

    def centers(length: int) -> Tensor:
        return (torch.arange(length, device=policy.magnitudes.device) * 2 + 1) / length - 1

    x, y = centers(width)[None, None], centers(height)[None, :, None]
    operations, magnitudes = policy.placed[..., None, None], policy.magnitudes[..., None, None]
    for level in reversed(range(DEPTH)):  # the last operation is nearest to the result
        x, y = _trace_back(x, y, operations[:, level], magnitudes[:, level], height, width)
    return x, y


def _trace_back(
    x: Tensor, y: Tensor, operation: Tensor, magnitude: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """From positions after an operation to those before it; operation and magnitude are (items, 1, 1)."""
    signed = 2 * magnitude - 1

    def amount(name: str, value: Tensor) -> Tensor:
        return torch.where(operation == GEOMETRIES.index(name), value, 0.0)

    side = amount("cutout", 1 + (0.499 * magnitude * min(height, width)).floor())
    hole_x, hole_y = 2 * torch.rand(2, *magnitude.shape, device=magnitude.device) - 1
    hole = ((x - hole_x).abs() * width < side) & ((y - hole_y).abs() * height < side)
    x = torch.where(hole, OUTSIDE, x)

    angle = amount("rotate", signed * math.pi / 4)
    diagonal = angle.cos() - amount("rescale", 0.5 * magnitude)
    right = (amount("shear_x", 0.3 * signed) - angle.sin()) * height / width
    down = (amount("shear_y", 0.3 * signed) + angle.sin()) * width / height
    shift_x, shift_y = amount("translate_x", 0.6 * signed), amount("translate_y", 0.6 * signed)
    return diagonal * x + right * y + shift_x, down * x + diagonal * y + shift_y


# Photometry: operations on (items, channels, *space) with magnitudes (items, 1, …), named as in Pillow


def recolor(images: Tensor, policy: Policy) -> Tensor:
    """Apply a policy of `PHOTOMETRIES`, each operation only to the items that drew it."""
    operations = list(PHOTOMETRIES.values())
    items = list(images.unbind())
    for level, drawn in enumerate(policy.operations.T.tolist()):
        magnitudes = policy.magnitudes[:, level].view(-1, *[1] * (images.ndim - 1)).unbind()
        for index in set(drawn):
            members = [item for item, operation in enumerate(drawn) if operation == index]
            group = torch.stack([items[item] for item in members])
            changed = operations[index](group, torch.stack([magnitudes[item] for item in members])).clamp(0, 1)
            for item, image in zip(members, changed.unbind(), strict=True):
                items[item] = image
    return torch.stack(items)


def _enhance(base: Tensor, images: Tensor, magnitude: Tensor) -> Tensor:
    """Away from or towards a base image: the factor of the deviation lies between 0.1 and 2."""
    return torch.lerp(base, images, 0.1 + 1.9 * magnitude)


def _gray(images: Tensor) -> Tensor:
    """Luma of colour images, mean over the channels of others; one channel remains."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = images.split(1, 1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _mean(images: Tensor) -> Tensor:
    """Of each item, (items, 1, …)."""
    return images.mean(list(range(1, images.ndim)), keepdim=True)


def _levels(images: Tensor) -> Tensor:
    """Nearest of 256 intensities, as their index."""
    return (images * 255).round().long()


@in_full_precision
def _convolve(images: Tensor, kernel: Tensor) -> Tensor:
    """In-plane convolution of every slice with a square kernel of weights that sum to 1."""
    planes = images.reshape(-1, 1, *images.shape[-2:])
    planes = F.pad(planes, [kernel.shape[0] // 2] * 4, mode="replicate")
    return F.conv2d(planes, kernel[None, None]).view_as(images)


def _smooth(images: Tensor) -> Tensor:
    """3 × 3 mean in which the centre counts five times."""
    kernel = images.new_ones(3, 3)
    kernel[1, 1].fill_(5)
    return _convolve(images, kernel / 13)


def _blur(images: Tensor) -> Tensor:
    """Mean over the rim of 5 × 5 pixels."""
    kernel = images.new_ones(5, 5)
    kernel[1:4, 1:4].fill_(0)
    return _convolve(images, kernel / 16)


def _autocontrast(images: Tensor) -> Tensor:
    """Stretch every channel to the full range; a constant one remains."""
    flat = images.flatten(2)
    low, high = (bound.view(*images.shape[:2], *[1] * (images.ndim - 2)) for bound in (flat.amin(2), flat.amax(2)))
    return torch.where(high > low, (images - low) / (high - low).clamp(min=1e-6), images)


def _equalize(images: Tensor) -> Tensor:
    """Make the histogram of every channel flat, over 256 intensities; a nearly constant one remains."""
    levels = _levels(images).flatten(2).flatten(0, 1)
    histogram = levels.new_zeros(len(levels), 256).scatter_add_(1, levels, torch.ones_like(levels))
    brightest = histogram.gather(1, levels.amax(1, keepdim=True))
    step = (levels.shape[1] - brightest) // 255
    below = histogram.cumsum(1) - histogram
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    equalized = torch.where(step > 0, table.gather(1, levels), levels)
    return (equalized / 255).view_as(images)


def _posterize(images: Tensor, magnitude: Tensor) -> Tensor:
    """Keep the highest 1 to 8 of 8 bits."""
    step = 2 ** (7 - (7.999 * magnitude).floor())
    return (_levels(images) / step).floor() * step / 255


def _solarize(images: Tensor, magnitude: Tensor) -> Tensor:
    """Invert what is brighter than a threshold."""
    return torch.where(255 * images < (255.999 * magnitude).floor(), images, 1 - images)


PHOTOMETRIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "autocontrast": lambda images, m: torch.lerp(images, _autocontrast(images), m),
    "brightness": lambda images, m: images * (0.1 + 1.9 * m),
    "color": lambda images, m: _enhance(_gray(images).expand_as(images), images, m),
    "contrast": lambda images, m: _enhance(_mean(_gray(images)).expand_as(images), images, m),
    "equalize": lambda images, m: torch.lerp(images, _equalize(images), m),
    "invert": lambda images, m: torch.lerp(images, 1 - images, m),
    "posterize": _posterize,
    "solarize": _solarize,
    "smooth": lambda images, m: torch.lerp(images, _smooth(images), m),
    "blur": lambda images, m: torch.lerp(images, _blur(images), m),
    "sharpness": lambda images, m: _enhance(_smooth(images), images, m),
}
