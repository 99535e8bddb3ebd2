"""Local Discrimination, a start: patches, and regions that form by themselves, are told apart without any label."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.optim import Adam

from semiseg.discrimination import Compared, Pixels, binary_entropy, region_loss
from semiseg.method import Batch, Paper, Progress, Stage
from semiseg.start import Start


class LocalDiscrimination(Start):
    """A unit vector for every pixel; patches of two views of an image agree, and all others are pushed apart.

    First patches are discriminated, and mixtures of two images from the mixtures of their patches; then pixels gather
    in clusters, too, whose mean directions are to be told apart in every image. The encoder is handed on, as in the
    paper, or encoder and decoder. The suite's network takes the place of the paper's VGG, and its views and geometry
    that of its augmentation; the second view is turned and flipped besides, where the benchmark turns images, and its
    patches are turned back. Images are rolled round their borders (`shifted`), or patches and regions are told by their
    place in the window, which zero padding shows.

    The public code turns by 180° where it means to flip, which is mended here: turns and flips make all eight cases.
    Its two trainings (20 and 80 epochs) are stages with these shares. Adam halves its rate every ten epochs there, and
    follows the benchmark's decay here. The area term that keeps clusters of a size is never used there and left out.
    """

    title = "Local Discrimination"
    paper = Paper(
        "Unsupervised Learning of Local Discriminative Representation for Medical Images",
        "Chen, Li, Wang, Huang, Meng, Meng, Peng and Wang",
        "IPMI 2021",
    )
    networks = 1
    views = ("strong", "strong-2")
    space: ClassVar = {"patches": (6, 8), "temperature": (0.1, 0.2)}

    class Config(Start.Config):
        patches: int = Field(8, ge=1)  # along each axis of an image; in 3D fewer, about as many in all
        dimensions: int = Field(32, ge=2)  # of a pixel's vector
        clusters: int = Field(16, ge=2)
        temperature: float = Field(0.1, gt=0)  # of patches
        region_temperature: float = Field(0.2, gt=0)
        region_weight: float = Field(10.0, ge=0)
        entropy_weight: float = Field(0.1, ge=0)
        patch_share: float = Field(0.2, ge=0, le=1)  # of the steps, before regions are discriminated
        rate: float = Field(1e-3, gt=0)  # of Adam
        shifted: bool = True  # patches and regions cannot be told by their place in the window
        handed: Literal["encoder", "all"] = "encoder"  # all: the decoder too, but for the last layer

    def build(self) -> None:
        task, config = self.task, self.config
        self.pixels = Pixels(self.network(), task.channels, task.size, config.dimensions, config.clusters)
        self.optimize(self.pixels, partial(Adam, lr=config.rate))

    def stages(self) -> Sequence[Stage]:
        share, first = self.config.patch_share, self.pixels.parts()
        return [
            Stage(self.patch_losses, "patches", share, first),
            Stage(self.losses, "regions", 1 - share, [*first, self.pixels.clustering]),
        ]

    def patch_losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """The first stage's: patches, and mixtures."""
        return self.read(batch).losses

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        config, views = self.config, self.read(batch)
        clusters = self.pixels.clusters(views.features)
        self.note("largest_cluster", clusters.flatten(2).mean((0, 2)).max())
        return views.losses | {
            "regions": config.region_weight * region_loss(views.vectors, clusters, config.region_temperature),
            "entropy": config.entropy_weight * binary_entropy(clusters),
        }

    def read(self, batch: Batch) -> Compared:
        """Both views."""
        config, (first, second) = self.config, (batch.images(view) for view in self.views)
        return self.pixels.compare(first, second, config.patches, config.temperature, config.shifted, self.task.turns)

    def handed_on(self) -> dict[str, Tensor]:
        parts = ("encoder",) if self.config.handed == "encoder" else ("encoder", "decoder")
        return {k: v for k, v in self.pixels.network.state_dict().items() if k.startswith(parts)}
