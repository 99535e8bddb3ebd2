"""Unpacks archives that come from anywhere: all of it, and only below its folder, or nothing."""

import contextlib
import errno
import glob
import shutil
import stat
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, cast

from semiseg.data.store import ABANDONED
from semiseg.errors import UserError

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
# Medical images shrink to a third, masks perhaps to a hundredth; an archive of nothing but zeros to a thousandth.
MOST_RATIO = 200
HARMLESS = 100 * 2**20  # in bytes; no ratio makes less than this a bomb
REPLACED = "replaced"  # where the earlier folder waits while the new one takes its place
LEFT_BY_SYSTEMS = ("__MACOSX", ".DS_Store", "Thumbs.db")


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


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
    for file in files:
        if is_archive(file):
            _unpack(file, made)
            for inner in [path for path in made.rglob("*") if path.is_file() and is_archive(path)]:
                try:
                    _unpack(inner, inner.parent)  # as in Kvasir-Instrument, whose images and masks are archives
                except UserError as error:  # it is gone when the message is read
                    raise UserError(
                        str(error).replace(str(inner), f"{file}, in it {inner.relative_to(made)}")
                    ) from error
                inner.unlink()
        else:
            _require_space(file, file.stat().st_size, made)
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


def _unpack(archive: Path, folder: Path) -> None:
    """Write the members of an archive below a folder, refusing what a well-meant archive never holds."""
    total = 0
    compressed = archive.stat().st_size
    for member in _members(archive, folder):
        parts = _parts(archive, member.name)
        if any(part in LEFT_BY_SYSTEMS for part in parts):
            continue
        total += member.size
        if total > HARMLESS and total > MOST_RATIO * compressed:
            raise UserError(
                f"{archive}: would grow from {compressed} to more than {total} bytes, as only zip bombs do; "
                "if you trust it, unpack it yourself and give the folder as --source."
            )
        _require_space(archive, member.size, folder)
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
    except Exception as error:  # zlib, lzma, gzip and both libraries raise their own on damaged archives
        raise _unreadable(archive, error) from error


def _members(archive: Path, folder: Path) -> Iterator[Member]:
    """The files of an archive, in its order."""
    members = _zip_members(archive, folder) if archive.name.lower().endswith(".zip") else _tar_members(archive)
    try:
        yield from members
    except UserError:
        raise
    except Exception as error:
        raise _unreadable(archive, error) from error


def _zip_members(archive: Path, folder: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        infos = [info for info in file.infolist() if not info.is_dir()]
        # A zip tells all sizes beforehand, so that nobody waits for an hour to learn that the disk is too small.
        if sum(info.file_size for info in infos) <= max(HARMLESS, MOST_RATIO * archive.stat().st_size):
            _require_space(archive, sum(info.file_size for info in infos), folder)
        for info in infos:
            if info.flag_bits & 1:
                raise UserError(
                    f"{archive}: is encrypted; unpack it with its password and give the folder as --source."
                )
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) and not stat.S_ISREG(mode):
                raise _link(archive, info.filename)
            yield Member(info.filename, info.file_size, partial(file.open, info))


def _tar_members(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive) as file:
        for info in file:
            if info.isdir():
                continue
            if not info.isreg():
                raise _link(archive, info.name)
            yield Member(info.name, info.size, partial(file.extractfile, info))  # type: ignore[arg-type]
        # To tarfile an archive that is cut between two members, or damaged there, ends at that point. A whole one
        # ends with two blocks of zeros, of which the first was just read.
        blocks = cast(IO[bytes], file.fileobj)
        if blocks.tell() < file.offset + tarfile.BLOCKSIZE or any(blocks.read(tarfile.BLOCKSIZE)):
            raise EOFError("the end is missing")


def _parts(archive: Path, name: str) -> tuple[str, ...]:
    """The folders and the name of a member, which must lie below where it is unpacked."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name.partition("/")[0] or not path.parts:
        raise UserError(
            f"{archive}: its member {name!r} would be written outside of the folder; "
            "do not use this archive, get it from the owner."
        )
    return path.parts


def _link(archive: Path, name: str) -> UserError:
    return UserError(
        f"{archive}: its member {name!r} is a link or a device, not a file; "
        "if you trust it, unpack it yourself and give the folder as --source."
    )


def _require_space(file: Path, size: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"{file}: needs {size / 1e6:.0f} MB to be unpacked, {folder.parent} has {free / 1e6:.0f} MB left; "
            "free some space or choose another folder with --raw."
        )


def _unreadable(archive: Path, error: Exception) -> UserError:
    if isinstance(error, OSError) and error.errno == errno.EACCES:
        return UserError(f"{archive}: no permission to read it; change that with `chmod +r`.")
    reason = str(error).partition("\n")[0] or type(error).__name__
    return UserError(
        f"{archive}: not a readable archive, truncated or of another kind ({reason}); "
        "replace it by an intact copy or unpack it yourself."
    )
