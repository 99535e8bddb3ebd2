"""Segmentation networks by name; all of them return the same small tuple."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from semiseg.errors import UserError
from semiseg.networks.attention_unet import attention_unet
from semiseg.networks.encoder_decoder import EncoderDecoder, Output
from semiseg.networks.enet import enet
from semiseg.networks.initialization import Scheme, initialize
from semiseg.networks.nnunet import nnunet
from semiseg.networks.pnet import pnet
from semiseg.networks.res2net import load_imagenet as load_imagenet_res2net
from semiseg.networks.res2net import res2net_unet
from semiseg.networks.swin_unet import load_imagenet as load_imagenet_swin
from semiseg.networks.swin_unet import swin_unet
from semiseg.networks.unet import unet
from semiseg.networks.unet_3d import unet_3d
from semiseg.networks.vnet import vnet
from semiseg.networks.voxresnet import voxresnet

__all__ = [
    "NETWORKS",
    "EncoderDecoder",
    "Output",
    "Scheme",
    "build_network",
    "initialize",
    "network_names",
    "scaled_like",
]


Size = tuple[int, ...]


class Architecture(NamedTuple):
    """How a network is built for (channels, classes, size of the images), and started from a file of weights."""

    dims: tuple[int, ...]  # 2 for images, 3 for volumes
    build: Callable[[int, int, Size], EncoderDecoder]
    load_weights: Callable[[EncoderDecoder, Path], None] | None = None


def any_size(build: Callable[[int, int], EncoderDecoder]) -> Callable[[int, int, Size], EncoderDecoder]:
    """A network whose layers do not depend on the size of the images."""
    return lambda channels, classes, size: build(channels, classes)


# The small variants are for CPU budgets: the same classes with fewer channels (and fewer Res2Net blocks).
# unet_small has no dropout at the two finest levels, where drawing it takes the most time on a CPU.
NETWORKS = {
    "unet": Architecture((2,), any_size(unet)),
    "unet_small": Architecture(
        (2,), any_size(partial(unet, widths=(8, 16, 32, 64, 96), dropout=(0, 0, 0.2, 0.3, 0.5)))
    ),
    "res2net50_unet": Architecture((2,), any_size(res2net_unet), load_imagenet_res2net),
    "res2net50_unet_small": Architecture(
        (2,), any_size(partial(res2net_unet, depths=(1, 1, 2), planes=16, base_width=32, widths=(16, 16, 32, 64)))
    ),
    "enet": Architecture((2,), enet),
    "enet_small": Architecture((2,), partial(enet, widths=(8, 32, 64))),
    "pnet": Architecture((2, 3), pnet),
    "pnet_small": Architecture((2, 3), partial(pnet, filters=16)),
    "voxresnet": Architecture((2, 3), voxresnet),
    "voxresnet_small": Architecture((2, 3), partial(voxresnet, filters=16)),
    "nnunet": Architecture((2, 3), nnunet),
    "nnunet_small": Architecture((2, 3), partial(nnunet, features=8, widest=96)),
    "swin_unet": Architecture((2, 3), swin_unet, load_imagenet_swin),
    "swin_unet_small": Architecture((2, 3), partial(swin_unet, patch=2, embed=24, heads=(1, 2, 4), window=4)),
    "attention_unet": Architecture((3,), attention_unet),
    "attention_unet_small": Architecture((3,), partial(attention_unet, widths=(8, 16, 32, 64, 96))),
    "unet_3d": Architecture((3,), unet_3d),
    "unet_3d_small": Architecture((3,), partial(unet_3d, widths=(8, 16, 32, 64, 96))),
    "vnet": Architecture((3,), any_size(vnet)),
    "vnet_small": Architecture((3,), any_size(partial(vnet, filters=8))),
}


def network_names(dims: int) -> list[str]:
    """Names of the networks for 2D images or 3D volumes."""
    return [name for name, architecture in NETWORKS.items() if dims in architecture.dims]


def scaled_like(name: str, other: str) -> str:
    """The small variant of a network where the other one is small, too."""
    small = f"{name}_small"
    return small if other.endswith("_small") and small in NETWORKS else name


def build_network(
    name: str,
    channels: int,
    classes: int,
    size: Size,
    weights: Path | None = None,
    initialization: Scheme | None = None,
) -> EncoderDecoder:
    """Build a network for images (channels, *size).

    Args:
        name: one of `network_names(len(size))`.
        channels: channels of the images.
        classes: classes of the logits, the background included.
        size: (height, width), or (depth, height, width) of training patches.
        weights: a local file to start the encoder from, for a network that has pre-trained weights.
        initialization: of everything that no file provides; torch's own by default.
    """
    dims = len(size)
    choice = f"choose one of {', '.join(network_names(dims))}."
    if name not in NETWORKS:
        raise UserError(f"network {name!r}: there is no such {dims}D network; {choice}")
    architecture = NETWORKS[name]
    if dims not in architecture.dims:
        raise UserError(f"network {name!r} is for {architecture.dims[0]}D data, not {dims}D; {choice}")
    network = architecture.build(channels, classes, size)
    if initialization is not None:
        initialize(network, initialization)
    if weights is not None:
        if architecture.load_weights is None:
            able = ", ".join(n for n in network_names(dims) if NETWORKS[n].load_weights) or f"no {dims}D network"
            raise UserError(f"network {name!r} starts from no file of weights (able to: {able}); leave out {weights}.")
        architecture.load_weights(network, weights)
    return network
