"""Finds the recipes in `data_prep/`: a file dropped there is listed and can be prepared at once."""

import importlib
import inspect
import pkgutil

import semiseg.data_prep
from semiseg.data.recipe import Recipe
from semiseg.errors import UserError
from semiseg.names import did_you_mean


def recipes() -> dict[str, type[Recipe]]:
    """Every recipe that can be used, by name; a file that cannot be imported does not hide the others."""
    return _scan()[0]


def recipe(name: str) -> type[Recipe]:
    """The recipe called `name`."""
    found, broken = _scan()
    if name in found:
        return found[name]
    # The recipe asked for may be in one of the files that failed; only now does that concern the user.
    failed = "".join(f" data_prep/{file}.py could not be used: {reason}." for file, reason in broken.items())
    meant = did_you_mean(name, found)
    raise UserError(f"{name!r}: there is no such data set recipe; {meant}choose one of {', '.join(found)}.{failed}")


def _scan() -> tuple[dict[str, type[Recipe]], dict[str, str]]:
    """The recipes by name, and for each file that could not be used, why."""
    found: dict[str, type[Recipe]] = {}
    broken: dict[str, str] = {}
    for file in sorted(module.name for module in pkgutil.iter_modules(semiseg.data_prep.__path__)):
        try:
            module = importlib.import_module(f"semiseg.data_prep.{file}")
        except Exception as error:  # a contributed file may fail in any way
            broken[file] = " ".join(f"{type(error).__name__}: {error}".split())
            continue
        for kind in vars(module).values():
            if not (inspect.isclass(kind) and issubclass(kind, Recipe)) or inspect.isabstract(kind):
                continue
            if kind.__module__ != module.__name__ or not hasattr(kind, "name"):
                continue  # imported from the file that defines it, or what several recipes of a file share
            if kind.name in found:
                broken[file] = f"{found[kind.name].__module__} also defines {kind.name!r}, rename one"
            else:
                found[kind.name] = kind
    return dict(sorted(found.items())), broken
