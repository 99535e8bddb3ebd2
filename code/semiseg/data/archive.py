"""Unpacks archives that come from anywhere: all of it, and only below its folder, or nothing."""

import contextlib
import glob
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from semiseg.data.budget import Budget, require_space
from semiseg.data.members import Member, members, unreadable
from semiseg.data.store import ABANDONED
from semiseg.errors import UserError

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
REPLACED = "replaced"  # where the earlier folder waits while the new one takes its place
LEFT_BY_SYSTEMS = ("__MACOSX", ".DS_Store", "Thumbs.db")


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive that can be unpacked."""
    return path.name.lower().endswith(ARCHIVES)


def name_of(archive: Path) -> str:
    """The name without its ending: `scans` for `scans.tar.gz`."""
    ending = next(ending for ending in sorted(ARCHIVES, key=len, reverse=True) if archive.name.lower().endswith(ending))
    return archive.name[: -len(ending)]


def unpack(files: Iterable[Path], folder: Path, origin: str) -> None:
    """Make `folder` of archives, and of copies of what is no archive, all at once or not at all.

    Args:
        origin: what the folder is made of; kept in it, for `unpacked_from`.

    Raises:
        UserError: an archive is damaged, encrypted, or would harm; `folder` is left as it was.
    """
    prefix = f".{folder.name}.partial-"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _tidy_up(folder, prefix)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=folder.parent, ignore_cleanup_errors=True) as place:
            made, replaced = Path(place, "made"), Path(place, REPLACED)
            made.mkdir()  # unlike the place itself, with the permissions that folders have here
            _fill(made, files)
            (made / ".unpacked").write_text(origin, encoding="utf-8")
            try:
                if folder.exists():
                    folder.rename(replaced)
                made.rename(folder)
            finally:
                if replaced.exists() and not folder.exists():
                    replaced.rename(folder)
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: cannot be written ({error.strerror or error}); "
            "free some space or choose another folder with --raw."
        ) from error


def _fill(made: Path, files: Iterable[Path]) -> None:
    """Unpack archives, those in them too, and copy the other files."""
    files = list(files)
    budget = Budget(sum(file.stat().st_size for file in files if is_archive(file)))
    for file in files:
        if is_archive(file):
            _unpack(file, made, budget)
            for inner in [path for path in made.rglob("*") if path.is_file() and is_archive(path)]:
                try:
                    _unpack(inner, inner.parent, budget)  # as in Kvasir-Instrument, whose images and masks are archives
                except UserError as error:  # it is gone when the message is read
                    raise UserError(
                        str(error).replace(str(inner), f"{file}, in it {inner.relative_to(made)}")
                    ) from error
                inner.unlink()
        else:
            require_space(file, file.stat().st_size, made)
            shutil.copyfile(file, made / file.name)


def _tidy_up(folder: Path, prefix: str) -> None:
    """Put back, and remove, what is left of processes that were killed while they made the folder."""
    for place in folder.parent.glob(f"{glob.escape(prefix)}*"):
        with contextlib.suppress(OSError):  # gone by now, or another user's
            abandoned = time.time() - place.stat().st_mtime > ABANDONED
            if (place / REPLACED).exists() and not folder.exists():
                (place / REPLACED).rename(folder)
            if abandoned:
                shutil.rmtree(place, ignore_errors=True)


def unpacked_from(folder: Path) -> str | None:
    """What `unpack` made the folder of; None if it did not make it."""
    try:
        return (folder / ".unpacked").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _unpack(archive: Path, folder: Path, budget: Budget) -> None:
    """Write the members of an archive below a folder, refusing what a well-meant archive never holds."""
    for member in members(archive, folder, budget):
        parts = _parts(archive, member.name)
        if any(part in LEFT_BY_SYSTEMS for part in parts):
            continue
        require_space(archive, member.size, folder)
        target = folder.joinpath(*parts)
        if target.exists():
            raise UserError(f"{archive}: holds {member.name} twice; unpack it yourself and keep the right one.")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise UserError(
                f"{archive}: holds both a file and a folder on the way to {member.name}; unpack it yourself."
            ) from error
        with target.open("wb") as out:
            for block in _blocks(archive, member):
                out.write(block)


def _blocks(archive: Path, member: Member) -> Iterator[bytes]:
    """The content of a member; what is wrong with it concerns the archive, not the file being written."""
    try:
        with member.open() as content:
            while block := content.read(2**20):
                yield block
    except UserError:
        raise
    except Exception as error:  # zlib, lzma, gzip and both libraries raise their own on damaged archives
        raise unreadable(archive, error) from error


def _parts(archive: Path, name: str) -> tuple[str, ...]:
    """The folders and the name of a member, which must lie below where it is unpacked."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name.partition("/")[0] or not path.parts:
        raise UserError(
            f"{archive}: its member {name!r} would be written outside of the folder; "
            "do not use this archive, get it from the owner."
        )
    return path.parts
