"""Finds the original files of a data set: in a folder, in an archive, or where the owner offers them."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from semiseg.data.archive import ARCHIVES, is_archive, name_of, unpack, unpacked_from
from semiseg.data.download import download
from semiseg.data.recipe import Recipe
from semiseg.errors import UserError

Progress = Callable[[str, int, int | None], None]


def open_recipe(kind: type[Recipe], source: Path | None, raw: Path, progress: Progress | None = None) -> Recipe:
    """The recipe on its files, which are downloaded and unpacked first if need be.

    Args:
        source: a folder or an archive; without it the files are those in `raw/NAME`, which is downloaded
            if it is not there and the owner allows it.
        progress: called with what is being done, and with how much of it is done and is to be done.
    """
    if not kind.layout:
        if source is not None:
            raise UserError(f"{kind.name}: is generated, and reads no files; leave --source out.")
        return kind(source)
    if source is None:
        folder = raw / kind.name
        if not folder.is_dir() and not kind.downloads:
            place = f"put the files into {folder}, or " if kind.registration else ""
            raise UserError(f"{kind.name}: {place}name their folder with --source DIR. {kind.expected()}")
        if kind.downloads:
            _download(kind, folder, raw / "downloads" / kind.name, progress)
        return _unwrapped(kind, folder)
    if source.is_file():
        if not is_archive(source):
            raise UserError(f"{source}: is neither a folder nor an archive ({', '.join(ARCHIVES)}). {kind.expected()}")
        return _unwrapped(kind, _unpacked(source, raw / name_of(source), progress))
    return kind(source)


def _download(kind: type[Recipe], folder: Path, kept: Path, progress: Progress | None) -> None:
    """Make the folder of the recipe's downloads, unless it is made of them or someone else has put it there."""
    wanted = json.dumps([asdict(item) for item in kind.downloads])
    if folder.is_dir() and unpacked_from(folder) in (None, wanted):
        return
    files = []
    for item in kind.downloads:
        report = partial(progress, f"Downloading {item.file}") if progress else None
        try:
            files.append(download(item, kept, report))
        except UserError as error:
            by_hand = f"To put the files in place by hand, unpack {item.url} into {folder}. {kind.expected()}"
            raise UserError(f"{error} {by_hand}") from error
    if progress:
        progress(f"Unpacking {kind.name}", 0, None)
    unpack(files, folder, wanted)


def _unpacked(archive: Path, folder: Path, progress: Progress | None) -> Path:
    """The folder made of an archive, anew if the archive has changed."""
    state = archive.stat()
    origin = f"{archive.resolve()} {state.st_size} {state.st_mtime_ns}"
    made_of = unpacked_from(folder)
    if made_of == origin:
        return folder
    if folder.exists() and (made_of or "").rsplit(" ", 2)[0] != str(archive.resolve()):
        raise UserError(f"{folder}: was there before {archive} was unpacked; rename it, or name it as --source.")
    if progress:
        progress(f"Unpacking {archive.name}", 0, None)
    unpack([archive], folder, origin)
    return folder


def _unwrapped(kind: type[Recipe], folder: Path) -> Recipe:
    """The recipe on a folder, or on the only folder in it: archives often have one around everything."""
    try:
        return _with_items(kind, folder)
    except UserError:
        inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
        if len(inside) == 1 and inside[0].is_dir():
            with contextlib.suppress(UserError):
                return _with_items(kind, inside[0])
        raise


def _with_items(kind: type[Recipe], folder: Path) -> Recipe:
    recipe = kind(folder)
    if not recipe.items():
        raise UserError(f"{folder}: holds no case. {kind.expected()}")
    return recipe
