"""Which files lie below a folder."""

import os
from collections.abc import Iterator
from pathlib import Path


def visible_files(source: Path) -> Iterator[str]:
    """The paths of all files below a folder, relative to it, sorted by folder; links are followed, not in circles."""
    visited: set[Path] = set()
    for folder, subfolders, names in os.walk(source, followlinks=True):
        if Path(folder).resolve() in visited:
            subfolders.clear()
            continue
        visited.add(Path(folder).resolve())
        subfolders[:] = sorted(name for name in subfolders if not name.startswith((".", "__MACOSX")))
        yield from (
            Path(folder, name).relative_to(source).as_posix() for name in sorted(names) if not name.startswith(".")
        )
