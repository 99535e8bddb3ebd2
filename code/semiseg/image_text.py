"""Images and texts that belong together: encoders of both, critics of pairs, and bounds on mutual information."""

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from math import log
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semiseg import minilm
from semiseg.losses import in_full_precision
from semiseg.texts import sentences

PAD, START, WORDS = 0, 1, 4096  # two numbers with a meaning, and how many stand for words


@lru_cache(maxsize=65536)
def word_number(word: str) -> int:
    """A word's number. It is a hash: with no vocabulary to be fitted, nothing of a test text can be in one."""
    return 2 + int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big") % WORDS


def tokens(texts: Sequence[str], length: int) -> Tensor:
    """Numbers of the words of texts in lower case after a start sign, (texts, length) or less if all are shorter.

    Texts are padded, or cut, at the end.
    """
    found = [[START, *(word_number(word) for word in re.findall(r"\w+", text.lower()))][:length] for text in texts]
    longest = max(map(len, found))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in found])


class TextEncoder(nn.Module):
    """A small transformer: a vector for each text."""

    def __init__(self, width: int = 128, layers: int = 2, heads: int = 4, length: int = 192) -> None:
        super().__init__()
        self.length = length
        self.words = nn.Embedding(WORDS + 2, width, padding_idx=PAD)
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.1, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.pool = nn.Linear(width, width)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """(texts, width)."""
        numbers = tokens(texts, self.length).to(self.positions.device, non_blocking=True)
        words = self.words(numbers) + self.positions[: numbers.shape[1]]
        read = self.layers(words, src_key_padding_mask=numbers == PAD)
        pooled: Tensor = self.pool(read[:, 0]).tanh()
        return pooled


class SentenceEncoder(nn.Module):
    """A published encoder of sentences, which stays as it is, and a last layer that is trained."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.pool = nn.Linear(minilm.published().encoder.width, width)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """(texts, width)."""
        vectors = torch.stack([minilm.sentence_vector(text) for text in texts])
        pooled: Tensor = self.pool(vectors.to(self.pool.weight.device, non_blocking=True)).tanh()
        return pooled


TEXTS = {"hashed": TextEncoder, "minilm": SentenceEncoder}


class SeparableCritic(nn.Module):
    """The cosine of what two linear maps make of image and text, over a temperature that is learned."""

    def __init__(self, image: int, text: int, width: int = 128, temperature: float = 0.07) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(image, width), nn.Linear(text, width)
        self.sharpness = nn.Parameter(torch.tensor(-log(temperature)))

    def forward(self, images: Tensor, texts: Tensor) -> Tensor:
        """Scores (N, places, M) of vectors (N, places, image) and (M, text)."""
        return scaled_cosine(self.image(images), self.text(texts), self.sharpness)


@in_full_precision
def scaled_cosine(images: Tensor, texts: Tensor, sharpness: Tensor) -> Tensor:
    """e^s cos(a, b) for vectors a (N, places, D) and b (M, D); in half precision many scores would be the same."""
    return F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T * sharpness.exp()


class JointCritic(nn.Module):
    """A perceptron on image and text side by side, as published."""

    def __init__(self, image: int, text: int, width: int = 256) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(image, width), nn.Linear(text, width, bias=False)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(width, width // 2), nn.ReLU(), nn.Linear(width // 2, 1))

    @in_full_precision  # as of the other critic: in half precision many scores would be the same
    def forward(self, images: Tensor, texts: Tensor) -> Tensor:
        """The same; a layer on two vectors side by side is the sum of a layer on each."""
        pairs = self.image(images)[:, :, None] + self.text(texts)[None, None]
        scores: Tensor = self.rest(pairs)[..., 0]
        return scores


CRITICS = {"separable": SeparableCritic, "joint": JointCritic}


class Pairing(nn.Module):
    """Scores how well texts fit images, as a whole or by the place of an image that fits best.

    Args:
        encoder: maps images to feature maps, of which the last is read.
        channels: of that map.
        critic: one of `CRITICS`.
        local: score every place instead of the mean over all.
        text: one of `TEXTS`.
    """

    def __init__(self, encoder: nn.Module, channels: int, critic: str, local: bool, text: str = "hashed") -> None:
        super().__init__()
        self.encoder, self.local = encoder, local
        self.text = TEXTS[text]()
        self.critic = CRITICS[critic](channels, self.text.pool.out_features)

    def places(self, images: Tensor) -> Tensor:
        """Vectors (N, places, channels)."""
        vectors: Tensor = self.encoder(images)[-1].flatten(2).mT
        return vectors if self.local else vectors.mean(1, keepdim=True)

    def forward(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """Scores (N, M); where places are scored, the mean over a text's sentences of the best place's."""
        vectors = self.places(images)
        if not self.local:
            scores: Tensor = self.critic(vectors, self.text(texts))[:, 0].float()
            return scores
        parts = [sentences(text) for text in texts]
        best = self.critic(vectors, self.text([s for part in parts for s in part])).amax(1).float()
        return torch.stack([scores.mean(1) for scores in best.split([len(part) for part in parts], 1)], 1)

    def locate(self, images: Tensor, told: Sequence[str]) -> Tensor:
        """How well each place of an image fits the sentence of the same number, (N, *grid)."""
        grid = self.encoder(images)[-1]
        scores = self.critic(grid.flatten(2).mT, self.text(told))
        own = scores[torch.arange(len(images)), :, torch.arange(len(images))]
        return own.view(len(images), *grid.shape[2:]).float()

    def told(self, texts: Sequence[str]) -> list[str]:
        """What of texts is learned from at once: the whole, or one sentence of each, drawn."""
        if not self.local:
            return [*texts]
        parts = [sentences(text) for text in texts]
        return [part[int(torch.randint(len(part), ()))] for part in parts]

    def of_batch(self, images: Tensor, told: Sequence[str], select: Literal["positive", "both"]) -> Tensor:
        """Scores (N, N) to learn from: of whole images, or of one place of each for a sentence.

        The place is the best for the image's own sentence, or the best for each sentence.
        """
        everywhere = self.critic(self.places(images), self.text(told))
        if select == "both":
            best: Tensor = everywhere.amax(1)
            return best
        number = torch.arange(len(images), device=images.device)
        place = everywhere[number, :, number].detach().argmax(1)
        own: Tensor = everywhere[number, place]
        return own


def admitted(studies: Sequence[str], texts: Sequence[str], told: Sequence[str]) -> Tensor:
    """Which pairs (N, N) count: an image with what is told of it, and with what is told of others and not in its text.

    What is told is the text of the same number, or a sentence of it.
    """
    said = [{text, *sentences(text)} for text in texts]
    rows = [
        [i == j or (study != studies[j] and other not in said[i]) for j, other in enumerate(told)]
        for i, study in enumerate(studies)
    ]
    return torch.tensor(rows)


@in_full_precision
def infonce(scores: Tensor, counts: Tensor) -> Tensor:
    """−(1/N) Σ_i [S_ii − ln Σ_j m_ij e^{S_ij}], in the mean with that of Sᵀ; ln N less this bounds what is shared."""
    own = torch.arange(len(scores), device=scores.device)
    masked = scores.masked_fill(~counts, -torch.inf)
    return (F.cross_entropy(masked, own) + F.cross_entropy(masked.T, own)) / 2


@in_full_precision
def donsker_varadhan(scores: Tensor, counts: Tensor) -> Tensor:
    """−(1/N) Σ_i S_ii + ln mean of e^{S_ij} over the pairs i ≠ j that count; without any, nothing is learned."""
    others = counts & ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    number = others.sum()
    mean = scores.masked_fill(~others, -1e30).flatten().logsumexp(0) - number.clamp(min=1).log()
    return torch.where(number > 0, mean - scores.diagonal().mean(), 0 * scores.sum())


@in_full_precision
def jensen_shannon_bound(scores: Tensor, counts: Tensor) -> Tensor:
    """mean softplus(−S_ii) + mean softplus(S_ij) over the pairs i ≠ j that count."""
    others = counts & ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    return F.softplus(-scores.diagonal()).mean() + (F.softplus(scores) * others).sum() / others.sum().clamp(min=1)


OBJECTIVES = {"infonce": infonce, "dv": donsker_varadhan, "jsd": jensen_shannon_bound}
