"""What code consists of: the text of a module, and of the modules that it imports."""

import ast
import io
import tokenize
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec, resolve_name
from pathlib import Path


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
        try:
            spec = find_spec(name)
        except (ImportError, ValueError):
            continue
        if spec is None or not (spec.origin or "").endswith(".py"):
            continue
        texts[name] = Path(spec.origin or "").read_text(encoding="utf-8")
        if spec.submodule_search_locations is not None:
            packages.add(name)
        waiting += _imports(texts[name], spec.parent or "")
    return texts


def _imports(text: str, package: str) -> Iterator[str]:
    """What a module of a package imports, wherever in its text: modules, and names that may be modules."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package)
            yield from (origin, *(f"{origin}.{alias.name}" for alias in node.names))


def without_comments(text: str) -> str:
    """The lines of a module that do something: no comments, docstrings or blank lines.

    Cut from the text by position, so that the result is the same for every version of Python.
    """
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            first, last = node.body[0].lineno, node.body[0].end_lineno or node.body[0].lineno
            lines[first - 1 : last] = [""] * (last - first + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())
