"""Further predictions from the features of any network: heads on coarse decoder levels, whole decoders."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from semiseg.networks.alignment import enlarge_to
from semiseg.networks.encoder_decoder import EncoderDecoder
from semiseg.networks.layers import CONVOLUTION, LINEAR

Upsampling = Literal["linear", "nearest"]
KERNEL = {2: 3, 3: 1}  # as in SSL4MIS


def coarser_levels(decoder: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The maps of `Output.decoder` with fewer positions than its last one, from the finest to the coarsest."""
    return tuple(m for m in reversed(decoder[:-1]) if m[0, 0].numel() < decoder[-1][0, 0].numel())


class AuxiliaryHeads(nn.Module):
    """One convolution for each of several levels, whose logits are resized to the image.

    Args:
        widths: channels of the levels.
        classes: classes of the logits.
        dims: 2 for kernels of 3×3, 3 for kernels of 1×1×1.
        upsampling: of the logits; linear along each axis, or the nearest neighbour.
    """

    def __init__(self, widths: Sequence[int], classes: int, dims: int, upsampling: Upsampling = "linear") -> None:
        super().__init__()
        self.heads = nn.ModuleList(CONVOLUTION[dims](width, classes, KERNEL[dims], padding="same") for width in widths)
        self.mode = LINEAR[dims] if upsampling == "linear" else upsampling

    def forward(self, levels: Sequence[Tensor], size: Sequence[int]) -> tuple[Tensor, ...]:
        """Feature maps (batch, width, *space), one for each head, to logits (batch, classes, *size) in float32."""
        pairs = zip(self.heads, levels, strict=True)
        return tuple(enlarge_to(head(level).float(), size, self.mode) for head, level in pairs)


class AuxiliaryDecoder(nn.Module):
    """Decoder and head of a network, for the features of another one's encoder."""

    def __init__(self, network: EncoderDecoder) -> None:
        super().__init__()
        self.network = EncoderDecoder(nn.Identity(), network.decoder, network.head)

    def forward(self, features: Sequence[Tensor], images: Tensor) -> Tensor:
        """Maps as in `Output.encoder` to logits (batch, classes, *space) in float32, at the size of the images."""
        return self.network.decode(features, images).logits
