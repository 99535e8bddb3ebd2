"""What code consists of: the text of a module, and of the modules that it imports."""

import ast
import functools
import io
import sys
import sysconfig
import tokenize
from collections import deque
from collections.abc import Callable, Iterable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, resolve_name
from pathlib import Path
from types import ModuleType
from weakref import WeakKeyDictionary

from semiseg.errors import UserError
from semiseg.plugins import loaded

_loaded: WeakKeyDictionary[ModuleType, str] = WeakKeyDictionary()  # the text of modules as this process holds them


@functools.cache
def plugin_code(plugin: type) -> tuple[str, ...]:
    """The text of the module of a method or task and of what it imports beside the engine."""
    return module_code(plugin.__module__)


def module_code(module: str) -> tuple[str, ...]:
    """The text of a plug-in's module and of what it imports beside the engine.

    That is the methods, the plug-in's own package, and modules of the user's that nobody installed, with
    `pip install --target` neither. Asked for right after the import, it is the text that this process carries out,
    whatever becomes of the files.
    """
    library = Path(sysconfig.get_path("stdlib")).resolve()
    home = module.partition(".")[0]

    def belongs(name: str) -> bool:
        top = name.partition(".")[0]
        if top == "semiseg":
            return name.startswith("semiseg.methods.")
        if top == home:
            return True
        try:
            spec = find_spec(top)
        except ValueError:  # of what is no file, such as __main__
            return False
        if spec is None:
            return False
        package = next(iter(spec.submodule_search_locations or ()), None)
        place = Path(package or spec.origin or "built-in")
        installed = {"site-packages", "dist-packages", "built-in", "frozen"} & set(place.parts)
        return not installed and not _holds_distributions(place.parent) and not place.resolve().is_relative_to(library)

    return tuple(follow_imports([module], belongs).values())


@functools.cache
def _holds_distributions(folder: Path) -> bool:
    """Whether an installer put packages into a folder, as it leaves a record of each beside them."""
    return any(folder.glob("*.dist-info"))


def follow_imports(modules: Iterable[str], wanted: Callable[[str], bool]) -> dict[str, str]:
    """The text of modules by name, and of everything that they import, as far as its name is wanted."""
    texts: dict[str, str] = {}
    packages: set[str] = set()
    waiting = deque(modules)
    while waiting:
        name = waiting.popleft()
        parent = name.rpartition(".")[0]
        if name in texts or not wanted(name) or (parent in texts and parent not in packages):
            continue  # what is imported from a module is no module
        spec = loaded(functools.partial(_spec, name), name)  # to look into a package, Python carries it out
        if spec is None or not (spec.origin or "").endswith(".py"):
            continue
        try:
            texts[name] = _text(name, Path(spec.origin or ""))
            waiting += _imports(texts[name], spec.parent or "")
        except (SyntaxError, UnicodeDecodeError) as error:
            raise UserError(f"{spec.origin}: cannot be read as Python ({error}); correct it.") from error
        if spec.submodule_search_locations is not None:
            packages.add(name)
    return texts


def _spec(name: str) -> ModuleSpec | None:
    try:
        return find_spec(name)
    except (ImportError, ValueError):
        return None


def _text(name: str, file: Path) -> str:
    """The text of a module: as it was when first asked for, if it is loaded, since that is what runs."""
    module = sys.modules.get(name)
    with tokenize.open(file) as opened:
        text = opened.read()
    return text if module is None else _loaded.setdefault(module, text)


@functools.cache  # thirty methods share what they build on
def _imports(text: str, package: str) -> list[str]:
    """What a module of a package imports, wherever in its text: modules, and names that may be modules."""
    names: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                names += (".".join(parts[:end]) for end in range(1, len(parts) + 1))
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package)
            names += (origin, *(f"{origin}.{alias.name}" for alias in node.names))
    return names


@functools.cache  # a thousand runs share a few modules
def without_comments(text: str) -> str:
    """The lines of a module that do something: no comments, docstrings, blank lines, or `space` of a method.

    What else could have been tried, which `semiseg tune` reads there, changes no training.
    Cut from the text by position, so that the result is the same for every version of Python.
    """
    lines = text.split("\n")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            _cut(lines, node.body[0])
        if isinstance(node, ast.ClassDef):
            for statement in filter(_is_space, node.body):
                _cut(lines, statement)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _is_space(statement: ast.stmt) -> bool:
    """Whether a statement is `space = {...}`, annotated or not."""
    if not isinstance(statement, ast.AnnAssign | ast.Assign) or not isinstance(statement.value, ast.Dict):
        return False
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return [ast.unparse(target) for target in targets] == ["space"]


def _cut(lines: list[str], statement: ast.stmt) -> None:
    """Blank a statement that has its lines to itself; where code shares them, it stays."""
    first, last = statement.lineno, statement.end_lineno or statement.lineno
    before = lines[first - 1].encode()[: statement.col_offset]
    after = lines[last - 1].encode()[statement.end_col_offset :]
    if not before.strip() and not after.strip():
        lines[first - 1 : last] = [""] * (last - first + 1)
