"""Local Discrimination, a start: patches, and regions that form by themselves, are told apart without any label."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from semiseg.losses import in_full_precision, rows
from semiseg.method import Batch, Paper, Progress, Stage, predict
from semiseg.networks import EncoderDecoder
from semiseg.networks.layers import BATCH_NORM, CONVOLUTION
from semiseg.start import Start


class LocalDiscrimination(Start):
    """A unit vector for every pixel; patches of two views of an image agree, and all others are pushed apart.

    First patches are discriminated, and mixtures of two images from the mixtures of their patches; then pixels gather
    in clusters, too, whose mean directions are to be told apart in every image. The encoder is handed on, as in the
    paper, or encoder and decoder. The suite's network takes the place of the paper's VGG, and its views and geometry
    that of its augmentation; the second view is turned and flipped besides, and its patches are turned back.

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
        handed: Literal["encoder", "all"] = "encoder"  # all: the decoder too, but for the last layer

    def build(self) -> None:
        task, config = self.task, self.config
        self.model: EncoderDecoder = self.network()
        self.model.head.requires_grad_(False)  # nothing here reads its classes
        trial = predict(self.model, torch.zeros(1, task.channels, *task.size))
        channels = trial.decoder[-1].shape[1]
        self.embedding = branch(task.dims, channels, config.dimensions)
        self.clustering = branch(task.dims, channels, config.clusters)
        for module in (self.model, self.embedding, self.clustering):
            self.optimize(module, partial(Adam, lr=config.rate))

    def stages(self) -> Sequence[Stage]:
        share, first = self.config.patch_share, [self.model.encoder, self.model.decoder, self.embedding]
        return [
            Stage(self.patch_losses, "patches", share, first),
            Stage(self.losses, "regions", 1 - share, [*first, self.clustering]),
        ]

    def patch_losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """The first stage's: patches, and mixtures."""
        return self.read(batch)[0]

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        losses, vectors, features = self.read(batch)
        clusters = F.normalize(self.clustering(features).float().sigmoid(), p=1, dim=1)
        self.note("largest_cluster", clusters.flatten(2).mean((0, 2)).max())
        config = self.config
        return losses | {
            "regions": config.region_weight * region_loss(vectors, clusters, config.region_temperature),
            "entropy": config.entropy_weight * binary_entropy(clusters),
        }

    def read(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The losses of patches and mixtures; and vectors and features of every pixel in both views."""
        first, second = batch.images("strong"), batch.images("strong-2")
        moves = torch.rand(3, len(first), device=first.device) < 0.5
        moves[0] &= first.shape[-1] == first.shape[-2]  # else a quarter turn would not fit
        share = 0.2 + 0.6 * torch.rand(len(first), *[1] * (first.ndim - 1), device=first.device)
        images = torch.cat([first, turned(second, moves), share * first + (1 - share) * first.roll(1, 0)])
        features = self.model(images).decoder[-1]
        vectors = F.normalize(self.embedding(features).float(), dim=1)
        a, b, mixed = (self.patches(v) for v in vectors.chunk(3))
        b = turned(b, moves, back=True)
        with torch.no_grad():
            target = F.normalize(share * a + (1 - share) * a.roll(1, 0), dim=1)
        temperature, number = self.config.temperature, 2 * len(first)
        losses = {
            "patches": discrimination_loss(rows(a), rows(b), temperature),
            "mixtures": discrimination_loss(rows(mixed), rows(target), temperature),
        }
        return losses, vectors[:number], features[:number]

    def patches(self, vectors: Tensor) -> Tensor:
        """Mean unit vectors of (batch, D, *space) in a grid of patches."""
        along = round(self.config.patches ** (2 / self.task.dims))
        grid = [min(along, side) for side in vectors.shape[2:]]
        pool = nn.AdaptiveAvgPool2d if self.task.dims == 2 else nn.AdaptiveAvgPool3d
        return F.normalize(pool(tuple(grid))(vectors), dim=1)

    def handed_on(self) -> dict[str, Tensor]:
        parts = ("encoder",) if self.config.handed == "encoder" else ("encoder", "decoder")
        return {k: v for k, v in self.model.state_dict().items() if k.startswith(parts)}


def branch(dims: int, inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions on the finest features."""
    convolution = CONVOLUTION[dims]
    first = [convolution(inputs, outputs, 3, padding=1), BATCH_NORM[dims](outputs), nn.ReLU()]
    return nn.Sequential(*first, convolution(outputs, outputs, 3, padding=1))


def turned(images: Tensor, moves: Tensor, back: bool = False) -> Tensor:
    """Exchange the axes in plane, and mirror one and the other: all turns and flips by which an image covers itself.

    Args:
        images: (batch, channels, *space).
        moves: (3, batch), which of these three each image undergoes.
        back: undo them.
    """
    ways = [lambda v: v.transpose(-1, -2), lambda v: v.flip(-1), lambda v: v.flip(-2)]
    for way, chosen in reversed([*zip(ways, moves, strict=True)]) if back else zip(ways, moves, strict=True):
        altered = way(images)
        if altered.shape == images.shape:
            images = torch.where(chosen.view(-1, *[1] * (images.ndim - 1)), altered, images)
    return images


@in_full_precision
def discrimination_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Tell every row's partner, the same row of the other set, from all other rows of both.

    −(1/N) Σ_i [ln P_i,pos(i) + Σ_j≠i,pos(i) ln(1 − P_ij)], P_ij = e^{x_i · x_j / T} / Σ_k≠i e^{x_i · x_k / T}; rows get
    their gradient as x_i alone.
    """
    x = torch.cat([first, second])
    number = len(x)
    itself = torch.eye(number, dtype=torch.bool, device=x.device)
    log_p = (x @ x.detach().T / temperature).masked_fill(itself, -1e9).log_softmax(1)
    partner = torch.arange(number, device=x.device).roll(number // 2)[:, None]
    others = torch.log1p(-log_p.exp().clamp(max=1 - 1e-6)).scatter(1, partner, 0.0)
    return -(log_p.gather(1, partner).sum() + others.sum()) / number


@in_full_precision
def region_loss(vectors: Tensor, clusters: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of telling, in each image, which cluster a region's mean direction belongs to.

    r_xk = unit of mean_p A_xk(p) f_x(p) for image x and cluster k, m_k = unit of mean_x r_xk:
    −mean ln softmax_j(r_xk · m_j / T) at j = k.

    Args:
        vectors: f, (batch, D, *space).
        clusters: A, (batch, K, *space), sums to 1 over K.
    """
    regions = F.normalize(torch.einsum("bkp,bdp->bkd", clusters.flatten(2), vectors.flatten(2)), dim=2)
    prototypes = F.normalize(regions.mean(0), dim=1)
    scores = (regions @ prototypes.T / temperature).flatten(0, 1)
    return F.cross_entropy(scores, torch.arange(clusters.shape[1], device=scores.device).repeat(len(regions)))


@in_full_precision
def binary_entropy(probabilities: Tensor) -> Tensor:
    """−p log₂ p − (1 − p) log₂(1 − p) in bits, mean over everything."""
    p = probabilities.clamp(1e-6, 1 - 1e-6)
    return -(p * p.log2() + (1 - p) * (1 - p).log2()).mean()
