"""Random numbers by what they are for, so that those of one purpose do not depend on whether others are drawn."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator

from semiseg.seeding import derive_seed


class Unrepeatable(Exception):
    """What a step does depends on something that a recording of it does not know."""


class Draws:
    """A generator for each purpose, which begins anew at every step.

    A recording of a step cannot seed them: before it is replayed, all are seeded by `begin`.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed, self.device = seed, device
        self.recording = False
        self._known: dict[tuple[str, ...], Generator] = {}

    @property
    def generators(self) -> list[Generator]:
        """Of all purposes so far."""
        return [*self._known.values()]

    def of(self, step: int, part: str, name: str, use: str = "") -> Generator:
        """The numbers of a part of a batch for a view at a step, from the first on; the same for every use."""
        if (part, name, use) not in self._known:
            self._known[part, name, use] = Generator(self.device)
        generator = self._known[part, name, use]
        return generator if self.recording else generator.manual_seed(derive_seed(self.seed, part, name, step))

    def begin(self, step: int) -> None:
        """Seed everything that draws at a step, and what draws without a generator of its own."""
        torch.manual_seed(derive_seed(self.seed, "step", step))
        for (part, name, _), generator in self._known.items():
            generator.manual_seed(derive_seed(self.seed, part, name, step))

    @contextmanager
    def unseeded(self) -> Iterator[None]:
        """What is drawn meanwhile is recorded, to be drawn at other steps."""
        self.recording = True
        try:
            yield
        finally:
            self.recording = False
