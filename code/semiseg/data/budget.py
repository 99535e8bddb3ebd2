"""How much may be unpacked from a file: what well-meant files hold, and no bomb fits into."""

import shutil
from pathlib import Path
from typing import Protocol

from semiseg.errors import UserError

# Medical images shrink to a third, masks perhaps to a hundredth; an archive of nothing but zeros to a thousandth.
MOST_RATIO = 200
HARMLESS = 100 * 2**20  # in bytes; no ratio makes less than this a bomb


class Stream(Protocol):
    """What bytes are read from."""

    def read(self, size: int = -1, /) -> bytes:
        """Read on, at most so many bytes."""

    def seek(self, position: int, whence: int = 0, /) -> int:
        """Go to a position."""

    def tell(self) -> int:
        """The position."""


class Budget:
    """The bytes that may still come out of some archives, those in them and what is in these included."""

    def __init__(self, compressed: int) -> None:
        self.compressed = compressed
        self.left = self.whole = max(HARMLESS, MOST_RATIO * compressed)

    def spend(self, size: int, archive: Path) -> None:
        """Take from what is left, or refuse the archive that asks for more."""
        if size > self.left:
            raise UserError(
                f"{archive}: would grow from {self.compressed} to more than {self.whole} bytes, as only zip bombs do; "
                "if you trust it, unpack it yourself and give the folder as --source."
            )
        self.left -= size


class Metered:
    """What is decompressed from an archive, which is never read, or passed over, beyond a budget."""

    def __init__(self, stream: Stream, archive: Path, budget: Budget) -> None:
        self._stream, self._archive, self._budget = stream, archive, budget
        self._furthest = 0  # going back, as tarfile does by a byte, costs nothing

    def read(self, size: int = -1) -> bytes:
        """Read, but not even into memory more than there can be."""
        most = self._furthest - self.tell() + self._budget.left + 1
        content = self._stream.read(most if size < 0 else min(size, most))
        self._reach(self.tell())
        return content

    def seek(self, position: int, whence: int = 0) -> int:
        """Go to a position from the beginning, whose way there is decompressed as well."""
        assert whence == 0
        self._reach(position)
        return self._stream.seek(position)

    def tell(self) -> int:
        """The position."""
        return self._stream.tell()

    def _reach(self, position: int) -> None:
        if position > self._furthest:
            self._budget.spend(position - self._furthest, self._archive)
            self._furthest = position


def require_space(file: Path, size: int, folder: Path) -> None:
    """Refuse a file that does not fit on the disk."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"{file}: needs {size / 1e6:.0f} MB to be unpacked, {folder.parent} has {free / 1e6:.0f} MB left; "
            "free some space or choose another folder with --raw."
        )
