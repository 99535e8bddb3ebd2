"""Landmark Matching: vectors of pixels, learned without labels, find in new images what one labelled image marks."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from semiseg.discrimination import Pixels
from semiseg.losses import in_full_precision
from semiseg.method import Batch, Method, Paper, Progress, Stream
from semiseg.networks import Output

SUPPORT, OTHERS = "support", "others"


class LandmarkMatching(Method):
    """One-shot localization by Local Discrimination: patches of all training images are told apart, without any label.

    The vectors of the labelled image are averaged around each landmark, weighted by a Gaussian; a landmark of another
    image lies where its own averaged vectors resemble those most. With more than one labelled image the first that is
    drawn is the only one that is used. There is no public code of this part, and the paper states neither size nor
    width of the window: here sigma is a 32nd of the image's longer side, and the window reaches two sigma either way.
    The same vectors with even weights in that window (`even`) and without a window (`pixels`) are read out, too. Of an
    image a weak and a strong view are discriminated, which are neither turned nor flipped, since a landmark may have a
    partner on the other side. Nor are they rolled, although Local Discrimination rolls its views so that zeros beyond
    the border do not give the place away: of films that are all taken alike, part of what a vector knows may be its
    place. Beside it stands template matching by normalized correlation, the bound from below.
    """

    title = "Landmark Matching"
    paper = Paper(
        "Unsupervised Local Discrimination for Medical Images",
        "Chen, Wang, Wang, Li, Fang, Li, Bai, Peng, Meng and Wang",
        "IEEE TPAMI 2023",
    )
    learns = "localization"
    supervised = False
    space: ClassVar = {"patches": (6, 8, 16), "temperature": (0.1, 0.2)}

    class Config(Method.Config):
        images: int = Field(4, ge=2)  # of a step, labelled or not
        patches: int = Field(8, ge=1)  # along each axis of an image
        dimensions: int = Field(32, ge=2)  # of a pixel's vector
        temperature: float = Field(0.1, gt=0)
        rate: float = Field(1e-3, gt=0)  # of Adam
        sigma: float = Field(1 / 32, gt=0)  # of the Gaussian around a landmark, as a share of the longer side
        template: float = Field(1 / 8, gt=0)  # side of a template, likewise

    @classmethod
    def streams(cls, config: "LandmarkMatching.Config") -> Sequence[Stream]:
        return [Stream(SUPPORT, 1, "labeled", still=True), Stream(OTHERS, config.images, views=("weak", "strong"))]

    def build(self) -> None:
        task, config = self.task, self.config
        self.pixels = Pixels(self.network(), task.channels, task.size, config.dimensions, 2)
        self.pixels.clustering.requires_grad_(False)  # patches alone are told apart
        self.optimize(self.pixels, partial(Adam, lr=config.rate))
        self.image = nn.Buffer(torch.zeros(1, task.channels, *task.size))
        self.points = nn.Buffer(torch.zeros(task.classes - 1, 2))

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        if progress.step == 0:
            support = batch[SUPPORT]
            self.image.copy_(support.images())
            self.points.copy_(support.labels[0])
        config = self.config
        others = batch[OTHERS]
        return self.pixels.compare(
            others.images("weak"), others.images("strong"), config.patches, config.temperature, turns=False
        ).losses

    def predictors(self) -> dict[str, nn.Module]:
        config, longest = self.config, max(self.task.size)
        window = bell(config.sigma * longest)
        windows = {"vectors": window, "even": torch.full_like(window, 1 / len(window)), "pixels": torch.ones(1)}
        read = {name: Similarity(self.pixels, self.image, self.points, window) for name, window in windows.items()}
        return {**read, "templates": Templates(self.image, self.points, round(config.template * longest))}


class Similarity(nn.Module):
    """How much averaged vectors of an image resemble those at the landmarks of another."""

    def __init__(self, pixels: Pixels, image: Tensor, points: Tensor, window: Tensor) -> None:
        super().__init__()
        self.pixels, self.support, self.points = pixels, image, points
        self.window = window  # weights along each axis, of odd length

    def forward(self, images: Tensor) -> Output:
        sought, there = (averaged(self.pixels(x)[0], self.window) for x in (self.support, images))
        marked = F.grid_sample(sought, self.points.flip(-1)[None, None], align_corners=False)[0, :, 0]
        maps = torch.einsum("dk,bdyx->bkyx", F.normalize(marked, dim=0), there)
        return Output(torch.cat([torch.zeros_like(maps[:, :1]), maps], 1))


class Templates(nn.Module):
    """How much squares of an image resemble those around the landmarks of another."""

    def __init__(self, image: Tensor, points: Tensor, side: int) -> None:
        super().__init__()
        self.support, self.points, self.side = image, points, side + 1 - side % 2

    def forward(self, images: Tensor) -> Output:
        reach = torch.arange(self.side, device=images.device) - self.side // 2
        places = []
        for axis, length in enumerate(self.support.shape[2:]):
            places.append(((self.points[:, axis, None] + 1) * length / 2 - 0.5 + reach + 0.5) * 2 / length - 1)
        grid = torch.stack(torch.broadcast_tensors(places[1][:, None], places[0][:, :, None]), -1)
        supports = self.support.expand(len(grid), -1, -1, -1)
        templates = F.grid_sample(supports, grid, padding_mode="border", align_corners=False)
        maps = correlation(images, templates)
        return Output(torch.cat([torch.zeros_like(maps[:, :1]), maps], 1))


def bell(sigma: float) -> Tensor:
    """A Gaussian that is cut at 2 σ, with the sum 1."""
    reach = max(1, round(2 * sigma))
    return (-0.5 * (torch.arange(-reach, reach + 1) / sigma).square()).softmax(0)


@in_full_precision
def averaged(vectors: Tensor, window: Tensor) -> Tensor:
    """Unit vectors of (batch, D, height, width), each the mean of those around it by the weights along each axis."""
    weights = window.to(vectors).expand(vectors.shape[1], 1, 1, -1)
    padded = F.pad(vectors, [len(window) // 2] * 4, mode="replicate")
    smooth = F.conv2d(F.conv2d(padded, weights, groups=len(weights)), weights.mT, groups=len(weights))
    return F.normalize(smooth, dim=1)


@in_full_precision
def correlation(images: Tensor, templates: Tensor) -> Tensor:
    """Normalized correlation (batch, K, height, width) of templates (K, channels, side, side) with images everywhere.

    Σ (t − t̄)(x − x̄) / √(Σ (t − t̄)² Σ (x − x̄)²) over the window x around a pixel; borders are repeated.
    """
    side, number = templates.shape[-1], templates[0].numel()
    padded = F.pad(images, [side // 2] * 4, mode="replicate")
    centred = templates - templates.mean((1, 2, 3), keepdim=True)
    centred = F.normalize(centred.flatten(1), dim=1).view_as(centred)
    box = torch.ones(1, *templates.shape[1:], device=images.device)
    total, squares = F.conv2d(padded, box), F.conv2d(padded.square(), box)
    spread = (squares - total.square() / number).clamp(min=1e-4)
    return F.conv2d(padded, centred) / spread.sqrt()
