"""Prepares a data set: loads a recipe's cases, in parallel where it pays, and writes them as one file."""

import hashlib
import json
import multiprocessing
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py

from semiseg.data.files import visible_files
from semiseg.data.problems import one_of_each_kind
from semiseg.data.recipe import Recipe
from semiseg.data.store import FORMAT, DatasetInfo, PackedCase, pack, write_dataset
from semiseg.errors import UserError, UserErrors
from semiseg.names import require_name
from semiseg.source_code import follow_imports

# A spawned process needs about a second to import what loading takes; less work than this is done here.
WORTH_PROCESSES = 3.0
OWN = re.compile(r"semiseg\.(?:data|data_prep)\.\w+")  # modules that have a say in what a prepared file holds
Progress = Callable[[int, int], None]


def prepare(recipe: Recipe, out: Path, progress: Progress | None = None, jobs: int | None = None) -> tuple[Path, bool]:
    """Write `out/NAME.h5` unless it is there and its inputs are unchanged.

    Args:
        progress: called with the number of cases loaded so far and the number of all.
        jobs: loading processes; by default as many as there are processors to use.

    Returns:
        The file, and whether it was written by this call.

    Raises:
        UserErrors: everything that is wrong with the source; an existing file is left as it was.
    """
    info = recipe.info()
    require_name(info.name, str(recipe.source))
    path = out / f"{info.name}.h5"
    inputs = fingerprint(recipe, info, ignore=path)
    earlier, origin = _attributes(path), _origin(recipe, info)
    if earlier.get("inputs") == inputs:
        return path, False
    if earlier.get("origin", origin) != origin:
        raise UserError(
            f"{path}: was made of other files ({earlier['origin']}); rename the folder {recipe.source}, which names "
            "the data set, choose another --out, or delete that file."
        )
    attributes, lists = {"inputs": inputs, "origin": origin}, recipe.lists()
    try:
        write_dataset(path, info, _cases(recipe, info, progress, jobs or _processors()), attributes, lists)
    except OSError as error:
        # HDF5 describes an error in many lines; the system's word for it is enough.
        reason = os.strerror(error.errno) if error.errno else str(error).partition("\n")[0]
        raise UserError(f"{path}: cannot be written ({reason}); free some space or choose another folder.") from error
    return path, True


def fingerprint(recipe: Recipe, info: DatasetInfo, ignore: Path) -> str:
    """SHA-256 over all that the prepared file depends on: the recipe's code, its description, its files.

    Files count by relative path, size and time of change: reading a large source just to find it
    unchanged would take as long as preparing it. `ignore` is the prepared file, should it lie in the source.
    """
    files = _listing(recipe.source, ignore) if recipe.layout else []
    code = code_of(type(recipe))
    content = {"format": FORMAT, "recipe": recipe.name, "code": code, "info": asdict(info), "files": files}
    content["lists"] = recipe.lists()  # which may lie beside the source
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def code_of(kind: type[Recipe]) -> dict[str, str]:
    """The text of the modules that define a recipe, and of all that these import for it, by name."""
    return follow_imports((base.__module__ for base in kind.__mro__), lambda name: bool(OWN.fullmatch(name)))


def _listing(source: Path, ignore: Path) -> list[tuple[str, int, int]]:
    listing = []
    for name in visible_files(source):
        file = source / name
        # Unlike their namesakes of Path, these take links in circles for links to nothing.
        if os.path.realpath(file) != os.path.realpath(ignore):
            state = file.stat() if os.path.exists(file) else file.lstat()
            listing.append((name, state.st_size, state.st_mtime_ns))
    return sorted(listing)


def _origin(recipe: Recipe, info: DatasetInfo) -> str:
    """What must not change unnoticed beneath a name: the recipe, and the folder where that gives the name."""
    named_by_folder = recipe.layout and info.name != recipe.name
    return f"{recipe.name}, {recipe.source.resolve()}" if named_by_folder else recipe.name


def _attributes(path: Path) -> dict[str, Any]:
    """What is told of a prepared file's making; nothing if it is absent or damaged, each a reason to prepare it."""
    try:
        with h5py.File(path, "r") as file:
            return dict(file.attrs)
    except OSError:
        return {}


def _cases(recipe: Recipe, info: DatasetInfo, progress: Progress | None, jobs: int) -> Iterator[PackedCase]:
    """The cases in the order of their items; goes on after an error, to report all kinds at the end."""
    items = recipe.items()
    errors: list[str] = []
    ids: dict[str, str] = {}
    kinds: dict[str, list[str]] = {}
    for done, result in enumerate(_loaded(recipe, info, items, jobs), start=1):
        if isinstance(result, PackedCase):
            case = result.record.id
            # Masks written for cases whose names differ in case alone overwrite each other on Windows and macOS.
            namesake = ids.get(case.casefold())
            if namesake == case:
                errors.append(f"{info.name}: two cases are called {case!r}; rename one of them.")
            elif namesake:
                errors.append(f"{info.name}: the cases {namesake!r} and {case!r} differ in case alone; rename one.")
            ids[case.casefold()] = case
            kinds.setdefault(_kind(result), []).append(case)
            if not errors and len(kinds) == 1:
                yield result
        else:
            errors += result
        if progress:
            progress(done, len(items))
    if len(kinds) > 1:
        errors.append(_mixture(info, kinds))
    if errors:
        raise UserErrors(one_of_each_kind(errors))


def _loaded(recipe: Recipe, info: DatasetInfo, items: list[Any], jobs: int) -> Iterator[PackedCase | list[str]]:
    """Load in this process until it is clear that others would help, then in `jobs` processes."""
    begun = time.perf_counter()
    for done, item in enumerate(items):
        left = len(items) - done
        # The first item pays for lazy imports and cold files, so it says little about the others.
        if jobs > 1 and done > 1 and (time.perf_counter() - begun) / done * left > WORTH_PROCESSES:
            yield from _loaded_by_processes(recipe, info, items[done:], min(jobs, left))
            return
        yield _load(recipe, info, item)


def _loaded_by_processes(
    recipe: Recipe, info: DatasetInfo, items: list[Any], jobs: int
) -> Iterator[PackedCase | list[str]]:
    """Keep a few items in flight: enough that no process waits, few enough that memory stays flat."""
    flying: deque[Future[PackedCase | list[str]]] = deque()
    # Forking a process that runs threads (torch's, HDF5's) can deadlock the child.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        try:
            for item in items:
                if len(flying) == 2 * jobs:
                    yield flying.popleft().result()
                flying.append(pool.submit(_load, recipe, info, item))
            while flying:
                yield flying.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                f"{info.name}: a loading process died, most likely for lack of memory; close "
                "other programs, or repeat with `--jobs 1`."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _load(recipe: Recipe, info: DatasetInfo, item: Any) -> PackedCase | list[str]:
    """The case of an item, ready to be written, or what is wrong with it."""
    try:
        return pack(recipe.load(item), info)
    except UserErrors as errors:
        return errors.messages
    except UserError as error:
        return [str(error)]
    except OSError as error:
        where = error.filename or _place(item)
        return [f"{where}: cannot be read ({error.strerror or error}); check the file and its permissions."]
    except Exception as error:  # damaged files make libraries, and recipes, fail in any way
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return [
            f"{_place(item)}: cannot be loaded ({reason}); replace it by an intact copy, or if it is one, "
            f"report this as a defect of the recipe {recipe.name}."
        ]


def _place(item: Any) -> Any:
    """The first file of an item, or the item itself where no file can be told."""
    values = vars(item).values() if hasattr(item, "__dict__") else ()
    flat = (part for value in values for part in (value if isinstance(value, tuple) else (value,)))
    return next((part for part in flat if isinstance(part, Path)), item)


def _kind(case: PackedCase) -> str:
    """What all cases of a data set share, because one network has to take them all."""
    channels, *space = case.record.shape
    color = {1: "grey (1 channel)", 3: "RGB (3 channels)"}.get(channels, f"of {channels} channels")
    return f"{len(space)}D, {color}, {case.kind}"


def _mixture(info: DatasetInfo, kinds: dict[str, list[str]]) -> str:
    *rare, common = sorted(kinds, key=lambda kind: len(kinds[kind]))
    listed = "; ".join(
        f"{', '.join(kinds[kind][:5])}{', ...' * (len(kinds[kind]) > 5)} ({len(kinds[kind])} in all) {kind}"
        for kind in rare
    )
    return (
        f"{info.name}: the cases differ in kind: {listed}, but the other "
        f"{len(kinds[common])} are {common}; convert them to one kind."
    )


def _processors() -> int:
    """The processors this process may use, which on a shared machine are not all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
