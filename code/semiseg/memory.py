"""Queues and banks of what networks said earlier: resumed with the weights, and used without waiting for the device."""

import torch
from torch import Tensor, nn


class Memory(nn.Module):
    """The latest rows that were pushed, at most `capacity` of them; new ones take the place of the oldest.

    Args:
        capacity: how many rows there is room for.
        shape: of a row.
        random: begin full of Gaussian noise rather than empty.
    """

    rows: Tensor  # (capacity, *shape); the first `count` are there
    position: Tensor  # where the next row goes
    count: Tensor

    def __init__(self, capacity: int, *shape: int, random: bool = False) -> None:
        super().__init__()
        self.capacity = capacity
        self.register_buffer("rows", torch.randn(capacity, *shape) if random else torch.zeros(capacity, *shape))
        self.register_buffer("position", torch.tensor(0))
        self.register_buffer("count", torch.tensor(capacity if random else 0))

    @torch.no_grad()
    def push(self, values: Tensor, valid: Tensor | None = None) -> None:
        """Store (n, *shape) values, or the first `capacity` of them; where the scalar `valid` is false, nothing."""
        values = values[: self.capacity]
        number: int | Tensor = len(values)
        places = (self.position + torch.arange(len(values), device=self.rows.device)) % self.capacity
        values = values.to(self.rows.dtype)
        if valid is not None:
            values, number = torch.where(valid, values, self.rows[places]), number * valid
        self.rows[places] = values
        self.position.add_(number).remainder_(self.capacity)
        self.count.add_(number).clamp_(max=self.capacity)

    def draw(self, *shape: int) -> Tensor:
        """Numbers of rows that are there, at random and with replacement; 0 where there is none."""
        draws = torch.rand(shape, device=self.rows.device) * self.count
        return draws.long().clamp(max=self.capacity - 1)


def pick(mask: Tensor, number: int) -> Tensor:
    """Positions where the mask (n,) is true, at random and with replacement; any position where it never is."""
    ends = mask.cumsum(0, dtype=torch.float32)
    draws = torch.rand(number, device=mask.device) * ends[-1]
    return torch.searchsorted(ends, draws, right=True).clamp(max=len(mask) - 1)
