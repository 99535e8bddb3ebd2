"""The networks that this process can build: those of the engine's files, and those of plug-ins."""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from semiseg.errors import UserError
from semiseg.networks.architecture import Architecture


class Offer(NamedTuple):
    """The networks of one file or package."""

    architectures: Mapping[str, Architecture]
    where: str
    code: tuple[str, ...] = ()  # the text of a plug-in; the engine's own is recorded with every result anyway


class Networks(dict[str, Architecture]):
    """Networks by name, and where they come from: the engine's, and what plug-ins offered when last looked for.

    It is one for the whole process, like the modules that Python has imported, so that a method can build any network
    by its name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.offers: dict[str, Offer] = {}  # of each network
        self.broken: dict[str, str] = {}  # why there is none of this name
        self.engine = tuple(_of_engine())
        self.admit((), {})

    def admit(self, plugins: Iterable[Offer], broken: Mapping[str, str]) -> None:
        """Take these plug-ins in place of earlier ones; a name that two claim is nobody's."""
        self.clear()
        self.offers, self.broken = {}, {}
        shared = set()
        for offer in (*self.engine, *plugins):
            for name, architecture in offer.architectures.items():
                if name in self.offers:
                    places = f"{self.offers[name].where} and {offer.where}"
                    self.broken[name] = f"two networks are called {name!r}: {places}; rename one of them."
                    shared.add(name)
                self[name], self.offers[name] = architecture, offer
        for name in shared:
            self.pop(name)
        self.broken = {**broken, **self.broken}  # a package is known by its own name, and takes no network's place

    def code(self, names: Iterable[object]) -> tuple[str, ...]:
        """The text of the plug-ins that networks of these names come from; other names count for nothing."""
        offers = [self.offers[name] for name in names if isinstance(name, str) and name in self]
        return tuple(text for offer in offers for text in offer.code)


def offered(module: Any, where: str, code: Callable[[], tuple[str, ...]] = tuple) -> list[Offer]:
    """What a module offers: nothing, or one dictionary ARCHITECTURES; `code` finds out what it consists of."""
    architectures = getattr(module, "ARCHITECTURES", None)
    if architectures is None:
        return []
    if not isinstance(architectures, dict) or not all(
        isinstance(name, str) and isinstance(value, Architecture) for name, value in architectures.items()
    ):
        raise UserError(f"{where}: ARCHITECTURES is no dictionary of names and Architecture(…); correct it.")
    for name, value in architectures.items():
        if not isinstance(value.dims, tuple) or not value.dims or not {2, 3}.issuperset(value.dims):
            raise UserError(f"{where}: dims of {name!r} are {value.dims!r}; write (2,), (3,) or (2, 3).")
    return [Offer(architectures, where, code())]


def _of_engine() -> Iterator[Offer]:
    folder = Path(__file__).parent
    for file in pkgutil.iter_modules([str(folder)]):
        if file.name != Path(__file__).stem:
            module = importlib.import_module(f"semiseg.networks.{file.name}")
            yield from offered(module, str(folder / f"{file.name}.py"))


NETWORKS = Networks()
