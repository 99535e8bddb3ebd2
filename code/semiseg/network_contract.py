"""What every network must satisfy, as checks that the suite and any plug-in's own tests run."""

import copy
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from semiseg.networks import EncoderDecoder, build_network

SIZES: dict[int, list[tuple[int, ...]]] = {
    2: [(64, 64), (50, 70), (5, 40)],
    3: [(32, 32, 32), (8, 32, 32), (9, 19, 18)],
}
CLASSES = 3


class NetworkContract:
    """Checks one network on 2D images or 3D volumes."""

    def __init__(self, name: str, dims: int) -> None:
        self.name, self.dims = name, dims

    @classmethod
    def checks(cls) -> dict[str, Callable[["NetworkContract"], None]]:
        """All checks by name."""
        return {name: check for name, check in vars(cls).items() if name.startswith("check_")}

    def network_and_images(self, size: tuple[int, ...] = (), channels: int = 1) -> tuple[EncoderDecoder, Tensor]:
        """A new network, and two images for it."""
        torch.manual_seed(0)
        size = size or SIZES[self.dims][1]
        return build_network(self.name, channels, CLASSES, size), torch.rand(2, channels, *size)

    # The checks

    def check_any_size_of_image_gives_logits_and_ordered_levels(self) -> None:
        for size in SIZES[self.dims]:
            network, images = self.network_and_images(size)
            output = network(images)
            assert output.logits.shape == (2, CLASSES, *size), f"{size}: logits are {tuple(output.logits.shape)}"
            encoder, decoder = ([m[0, 0].numel() for m in maps] for maps in (output.encoder, output.decoder))
            assert all(a >= b for a, b in pairwise(encoder)), f"{size}: the encoder's levels grow: {encoder}"
            assert all(a <= b for a, b in pairwise(decoder)), f"{size}: the decoder's levels shrink: {decoder}"

    def check_gray_images_and_those_of_several_channels_are_segmented(self) -> None:
        for channels in (1, 3, 4):
            network, images = self.network_and_images(channels=channels)
            assert network(images).logits.shape[1] == CLASSES

    def check_every_parameter_is_trained(self) -> None:
        network, images = self.network_and_images((32,) * self.dims)
        network(images).logits.square().sum().backward()
        missed = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert not missed, f"no gradient, or no finite one, reaches {missed}"

    def check_perturbed_features_can_be_decoded(self) -> None:
        network, images = self.network_and_images()
        network.eval()
        with torch.no_grad():
            features = network.encoder(images)
            again = network.decode(features, images).logits
            assert torch.equal(again, network(images).logits), "decode(encoder(images)) is not what the network returns"
            changed = network.decode([f + torch.randn_like(f) for f in features], images).logits
            assert not torch.equal(changed, again), "the decoder does not read the encoder's features"

    def check_predictions_are_repeatable_and_survive_a_deep_copy(self) -> None:
        network, images = self.network_and_images()
        with torch.no_grad():
            drops = any(isinstance(m, _DropoutNd) and m.p for m in network.modules())
            same = torch.equal(network(images).logits, network(images).logits)
            assert same is not drops, "dropout has no effect" if drops else "something else than dropout is random"
            network.eval()
            expected = network(images).logits
            assert torch.equal(network(images).logits, expected), "in evaluation, images are not always segmented alike"
            twin = copy.deepcopy(network)
            for weights in network.parameters():
                weights.zero_()
            assert torch.equal(twin(images).logits, expected), "a deep copy shares weights with the network"

    def check_losses_get_float32_logits_under_mixed_precision(self) -> None:
        network, images = self.network_and_images()
        with torch.autocast("cpu", torch.bfloat16):
            dtype = network(images).logits.dtype
        assert dtype == torch.float32, f"logits are {dtype}"
