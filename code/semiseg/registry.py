"""Finds methods: modules of `methods/`, the entry points `semiseg.methods`, and `--methods-dir`."""

import importlib.util
import inspect
import pkgutil
import sys
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

import semiseg.methods
from semiseg.errors import UserError
from semiseg.method import Method


def find_methods(directory: Path | None = None) -> dict[str, type[Method]]:
    """Every method by name, which is the name of its file (or of its entry point)."""
    found: dict[str, type[Method]] = {}

    def add(name: str, method: type[Method]) -> None:
        if name in found:
            raise UserError(
                f"two methods are called {name!r}: {inspect.getfile(found[name])} and "
                f"{inspect.getfile(method)}; rename one of the files."
            )
        found[name] = method

    for module in pkgutil.iter_modules(semiseg.methods.__path__):
        if module.name.startswith("_"):
            continue
        name = f"semiseg.methods.{module.name}"
        add(module.name, _method_of(_imported(name, importlib.util.find_spec(name))))
    for entry in entry_points(group="semiseg.methods"):
        add(entry.name, _loaded(entry))
    if directory is not None:
        if not directory.is_dir():
            raise UserError(f"--methods-dir {directory}: no such folder.")
        for path in sorted(directory.glob("*.py")):
            if not path.name.startswith(("_", "test_")):
                name = f"semiseg_plugin_{path.stem}"
                add(path.stem, _method_of(_imported(name, importlib.util.spec_from_file_location(name, path))))
    return dict(sorted(found.items()))


def get_method(name: str, directory: Path | None = None) -> type[Method]:
    """One method by name."""
    methods = find_methods(directory)
    if name not in methods:
        raise UserError(f"unknown method {name!r}; there are: {', '.join(methods)}.")
    return methods[name]


def _imported(name: str, spec: ModuleSpec | None) -> ModuleType:
    assert spec is not None
    assert spec.loader is not None
    try:
        if name.startswith("semiseg."):
            return importlib.import_module(name)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)  # where inspect looks for a class's file
        spec.loader.exec_module(module)
        return module
    except Exception as error:
        raise UserError(
            f"{spec.origin}: the plugin cannot be imported ({type(error).__name__}: {' '.join(str(error).split())}); "
            "correct it or move it away."
        ) from error


def _loaded(entry: EntryPoint) -> type[Method]:
    try:
        method = entry.load()
    except Exception as error:
        raise UserError(
            f"the installed plugin {entry.name} ({entry.value}) cannot be imported "
            f"({type(error).__name__}: {' '.join(str(error).split())}); correct it."
        ) from error
    if not (inspect.isclass(method) and issubclass(method, Method)):
        raise UserError(f"the installed plugin {entry.name} ({entry.value}) is no subclass of Method; uninstall it.")
    return method


def _method_of(module: ModuleType) -> type[Method]:
    own = [
        c
        for c in vars(module).values()
        if inspect.isclass(c) and issubclass(c, Method) and c.__module__ == module.__name__
    ]
    if len(own) != 1:
        raise UserError(
            f"{module.__file__}: a plugin file defines exactly one subclass of Method, this one defines {len(own)}."
        )
    return own[0]
