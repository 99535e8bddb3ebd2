"""Downloads the files that an owner gives to anyone: resumed, retried, and compared with a checksum."""

import hashlib
import http.client
import shutil
import ssl
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from semiseg.data.recipe import Download, MadeOnRequest
from semiseg.errors import UserError

PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds to wait before each attempt that follows one without any progress
SILENCE = 30.0  # seconds without a byte after which the connection counts as lost
BLOCK = 2**20
WORTH_RETRYING = (408, 425, 429, 500, 502, 503, 504)
LOST = (ConnectionError, TimeoutError, ssl.SSLError)
Progress = Callable[[int, int | None], None]


def download(item: Download, folder: Path, progress: Progress | None = None) -> Path:
    """The file in `folder`, downloaded unless it is there, and compared with its checksum in any case.

    What arrived before an interruption is kept in `FILE.partial`, and the next call goes on from there.
    Where the owner publishes no checksum, the SHA-256 of the first complete download is kept in `FILE.sha256`:
    it shows that a later one is the same file, not that the first was the right one. Of archives that the server
    makes on request nothing is remembered, nor is a partial one continued.

    Args:
        progress: called with the number of bytes there are and that of all, if the server tells it.
    """
    target, partial = folder / item.file, folder / f"{item.file}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            _fetch(item, partial, progress)
            _verify(item, partial, target)
            partial.rename(target)
            _validator(partial).unlink(missing_ok=True)
        else:
            _verify(item, target, target)
    except OSError as error:
        raise UserError(
            f"{error.filename or target}: cannot be written ({error.strerror or error}); "
            "free some space and repeat the command, which goes on where it was, or choose another folder with --raw."
        ) from error
    return target


def _fetch(item: Download, partial: Path, progress: Progress | None) -> None:
    """Request what is missing until nothing is, giving up after several attempts that brought nothing."""
    failures, furthest = 0, 0 if isinstance(item, MadeOnRequest) else _size(partial)
    while True:
        before = _size(partial)
        try:
            if _request(item, partial, progress):
                return
            reason = "the connection was lost"
        except urllib.error.HTTPError as error:
            if error.code == 416:  # there is nothing after what is there, which may mean that it is all
                if error.headers.get("Content-Range") == f"bytes */{before}":
                    return
                partial.unlink(missing_ok=True)
                furthest = 0
            elif error.code not in WORTH_RETRYING:
                raise UserError(
                    f"{item.url}: the server answers {error.code} {error.reason}; the address may have changed."
                ) from error
            reason = f"the server answers {error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, *LOST) as error:
            reason = str(getattr(error, "reason", "") or error or type(error).__name__)
        failures = 0 if _size(partial) > furthest else failures + 1  # where each try begins anew, too
        furthest = max(furthest, _size(partial))
        if failures > len(PAUSES):
            raise UserError(f"{item.url}: cannot be downloaded ({reason}); try again later, what is there is kept.")
        time.sleep(PAUSES[max(failures, 1) - 1])


def _request(item: Download, partial: Path, progress: Progress | None) -> bool:
    """Append what one connection brings; whether the file is complete then."""
    there = 0 if isinstance(item, MadeOnRequest) else _size(partial)
    # A server that compressed on the way would make sizes and ranges meaningless.
    headers = {"User-Agent": "semiseg", "Accept-Encoding": "identity"}
    if there:
        headers["Range"] = f"bytes={there}-"
        if _validator(partial).exists():
            headers["If-Range"] = _validator(partial).read_text(encoding="utf-8")
    with urllib.request.urlopen(urllib.request.Request(item.url, headers=headers), timeout=SILENCE) as response:
        if response.headers.get_content_type() == "text/html" and not item.file.endswith((".html", ".htm")):
            raise UserError(f"{item.url}: the server sends a web page instead of the file; open it in a browser.")
        if response.status != 206:  # the server cannot go on in the middle, or the file has changed
            there = 0
        length = response.headers.get("Content-Length")
        total = there + int(length) if length else None
        _require_space(item, total or item.size, there, partial.parent)
        tag = response.headers.get("ETag") or ""
        _validator(partial).unlink(missing_ok=True)
        if strong := (tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")):
            _validator(partial).write_text(strong, encoding="utf-8")
        with partial.open("ab" if there else "wb") as file:
            for block in _blocks(response):
                file.write(block)
                there += len(block)
                if progress:
                    progress(there, total or item.size)
    return there == (total or there)


def _blocks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """What arrives; whatever goes wrong with that is the network's fault and not the disk's."""
    while True:
        try:
            block = response.read1(BLOCK)
        except OSError as error:  # such as no route to the host
            raise ConnectionError(error.strerror or str(error)) from error
        if not block:
            return
        yield block


def _verify(item: Download, file: Path, target: Path) -> None:
    """Compare a complete download with what is known of it; a wrong one is deleted, it cannot be resumed."""
    remembered = target.with_name(f"{target.name}.sha256")
    lasting = not isinstance(item, MadeOnRequest)
    kind, expected, authority = "sha256", item.sha256, "the owner publishes"
    remedy = "the owner has changed it"
    if item.md5 and not item.sha256:
        kind, expected = "md5", item.md5
    elif not item.sha256 and lasting and (known := _remembered(remembered)):
        expected, authority = known, f"{remembered} remembers"
        remedy = f"the first was damaged or the owner has changed it: delete {remembered}"
    with file.open("rb") as content:
        found = hashlib.file_digest(content, kind).hexdigest()
    wrong = ""
    if item.size not in (None, file.stat().st_size):
        wrong = f"its size is {file.stat().st_size} bytes, but should be {item.size}"
    elif expected and found != expected.lower():
        wrong = f"its {kind} is {found}, but {authority} {expected}"
    elif not expected and target.suffix == ".zip" and not zipfile.is_zipfile(file):
        wrong = "it is no zip archive, or its end is missing"
    if wrong:
        if file != target:
            file.unlink()
            _validator(file).unlink(missing_ok=True)
        again = f"download it again; if that does not help, {remedy}"
        raise UserError(f"{target}: {wrong}; {again if file != target else f'delete it and {again}'}.")
    if lasting and not expected:
        unfinished = remembered.with_name(f"{remembered.name}.partial")
        unfinished.write_text(f"{found}  {target.name}\n", encoding="utf-8")
        unfinished.replace(remembered)


def _remembered(file: Path) -> str:
    """The checksum of an earlier download; empty if there is none, or if a full disk kept it from being written."""
    return next(iter(file.read_text(encoding="utf-8").split()), "") if file.exists() else ""


def _require_space(item: Download, total: int | None, there: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if total and total - there > free:
        raise UserError(
            f"{item.url}: {(total - there) / 1e6:.0f} MB are to be downloaded, {folder} has {free / 1e6:.0f} MB left; "
            "free some space or choose another folder with --raw."
        )


def _validator(partial: Path) -> Path:
    """What the server calls the version that the partial file is the beginning of."""
    return partial.with_name(f"{partial.name}.version")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
