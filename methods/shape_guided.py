"""Shape-guided segmentation: masks of other data say what a class looks like, and no label of these data is seen."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam

from semiseg.discrimination import (
    Compared,
    Pixels,
    binary_entropy,
    field_of_view,
    region_loss,
    region_probabilities,
    turned,
)
from semiseg.losses import one_hot, soft_supervised_loss, sureness, taken_for
from semiseg.method import Batch, Method, Paper, Progress, Stage, Stream, Task
from semiseg.networks import Output
from semiseg.networks.layers import CONVOLUTION
from semiseg.views import blur

WIDTHS = (16, 32, 32, 32, 32)  # of the discriminator
SIDE = 4  # an axis is halved no further
SOFTENED = 1.0  # pixels, of all that it sees: edges and gaps of real masks would tell them from maps


class ShapeGuided(Method):
    """Pixels gather in clusters, as in Local Discrimination; the first ones must look like masks of other data.

    Patches are discriminated first. Then regions are, too, and a discriminator tells the maps of the first C − 1
    clusters, which stand for the classes beside the background, from the masks of the data set `shapes`; nothing pairs
    these with the images. At last a network is trained from scratch on what the clusters say, each pixel by how sure
    they are: this stage is in the paper's figure and not in its public code, and its losses are this suite's.

    Read-outs beside that network are the cluster maps (`map`), and for each pixel the softmax over the regions of its
    own image, or window (`regions`), from which the network learns. As in the public code, what is dark in all channels
    is outside the field of view and background in read-outs; here maps and masks are cut to it for the discriminator,
    too, with a margin, or the rim, a fine line, becomes a vessel. Images are rolled round their borders (`shifted`), or
    patches and regions are told by their place in the window.

    Rates, weights and widths are those of the public code, whose discriminator has the slope 1 (`True`) and knows real
    masks by their sharp edges: here it has 0.2, and sees all blurred. Views alter light alone: the noise of others
    hides what is as faint as a vessel. Adam's rate decays as all do. Second views are turned also with `turns: false`.
    """

    title = "Shape-guided"
    paper = Paper(
        "Unsupervised Local Discrimination for Medical Images",
        "Chen, Wang, Wang, Li, Fang, Li, Bai, Peng, Meng and Wang",
        "IEEE TPAMI 2023",
    )
    networks = 2
    uses_labels = False
    views = ("plain", "weak", "weak-2")
    space: ClassVar = {"clusters": (4, 8), "shape_weight": (0.3, 1.0, 3.0)}
    brief: ClassVar = {"shapes": "tiny"}

    class Config(Method.Config):
        shapes: str = "chase_db1"  # the prepared data set of the masks, in the same folder
        masks: int = Field(16, ge=1)  # of a step
        patches: int = Field(8, ge=1)  # along each axis of an image; in 3D fewer, about as many in all
        dimensions: int = Field(32, ge=2)  # of a pixel's vector
        clusters: int = Field(8, ge=2)
        temperature: float = Field(0.1, gt=0)  # of patches
        region_temperature: float = Field(0.2, gt=0)
        region_weight: float = Field(10.0, ge=0)
        entropy_weight: float = Field(0.1, ge=0)
        shape_weight: float = Field(1.0, ge=0)
        patch_share: float = Field(0.15, ge=0, le=0.4)  # of the steps, before regions are discriminated
        refine_share: float = Field(0.35, gt=0, le=0.5)  # of the steps, for the last stage
        dark: float = Field(0.08, ge=0, le=1)  # less is outside the field of view; 0 where black means nothing
        margin: int = Field(2, ge=0)  # pixels beside what is dark that are outside, too
        shifted: bool = True  # patches and regions cannot be told by their place in the window
        rate: float = Field(1e-3, gt=0)  # of Adam
        adversary_rate: float = Field(0.05, gt=0)  # of the discriminator's Adam, in parts of that rate

    @classmethod
    def streams(cls, config: Config) -> Sequence[Stream]:
        return [Stream("shapes", config.masks, data=config.shapes)]

    def build(self) -> None:
        task, config = self.task, self.config
        clusters = max(config.clusters, task.classes)
        self.pixels = Pixels(self.network(), task.channels, task.size, config.dimensions, clusters)
        self.refined = self.network()
        self.optimize(self.pixels, partial(Adam, lr=config.rate))
        adam = partial(Adam, lr=config.adversary_rate * config.rate)
        self.discriminator = self.adversary(Discriminator(task), adam)

    def stages(self) -> Sequence[Stage]:
        config, first = self.config, self.pixels.parts()
        between = 1 - config.patch_share - config.refine_share
        return [
            Stage(self.patch_losses, "patches", config.patch_share, first),
            Stage(self.losses, "regions", between, [*first, self.pixels.clustering]),
            Stage(self.refine, "refinement", config.refine_share, [self.refined]),
        ]

    def read(self, batch: Batch) -> Compared:
        """Both views."""
        config = self.config
        first, second = batch.images("weak"), batch.images("weak-2")
        return self.pixels.compare(first, second, config.patches, config.temperature, config.shifted)

    def patch_losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """The first stage's: patches, and mixtures."""
        return self.read(batch).losses

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """The second stage's: regions, and shapes."""
        config, views = self.config, self.read(batch)
        clusters = self.pixels.clusters(views.features)
        for number, area in enumerate(clusters.flatten(2).mean((0, 2)), 1):
            self.note(f"cluster_{number}", area)  # that of class 1 is the first
        field = field_of_view(batch.images("plain"), config.dark, config.margin)
        self.field = torch.cat([field, turned(field, views.moves)])
        maps = clusters[:, : self.task.classes - 1] * self.field
        self.maps = maps.detach()
        return views.losses | {
            "regions": config.region_weight * region_loss(views.vectors, clusters, config.region_temperature),
            "entropy": config.entropy_weight * binary_entropy(clusters),
            "shape": config.shape_weight * taken_for(self.discriminator(maps), real=True),
        }

    def adversary_losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        if progress.stage != "regions":
            return {}
        masks = one_hot(batch["shapes"].labels, self.task.classes)[:, 1:]
        masks = masks * self.field[torch.arange(len(masks)) % len(self.field)]  # else maps are told by being cut
        real, made = self.discriminator(masks), self.discriminator(self.maps)
        self.note("discriminator_accuracy", ((real > 0).float().mean() + (made < 0).float().mean()) / 2)
        return {"discriminator": (taken_for(real, real=True) + taken_for(made, real=False)) / 2}

    def refine(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """The last stage's: what the regions of each image say, by how sure they are."""
        images, regions = batch.images("plain"), self.read_out(self.config.region_temperature)
        training = self.pixels.training
        with torch.no_grad():
            leaning, target = regions.eval().read(images)
        self.pixels.train(training)
        weight = sureness(leaning)
        self.note("sureness", weight.mean())
        return {"refinement": soft_supervised_loss(self.refined(images).logits, target, weight)}

    def read_out(self, temperature: float | None) -> "ReadOut":
        """What clusters say, as a network."""
        return ReadOut(self.pixels, self.task.classes, temperature, self.config.dark, self.config.margin)

    def predictors(self) -> dict[str, nn.Module]:
        regions, clusters = self.read_out(self.config.region_temperature), self.read_out(None)
        return {"refined": self.refined, "regions": regions, "map": clusters}


class ReadOut(nn.Module):
    """Classes by the clusters: of the pixel itself, or by a temperature of the regions that it resembles."""

    def __init__(self, pixels: Pixels, classes: int, temperature: float | None, dark: float, margin: int) -> None:
        super().__init__()
        self.pixels, self.classes, self.temperature = pixels, classes, temperature
        self.dark, self.margin = dark, margin

    def read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The shares of clusters (batch, K, *space), and probabilities of classes (batch, C, *space)."""
        vectors, shares = self.pixels(images)
        field = field_of_view(images, self.dark, self.margin)
        if self.temperature is not None:
            shares = region_probabilities(vectors, shares * field, self.temperature)
        classes = shares[:, : self.classes - 1] * field  # the first clusters; all others are the background
        return shares, torch.cat([1 - classes.sum(1, keepdim=True), classes], 1)

    def forward(self, images: Tensor) -> Output:
        return Output(self.read(images)[1].clamp(min=1e-8).log())


class Discriminator(nn.Module):
    """Tells real masks from cluster maps, (batch, C − 1, *space): a logit for each."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        convolution, pool = CONVOLUTION[task.dims], nn.MaxPool2d if task.dims == 2 else nn.MaxPool3d
        layers: list[nn.Module] = []
        inputs, size = task.classes - 1, task.size
        for width in WIDTHS:
            kernel = tuple(2 if length >= 2 * SIDE else 1 for length in size)
            layers += [convolution(inputs, width, 3, padding=1), nn.LeakyReLU(0.2), pool(kernel)]
            inputs, size = width, tuple(length // k for length, k in zip(size, kernel, strict=True))
        for _ in range(2):
            layers += [convolution(inputs, inputs, 3, padding=1), nn.LeakyReLU(0.2)]
        self.features = nn.Sequential(*layers)
        self.judge = nn.Sequential(nn.Linear(inputs, inputs), nn.LeakyReLU(0.2), nn.Linear(inputs, 1))

    def forward(self, maps: Tensor) -> Tensor:
        maps = blur(maps, maps.new_full((len(maps),), SOFTENED), 5)
        return self.judge(self.features(maps).flatten(2).mean(2))[:, 0].float()
