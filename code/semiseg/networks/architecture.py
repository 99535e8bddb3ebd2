"""What a file of networks offers: by each name, how a network is built and where its weights may come from."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from semiseg.networks.encoder_decoder import EncoderDecoder

Size = tuple[int, ...]


class Architecture(NamedTuple):
    """How a network is built for (channels, classes, size of the images), and started from a file of weights.

    A file of networks has them by name in a dictionary called ARCHITECTURES.
    """

    dims: tuple[int, ...]  # 2 for images, 3 for volumes
    build: Callable[[int, int, Size], EncoderDecoder]
    load_weights: Callable[[EncoderDecoder, Path], None] | None = None
    packages: Mapping[str, str] = MappingProxyType({})  # by name of weights, the package that has them: name==version


def any_size(build: Callable[[int, int], EncoderDecoder]) -> Callable[[int, int, Size], EncoderDecoder]:
    """A network whose layers do not depend on the size of the images."""
    return lambda channels, classes, size: build(channels, classes)
