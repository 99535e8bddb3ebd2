"""Finds methods and networks that are plug-ins: files of `methods/` and of `--methods-dir`, and entry points."""

import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import semiseg.methods
from semiseg.errors import UserError
from semiseg.method import Method, Paper
from semiseg.names import did_you_mean
from semiseg.networks.catalog import NETWORKS, Offer, offered
from semiseg.plugins import installed, loaded
from semiseg.settings import RunSpec, StartSpec
from semiseg.source_code import module_code, plugin_code
from semiseg.start import Start


class Methods(dict[str, type[Method]]):
    """Methods by name, and why others are broken; asking for one of these raises the reason. Starts stand beside."""

    def __init__(self) -> None:
        super().__init__()
        self.starts: dict[str, type[Start]] = {}
        self.broken: dict[str, str] = {}  # one line each

    def problem(self, name: str) -> str:
        """Why there is no method of this name."""
        there_are = f"{did_you_mean(name, self)}there are: {', '.join(self)}"
        unknown = f"unknown method {name!r}; {there_are}. Give a plugin's folder with --methods-dir."
        if name in self.starts and name not in self:
            unknown = f"{name} is a start, no method; write `method: supervised, start: {name}`, or another method."
        return self.broken.get(name, unknown)

    def start(self, name: str) -> type[Start]:
        """The start of a name."""
        if name not in self.starts:
            unknown = f"unknown start {name!r}; there are: {', '.join(self.starts) or 'none'}."
            raise UserError(self.broken.get(name, unknown))
        return self.starts[name]

    def plugin(self, spec: RunSpec) -> type[Method]:
        """What carries out a run."""
        return self.start(spec.implementation) if isinstance(spec, StartSpec) else self[spec.implementation]

    def get_plugin(self, spec: RunSpec) -> type[Method] | None:
        """The same, or none where there is none."""
        return (self.starts if isinstance(spec, StartSpec) else self).get(spec.implementation)

    def __missing__(self, name: str) -> type[Method]:
        raise UserError(self.problem(name))


class Plugin(NamedTuple):
    """What a file or package turned out to be: a method, networks, or both."""

    method: type[Method] | None
    networks: list[Offer]


class Candidate(NamedTuple):
    """What may turn out to be a plug-in."""

    name: str
    where: str
    load: Callable[[], Plugin]


def find_methods(directory: Path | None = None) -> Methods:
    """Every method by name, which is the name of its file (or of its entry point); a broken one costs only itself.

    Networks that are found on the way can be built by name from then on.
    """
    return _found(_candidates(directory))


def find_with(file: Path, directory: Path | None = None) -> Methods:
    """The same with one more file; others that lie beside it, which may do anything when imported, are left alone."""
    if not file.is_file():
        raise UserError(f"{file}: no such file; give the path of a plugin's file.")
    known = list(_candidates(directory))
    if not any(Path(candidate.where).resolve() == file.resolve() for candidate in known):
        known.append(Candidate(file.stem, str(file), partial(_of_file, file)))
    return _found(known)


def _found(every: Iterable[Candidate]) -> Methods:
    """What candidates turn out to be."""
    candidates: dict[str, list[Candidate]] = {}
    for candidate in every:
        candidates.setdefault(candidate.name, []).append(candidate)
    found = Methods()
    networks, broken = _installed_networks()
    for name, own in sorted(candidates.items()):
        try:
            if len(own) > 1:
                places = " and ".join(c.where for c in own)
                raise UserError(f"two methods are called {name!r}: {places}; rename one of the files.")
            plugin = own[0].load()
            if plugin.method is not None:
                plugin_code(plugin.method)  # before its files change: what is remembered is what was imported
        except UserError as error:
            found.broken[name] = str(error)
            continue
        networks += plugin.networks
        if plugin.method is not None:
            if issubclass(plugin.method, Start):
                found.starts[name] = plugin.method
            if plugin.method.learns:
                found[name] = plugin.method
    NETWORKS.admit(networks, broken)
    return found


def get_method(name: str, directory: Path | None = None) -> type[Method]:
    """One method, or start, by name."""
    found = find_methods(directory)
    return found.starts.get(name) or found[name]


def get_method_of(file: Path, directory: Path | None = None) -> type[Method]:
    """The method that a file defines, whether or not it belongs to the suite."""
    found = find_with(file, directory)
    return found.starts.get(file.stem) or found[file.stem]


def _candidates(directory: Path | None) -> Iterator[Candidate]:
    for module in pkgutil.iter_modules(semiseg.methods.__path__):
        if not module.name.startswith("_"):
            where = str(Path(semiseg.methods.__path__[0], f"{module.name}.py"))
            yield Candidate(module.name, where, partial(_of_suite, module.name, where))
    for entry in entry_points(group="semiseg.methods"):
        where = installed(entry)
        yield Candidate(entry.name, where, partial(_of_package, entry, where))
    if directory is None:
        return
    if not directory.is_dir():
        problem = "is a file; name the folder that it is in" if directory.is_file() else "no such folder"
        raise UserError(f"--methods-dir {directory}: {problem}.")
    for path in sorted(directory.glob("*.py")):
        if not path.name.startswith(("_", "test_")):
            yield Candidate(path.stem, str(path), partial(_of_file, path))


def _installed_networks() -> tuple[list[Offer], dict[str, str]]:
    """What installed packages offer, and why others are broken; an entry point names a module."""
    networks: list[Offer] = []
    broken: dict[str, str] = {}
    for entry in entry_points(group="semiseg.networks"):
        where = installed(entry)
        try:
            module = loaded(entry.load, where)
            if not inspect.ismodule(module) or not hasattr(module, "ARCHITECTURES"):
                raise UserError(f"{where} is no module with ARCHITECTURES; uninstall it.")
            networks += offered(module, where, partial(module_code, module.__name__))
        except UserError as error:
            broken[entry.name] = str(error)
    return networks, broken


def _of_suite(name: str, where: str) -> Plugin:
    return _contents(loaded(lambda: importlib.import_module(f"semiseg.methods.{name}"), where), where)


def _of_package(entry: EntryPoint, where: str) -> Plugin:
    method = loaded(entry.load, where)
    if not (inspect.isclass(method) and issubclass(method, Method)):
        raise UserError(f"{where} is no subclass of Method; uninstall it.")
    return Plugin(_complete(method, where), [])


def _of_file(path: Path) -> Plugin:
    name = f"semiseg_plugin_{path.stem}"

    def load() -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)  # where inspect looks for a class's file
        spec.loader.exec_module(module)
        return module

    return _contents(loaded(load, str(path)), str(path))


def _contents(module: ModuleType, where: str) -> Plugin:
    networks = offered(module, where, partial(module_code, module.__name__))
    classes = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]
    own = [c for c in classes if issubclass(c, Method)]
    if networks and not own:
        return Plugin(None, networks)
    if len(own) != 1:
        raise UserError(
            f"{where}: a plugin file defines ARCHITECTURES or exactly one subclass of Method, this one defines "
            f"{len(own)}; correct it or move it away."
        )
    return Plugin(_complete(own[0], where), networks)


def _complete(method: type[Method], where: str) -> type[Method]:
    """A method that states and defines what every method must."""
    missing = sorted(method.__abstractmethods__)
    missing += [n for n, kind in (("title", str), ("paper", Paper)) if not isinstance(getattr(method, n, None), kind)]
    if missing:
        raise UserError(f"{where}: {method.__name__} does not define {', '.join(missing)}; see semiseg/method.py.")
    return method
