"""Reads what is in an archive, member by member, refusing what a well-meant archive never holds."""

import contextlib
import errno
import gzip
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple, cast

from semiseg.data.budget import Budget, Metered, Stream, require_space
from semiseg.errors import UserError

GZIP = b"\x1f\x8b"  # what such a file begins with


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    size: int
    open: Callable[[], contextlib.AbstractContextManager[Stream]]


def members(archive: Path, folder: Path, budget: Budget) -> Iterator[Member]:
    """The files of an archive, in its order; whatever is decompressed to read it comes out of the budget."""
    zipped = archive.name.lower().endswith(".zip")
    try:
        yield from _zip_members(archive, folder, budget) if zipped else _tar_members(archive, budget)
    except UserError:
        raise
    except Exception as error:
        raise unreadable(archive, error) from error


def _zip_members(archive: Path, folder: Path, budget: Budget) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        infos = [info for info in file.infolist() if not info.filename.endswith(("/", "\\"))]
        # A zip tells all sizes beforehand, so that nobody waits for an hour to learn that the disk is too small.
        if (size := sum(info.file_size for info in infos)) <= budget.left:
            require_space(archive, size, folder)
        for info in infos:
            if info.flag_bits & 1:
                raise UserError(
                    f"{archive}: is encrypted; unpack it with its password and give the folder as --source."
                )
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) and not stat.S_ISREG(mode):
                raise _link(archive, info.filename)
            yield Member(info.filename, info.file_size, partial(_metered, file, info, archive, budget))


@contextlib.contextmanager
def _metered(file: zipfile.ZipFile, info: zipfile.ZipInfo, archive: Path, budget: Budget) -> Iterator[Metered]:
    with file.open(info) as content:
        yield Metered(content, archive, budget)


def _tar_members(archive: Path, budget: Budget) -> Iterator[Member]:
    with archive.open("rb") as start:
        packed = start.read(2) == GZIP
    # Not even the headers of a tar are bounded, so that what is read to find its members counts, too.
    with (
        gzip.open(archive) if packed else archive.open("rb") as raw,
        tarfile.open(fileobj=cast(IO[bytes], Metered(raw, archive, budget)), mode="r:") as file,
    ):
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


def _link(archive: Path, name: str) -> UserError:
    return UserError(
        f"{archive}: its member {name!r} is a link or a device, not a file; "
        "if you trust it, unpack it yourself and give the folder as --source."
    )


def unreadable(archive: Path, error: Exception) -> UserError:
    """The error for an archive that its library could not read."""
    if isinstance(error, OSError) and error.errno == errno.EACCES:
        return UserError(f"{archive}: no permission to read it; change that with `chmod +r`.")
    reason = str(error).partition("\n")[0] or type(error).__name__
    return UserError(
        f"{archive}: not a readable archive, truncated or of another kind ({reason}); "
        "replace it by an intact copy or unpack it yourself."
    )
