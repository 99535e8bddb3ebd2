"""Tells patches, and regions that form by themselves, apart: vectors and clusters of pixels, and their losses."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semiseg.losses import in_full_precision, rows
from semiseg.networks import EncoderDecoder, predict
from semiseg.networks.layers import ADAPTIVE_POOL, BATCH_NORM, CONVOLUTION, LINEAR, MAX_POOL


class Compared(NamedTuple):
    """Two views of the same images, read: losses of their patches, and what is known of every pixel."""

    losses: dict[str, Tensor]
    moves: Tensor  # how pixels of the second view lie: `turned(x, moves)` is x as it is there
    vectors: Tensor  # (2 · batch, D, *space), unit vectors
    features: Tensor  # (2 · batch, channels, *space)


class Pixels(nn.Module):
    """Unit vectors of all pixels, and their shares in clusters, both from the finest features of a network."""

    def __init__(
        self, network: EncoderDecoder, channels: int, size: tuple[int, ...], dimensions: int, clusters: int
    ) -> None:
        super().__init__()
        self.network = network
        network.head.requires_grad_(False)  # nothing here reads its classes
        width = predict(network, torch.zeros(1, channels, *size)).decoder[-1].shape[1]
        self.embedding = branch(len(size), width, dimensions)
        self.clustering = branch(len(size), width, clusters)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (batch, D, *space), and clusters (batch, K, *space), which sum to 1 over K."""
        features = self.features(images)
        return self.vectors(features), self.clusters(features)

    def features(self, images: Tensor) -> Tensor:
        """The finest features of the network, (batch, channels, *space), whatever stride they have in it."""
        features: Tensor = self.network(images).decoder[-1]
        if features.shape[2:] != images.shape[2:]:
            features = F.interpolate(features, images.shape[2:], mode=LINEAR[images.ndim - 2])
        return features

    def vectors(self, features: Tensor) -> Tensor:
        """Unit vectors of features."""
        return F.normalize(self.embedding(features).float(), dim=1)

    def clusters(self, features: Tensor) -> Tensor:
        """Shares in clusters of features."""
        return F.normalize(self.clustering(features).float().sigmoid(), p=1, dim=1)

    def parts(self) -> list[nn.Module]:
        """What learns to discriminate patches."""
        return [self.network.encoder, self.network.decoder, self.embedding]

    def compare(
        self,
        first: Tensor,
        second: Tensor,
        patches: int,
        temperature: float,
        shifted: bool = False,
        turns: bool = True,
    ) -> Compared:
        """Discriminate the patches of two views of images, and those of mixtures of the first view's images.

        The second view is turned and flipped, unless `turns` is off, and its patches are turned back.

        Args:
            first: (batch, channels, *space).
            second: the same.
            patches: along each axis of an image; in 3D fewer, about as many in all.
            temperature: of the comparison.
            shifted: roll everything round its borders by random numbers of pixels, and its features back. Else a
                network that pads with zeros can tell patches, and regions, by their place in the window alone.
        """
        moves = (torch.rand(3, len(first), device=first.device) < 0.5) & turns
        moves[0] &= first.shape[-1] == first.shape[-2]  # else a quarter turn would not fit
        share = 0.2 + 0.6 * torch.rand(len(first), *[1] * (first.ndim - 1), device=first.device)
        images = torch.cat([first, turned(second, moves), share * first + (1 - share) * first.roll(1, 0)])
        if shifted:
            offsets = torch.stack([torch.randint(side, (len(images),)) for side in images.shape[2:]], 1)
            features = rolled(self.features(rolled(images, offsets)), -offsets)
        else:
            features = self.features(images)
        vectors = self.vectors(features)
        a, b, mixed = (mean_patches(v, patches) for v in vectors.chunk(3))
        b = turned(b, moves, back=True)
        with torch.no_grad():
            target = F.normalize(share * a + (1 - share) * a.roll(1, 0), dim=1)
        losses = {
            "patches": discrimination_loss(rows(a), rows(b), temperature),
            "mixtures": discrimination_loss(rows(mixed), rows(target), temperature),
        }
        return Compared(losses, moves, vectors[: 2 * len(first)], features[: 2 * len(first)])


def field_of_view(images: Tensor, dark: float, margin: int) -> Tensor:
    """1 where a channel of (batch, channels, *space) reaches the threshold, and so around it; (batch, 1, *space)."""
    outside = (images.amax(1, keepdim=True) < dark).float()
    in_plane = (0,) * (images.ndim - 4) + (margin, margin)
    widest: Tensor = MAX_POOL[images.ndim - 2](tuple(2 * m + 1 for m in in_plane), 1, in_plane)(outside)
    return 1 - widest


def branch(dims: int, inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions on the finest features."""
    convolution = CONVOLUTION[dims]
    first = [convolution(inputs, outputs, 3, padding=1), BATCH_NORM[dims](outputs), nn.ReLU()]
    return nn.Sequential(*first, convolution(outputs, outputs, 3, padding=1))


def mean_patches(vectors: Tensor, patches: int) -> Tensor:
    """Mean unit vectors of (batch, D, *space) in a grid of about patches² cells."""
    dims = vectors.ndim - 2
    grid = [min(round(patches ** (2 / dims)), side) for side in vectors.shape[2:]]
    return F.normalize(ADAPTIVE_POOL[dims](tuple(grid))(vectors), dim=1)


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


def rolled(images: Tensor, offsets: Tensor) -> Tensor:
    """Every image (channels, *space) by its own row of (batch, axes) numbers of pixels, round the borders."""
    axes = tuple(range(1, images.ndim - 1))
    return torch.stack([image.roll(row, axes) for image, row in zip(images, offsets.tolist(), strict=True)])


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
def region_vectors(vectors: Tensor, clusters: Tensor) -> Tensor:
    """The mean direction of every cluster in every image, (batch, K, D): the unit of Σ_p A_k(p) f(p)."""
    return F.normalize(torch.einsum("bkp,bdp->bkd", clusters.flatten(2), vectors.flatten(2)), dim=2)


@in_full_precision
def region_loss(vectors: Tensor, clusters: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of telling, in each image, which cluster a region's mean direction belongs to.

    r_xk = unit of mean_p A_xk(p) f_x(p) for image x and cluster k, m_k = unit of mean_x r_xk:
    −mean ln softmax_j(r_xk · m_j / T) at j = k.

    Args:
        vectors: f, (batch, D, *space).
        clusters: A, (batch, K, *space), sums to 1 over K.
    """
    regions = region_vectors(vectors, clusters)
    prototypes = F.normalize(regions.mean(0), dim=1)
    scores = (regions @ prototypes.T / temperature).flatten(0, 1)
    return F.cross_entropy(scores, torch.arange(clusters.shape[1], device=scores.device).repeat(len(regions)))


@in_full_precision
def binary_entropy(probabilities: Tensor) -> Tensor:
    """−p log₂ p − (1 − p) log₂(1 − p) in bits, mean over everything."""
    p = probabilities.clamp(1e-6, 1 - 1e-6)
    return -(p * p.log2() + (1 - p) * (1 - p).log2()).mean()


@in_full_precision
def region_probabilities(vectors: Tensor, clusters: Tensor, temperature: float) -> Tensor:
    """softmax_k(r_k · f(p) / T), (batch, K, *space), with the mean directions r of this image's own clusters."""
    scores = torch.einsum("bkd,bdp->bkp", region_vectors(vectors, clusters), vectors.flatten(2))
    return (scores / temperature).softmax(1).view_as(clusters)
