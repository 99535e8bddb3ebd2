"""Segmentation networks by name; all of them return the same small tuple."""

from pathlib import Path

from semiseg.errors import UserError
from semiseg.names import did_you_mean
from semiseg.networks.architecture import Architecture, Size, any_size
from semiseg.networks.catalog import NETWORKS
from semiseg.networks.encoder_decoder import EncoderDecoder, Output, predict
from semiseg.networks.pretrained import packaged_file

__all__ = [
    "NETWORKS",
    "Architecture",
    "EncoderDecoder",
    "Output",
    "any_size",
    "build_network",
    "network_names",
    "predict",
    "require_network",
    "scaled_like",
    "weights_file",
]


def network_names(dims: int) -> list[str]:
    """Names of the networks for 2D images or 3D volumes."""
    return [name for name, architecture in NETWORKS.items() if dims in architecture.dims]


def require_network(name: str, dims: int | None = None) -> None:
    """Refuse the name of no network, or of none for data of these dimensions."""
    if name in NETWORKS.broken and name not in NETWORKS:
        raise UserError(f"network {name!r}: {NETWORKS.broken[name]}")
    choice = f"choose one of {', '.join(network_names(dims) if dims else NETWORKS)}"
    if name not in NETWORKS:
        kind = f"{dims}D network" if dims else "network"
        plugin = "give the folder of a network of your own with --methods-dir"
        meant = did_you_mean(name, NETWORKS)
        raise UserError(f"network {name!r}: there is no such {kind}; {meant}{choice}, or {plugin}.")
    if dims and dims not in NETWORKS[name].dims:
        raise UserError(f"network {name!r} is for {NETWORKS[name].dims[0]}D data, not {dims}D; {choice}.")


def scaled_like(name: str, other: str) -> str:
    """The small variant of a network where the other one is small, too."""
    small = f"{name}_small"
    return small if other.endswith("_small") and small in NETWORKS else name


def weights_file(network: str, weights: str | None) -> Path | None:
    """The file that `weights` stands for: a path, or a name for which this network knows a package."""
    packages = NETWORKS[network].packages if network in NETWORKS else {}
    if weights is not None and weights in packages:
        return packaged_file(packages[weights], f"the weights {weights!r} of network {network!r}")
    return Path(weights) if weights else None


def build_network(
    name: str,
    channels: int,
    classes: int,
    size: Size,
    weights: Path | None = None,
) -> EncoderDecoder:
    """Build a network for images (channels, *size).

    Args:
        name: one of `network_names(len(size))`.
        channels: channels of the images.
        classes: classes of the logits, the background included.
        size: (height, width), or (depth, height, width) of training patches.
        weights: a local file to start the encoder from, for a network that has pre-trained weights.
    """
    dims = len(size)
    require_network(name, dims)
    architecture = NETWORKS[name]
    network = architecture.build(channels, classes, size)
    if weights is not None:
        if architecture.load_weights is None:
            able = ", ".join(n for n in network_names(dims) if NETWORKS[n].load_weights) or f"no {dims}D network"
            raise UserError(f"network {name!r} starts from no file of weights (able to: {able}); leave out {weights}.")
        architecture.load_weights(network, weights)
    return network
