"""Self-attention inside the shifted windows of Swin, on slices and on volumes.

Token maps have the channels last, (batch, *space, width). MONAI's Swin blocks are not used: on a map smaller than
the window they look up the position bias of other offsets, and they attend to padding.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class WindowAttention(nn.Module):
    """Attention among the tokens of a window, which knows how far they are from each other.

    An axis that is shorter than the window gets a window of its own length, and no shift.
    """

    def __init__(self, dims: int, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** dims, heads))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        positions = torch.cartesian_prod(*[torch.arange(window)] * dims)
        offsets = positions[:, None] - positions + window - 1
        row = (offsets * (2 * window - 1) ** torch.arange(dims - 1, -1, -1)).sum(-1)
        self.register_buffer("row", row.reshape([window] * 2 * dims), persistent=False)  # of the bias table
        self.row: Tensor
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the bias table anew."""
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        space = x.shape[1:-1]
        dims, axes = len(space), tuple(range(1, len(space) + 1))
        window = tuple(min(self.window, length) for length in space)
        shift = tuple(self.shift if length > self.window else 0 for length in space)
        windows = cut(pad(x, window).roll([-s for s in shift], axes), window)
        tokens = windows.flatten(dims + 1, 2 * dims).flatten(1, dims)  # (batch, windows, tokens, width)
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        bias = self.bias(window)
        if any(shift) or any(length % w for length, w in zip(space, window, strict=True)):
            bias = bias.masked_fill(~neighbors(space, window, shift, x.device), -torch.inf)
        mixed = F.scaled_dot_product_attention(query, key, value, bias.to(query.dtype))
        mixed = self.proj(mixed.transpose(2, 3).flatten(-2)).reshape(windows.shape)
        return crop(join(mixed).roll(shift, axes), space)

    def bias(self, window: tuple[int, ...]) -> Tensor:
        """What is added to the attention between any two tokens of a window, (heads, tokens, tokens)."""
        corner = self.row[tuple(slice(length) for length in window * 2)]
        return self.relative_position_bias_table[corner.reshape(prod(window), -1)].permute(2, 0, 1)


def neighbors(space: Sequence[int], window: tuple[int, ...], shift: tuple[int, ...], device: torch.device) -> Tensor:
    """Which tokens of a window may see each other, (windows, 1, tokens, tokens).

    The shift brings tokens from opposite borders into one window, and the last windows hold padding.
    """
    region = torch.zeros(1, *[1] * len(space), 1, dtype=torch.long, device=device)
    for axis, (length, w, s) in enumerate(zip(space, window, shift, strict=True)):
        origin = torch.arange(-(-length // w) * w, device=device).roll(-s)
        kind = (origin < s).long() + 2 * (origin >= length).long()
        region = 3 * region + kind.reshape([-1 if k == axis + 1 else 1 for k in range(region.dim())])
    regions = cut(region, window).reshape(-1, prod(window))
    return (regions[:, :, None] == regions[:, None]).unsqueeze(1)


def pad(x: Tensor, multiple: tuple[int, ...]) -> Tensor:
    """Append zeros until each axis of (batch, *space, width) is a multiple."""
    missing = [-length % m for length, m in zip(x.shape[1:-1], multiple, strict=True)]
    return F.pad(x, [0, 0, *(p for m in reversed(missing) for p in (0, m))]) if any(missing) else x


def crop(x: Tensor, space: Sequence[int]) -> Tensor:
    """Undo `pad`: keep the first positions of each axis."""
    return x[(slice(None), *(slice(length) for length in space))]


def cut(x: Tensor, block: tuple[int, ...]) -> Tensor:
    """Blocks of (batch, *space, width), as (batch, *blocks, *block, width)."""
    dims = len(block)
    counted = [n for length, b in zip(x.shape[1:-1], block, strict=True) for n in (length // b, b)]
    inside = range(2, 2 * dims + 1, 2)
    return x.reshape(x.shape[0], *counted, x.shape[-1]).permute(0, *(k - 1 for k in inside), *inside, -1)


def join(x: Tensor) -> Tensor:
    """Undo `cut`."""
    dims = x.dim() // 2 - 1
    pairs = [(1 + k, 1 + k + dims) for k in range(dims)]
    space = [x.shape[block] * x.shape[inside] for block, inside in pairs]
    return x.permute(0, *(k for pair in pairs for k in pair), -1).reshape(x.shape[0], *space, x.shape[-1])
