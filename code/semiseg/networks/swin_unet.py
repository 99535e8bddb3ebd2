"""Swin-UNet, the transformer of cross teaching: attention inside shifted windows, on slices and on volumes.

Token maps have the channels last, (batch, *space, width); what the encoder and the decoder return has them first.
Attribute names are those of the published weights of Swin.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from math import log2, prod
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semiseg.errors import UserError
from semiseg.networks.alignment import crop_to
from semiseg.networks.architecture import Architecture
from semiseg.networks.encoder_decoder import EncoderDecoder, Output
from semiseg.networks.layers import CONVOLUTION, DropPath
from semiseg.networks.pretrained import adapt_channels, read_weights
from semiseg.networks.window_attention import WindowAttention, crop, cut, join, pad

MLP_RATIO = 4
STEM = "encoder.patch_embed.proj.weight"


def swin_unet(
    channels: int,
    classes: int,
    size: Sequence[int],
    patch: int = 4,
    embed: int = 96,
    depth: int = 2,
    heads: Sequence[int] = (3, 6, 12, 24),
    window: int = 7,
    drop_path: float = 0.2,
) -> EncoderDecoder:
    """Swin-Tiny with two blocks in every stage, and its mirror image; 27,168,420 parameters for four 2D classes.

    Args:
        channels: channels of the images; gray images are repeated to the three channels of the published weights.
        classes: classes of the logits.
        size: of the training images; others work, too.
        patch: length of a token, shorter along the coarse axes of a volume.
        embed: channels of the finest stage; the further ones double.
        depth: blocks of a stage.
        heads: attention heads of each stage.
        window: length of the windows, in tokens.
        drop_path: probability that the last block of the encoder is skipped; it grows from zero with depth.
    """
    dims, patches = len(size), patch_for(size, patch)
    drops = torch.linspace(0, drop_path, depth * len(heads)).tolist()

    def blocks(level: int) -> nn.Sequential:
        fixed = partial(Block, dims, embed * 2**level, heads[level], window)
        return nn.Sequential(*(fixed(window // 2 * (k % 2), drops[depth * level + k]) for k in range(depth)))

    levels = range(len(heads))
    encoder = Encoder(3 if channels == 1 else channels, patches, embed, [blocks(level) for level in levels])
    decoder = Decoder(patches, embed, [blocks(level) for level in levels[:-1]])
    network = SwinUNet(encoder, decoder, CONVOLUTION[dims](embed, classes, 1, bias=False))
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


def patch_for(size: Sequence[int], patch: int) -> tuple[int, ...]:
    """Halve the patch along each axis of a volume as often as the longest axis can be halved to reach its length."""
    if len(size) == 2:
        return (patch, patch)  # the short side of a picture is no coarser than the long one
    return tuple(max(1, patch // 2 ** int(log2(max(size) / length))) for length in size)


def load_imagenet(network: EncoderDecoder, path: Path) -> None:
    """Start encoder and decoder from the official Swin-Tiny, all of whose shared blocks must be there.

    Each stage of the decoder starts like the encoder's stage of the same width. The file's classifier and the
    last four blocks of its third stage have no place here.
    """
    own, published = network.state_dict(), read_weights(path)
    sources = {k: k.partition(".")[2] for k in own if k.startswith("encoder.") or ".blocks." in k}
    found = {k: published[source] for k, source in sources.items() if source in published}
    if STEM in found:
        found[STEM] = adapt_channels(found[STEM], own[STEM].shape[1])
    fitting = {k: v for k, v in found.items() if v.shape == own[k].shape}
    if misfits := [source for k, source in sources.items() if k not in fitting]:
        raise UserError(
            f"{path}: {len(misfits)} of {len(sources)} weights of this network are missing or of another shape, "
            f"{misfits[0]} the first; give the official Swin-Tiny for 2D images (patch 4, window 7), or leave the "
            "weights out."
        )
    network.load_state_dict(own | fitting)


class SwinUNet(EncoderDecoder):
    """An encoder and a decoder of whole patches; images of other lengths are padded, the result is cropped."""

    def decode(self, features: Sequence[Tensor], images: Tensor) -> Output:
        output = super().decode(features, images)
        *coarse, finest = output.decoder
        return output._replace(decoder=(*coarse, crop_to(finest, images)))


class Encoder(nn.Module):
    """Patches, then stages with merging between them.

    As in the public code, a skip connection carries what enters a stage; only the last map has passed its blocks.
    """

    def __init__(self, channels: int, patch: tuple[int, ...], embed: int, stages: Sequence[nn.Sequential]) -> None:
        super().__init__()
        self.channels = channels
        self.patch_embed = PatchEmbedding(channels, patch, embed)
        self.layers = nn.ModuleList()
        for level, blocks in enumerate(stages):
            merging = PatchMerging(len(patch), embed * 2**level) if level < len(stages) - 1 else nn.Identity()
            self.layers.append(nn.Sequential(OrderedDict(blocks=blocks, downsample=merging)))
        self.norm = nn.LayerNorm(embed * 2 ** (len(stages) - 1))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        gray = images.shape[1] == 1
        # A patch's tokens are normalized right away, which would leave little of images of low contrast within [0, 1]:
        # without this, the small variant finds nothing in MR of the hippocampus.
        images = F.instance_norm(images)
        x = self.patch_embed(images.expand(-1, self.channels, *images.shape[2:]) if gray else images)
        features = []
        for layer in self.layers:
            features.append(x)
            x = layer(x)
        return tuple(m.movedim(-1, 1) for m in (*features[:-1], self.norm(x)))


class Decoder(nn.Module):
    """Stages back to the finest tokens, then from tokens to pixels; `layers` counts like the encoder's."""

    def __init__(self, patch: tuple[int, ...], embed: int, stages: Sequence[nn.Sequential]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderStage(len(patch), embed * 2**level, blocks) for level, blocks in enumerate(stages)
        )
        self.norm = nn.LayerNorm(embed)
        self.expand = Expansion(embed, embed, patch)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        *skips, x = (m.movedim(1, -1) for m in features)
        decoded = []
        for layer, skip in zip(reversed(self.layers), reversed(skips), strict=True):
            x = layer(x, skip)
            decoded.append(x)
        return tuple(m.movedim(-1, 1) for m in (*decoded, self.expand(self.norm(x))))


class DecoderStage(nn.Module):
    """Expansion of the coarser tokens, skip connection, blocks."""

    def __init__(self, dims: int, width: int, blocks: nn.Sequential) -> None:
        super().__init__()
        self.expand = Expansion(2 * width, width, (2,) * dims)
        self.fuse = nn.Linear(2 * width, width)
        self.blocks = blocks

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = crop(self.expand(x), skip.shape[1:-1])
        return self.blocks(self.fuse(torch.cat((x, skip), dim=-1)))


class PatchEmbedding(nn.Module):
    """One token for each patch of the image."""

    def __init__(self, channels: int, patch: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = CONVOLUTION[len(patch)](channels, width, patch, patch)
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Tensor) -> Tensor:
        images = pad(images.movedim(1, -1), self.patch).movedim(-1, 1)
        return self.norm(self.proj(images).movedim(1, -1))


class PatchMerging(nn.Module):
    """Two tokens along each axis become one of twice the width."""

    def __init__(self, dims: int, width: int) -> None:
        super().__init__()
        self.pair = (2,) * dims
        self.norm = nn.LayerNorm(2**dims * width)
        self.reduction = nn.Linear(2**dims * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        dims = len(self.pair)
        x = cut(pad(x, self.pair), self.pair)
        inside = range(2 * dims, dims, -1)  # the published weights count along the first axis first
        return self.reduction(self.norm(x.permute(*range(dims + 1), *inside, -1).flatten(dims + 1)))


class Expansion(nn.Module):
    """One token becomes `factor` tokens along each axis."""

    def __init__(self, inputs: int, outputs: int, factor: tuple[int, ...]) -> None:
        super().__init__()
        self.factor = factor
        self.expand = nn.Linear(inputs, prod(factor) * outputs, bias=False)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(join(self.expand(x).unflatten(-1, (*self.factor, -1))))


class Block(nn.Module):
    """Attention and a perceptron, each of them added to what it reads, or skipped."""

    def __init__(self, dims: int, width: int, heads: int, window: int, shift: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(dims, width, heads, window, shift)
        self.norm2 = nn.LayerNorm(width)
        layers = OrderedDict(
            fc1=nn.Linear(width, MLP_RATIO * width), act=nn.GELU(), fc2=nn.Linear(MLP_RATIO * width, width)
        )
        self.mlp = nn.Sequential(layers)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


ARCHITECTURES = {
    "swin_unet": Architecture((2, 3), swin_unet, load_imagenet),
    "swin_unet_small": Architecture((2, 3), partial(swin_unet, patch=2, embed=24, heads=(1, 2, 4), window=4)),
}
