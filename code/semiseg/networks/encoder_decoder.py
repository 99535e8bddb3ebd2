"""The shape all networks share: an encoder, a decoder, a head, and the tuple they return."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from semiseg.networks.alignment import crop_to


class Output(NamedTuple):
    """What every network returns.

    A level of stride s holds ceil(size / s) positions along each axis, for any size of the input.

    Attributes:
        logits: (batch, classes, *space), float32, at the size of the input.
        encoder: feature maps from the finest to the coarsest level (of a U-Net: strides 1, 2, 4, 8, 16).
        decoder: feature maps from the coarsest to the finest level (of a U-Net: strides 8, 4, 2, 1).
    """

    logits: Tensor
    encoder: tuple[Tensor, ...] = ()
    decoder: tuple[Tensor, ...] = ()


class EncoderDecoder(nn.Module):
    """A network whose parts can be copied, perturbed or reused on their own.

    Args:
        encoder: maps images (batch, channels, *space) to the tuple `Output.encoder`.
        decoder: maps that tuple to the tuple `Output.decoder`.
        head: maps the finest decoder features to logits.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.head = head

    def forward(self, images: Tensor) -> Output:
        """Segment (batch, channels, *space); losses get float32 logits also under mixed precision."""
        return self.decode(self.encoder(images), images)

    def decode(self, features: Sequence[Tensor], images: Tensor) -> Output:
        """Go on from encoder features, perturbed or not, to the output for images of this size."""
        decoded: tuple[Tensor, ...] = self.decoder(features)
        logits = crop_to(self.head(decoded[-1]), images)  # a head that doubles its input overshoots odd sizes
        return Output(logits.float(), tuple(features), decoded)


@torch.no_grad()
def predict(network: nn.Module, images: Tensor) -> Output:
    """Run a network in evaluation mode without gradient, and leave its mode as it was."""
    training = network.training
    network.eval()
    output: Output = network(images)
    network.train(training)
    return output
