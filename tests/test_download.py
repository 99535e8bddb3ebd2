"""Downloading from a server that behaves as servers do."""

import errno
import hashlib
import http.client
import http.server
import io
import os
import shutil
import threading
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from semiseg.data import download as downloading
from semiseg.data.download import download
from semiseg.data.recipe import Download, MadeOnRequest
from semiseg.errors import UserError


def archive() -> bytes:
    """A zip archive that is unlike any other."""
    with zipfile.ZipFile(file := io.BytesIO(), "w") as packed:
        packed.writestr("image.png", os.urandom(3 * 2**16))
    return file.getvalue()


CONTENT = archive()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`, with the faults that a test asks for."""

    content: bytes = CONTENT
    ranges = True
    tells_length = True
    tag = '"1"'
    kind = "application/zip"
    answers: tuple[int, ...] = ()  # status codes to begin with, instead of the content
    breaks: tuple[int, ...] = ()  # for each further request, the bytes after which the connection breaks

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, str]] = []

    def item(self, kind: type[Download] = Download, **known: Any) -> Download:
        return kind(f"http://127.0.0.1:{self.server_port}/set.zip", "set.zip", **known)


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(dict(self.headers))
        if server.answers:
            code, server.answers = server.answers[0], server.answers[1:]
            self.send_error(code)
            return
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if not server.ranges or self.headers.get("If-Range", server.tag) != server.tag:
            begin = 0
        if begin >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.end_headers()
            return
        self.send_response(206 if begin else 200)
        if server.tells_length:
            self.send_header("Content-Length", str(len(server.content) - begin))
        self.send_header("Content-Type", server.kind)
        if server.tag:
            self.send_header("ETag", server.tag)
        self.end_headers()
        end = len(server.content)
        if server.breaks:
            end, server.breaks = begin + server.breaks[0], server.breaks[1:]
        self.wfile.write(server.content[begin:end])

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that behaves until told otherwise."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the download paused, without pausing."""
    pauses: list[float] = []
    monkeypatch.setattr(downloading.time, "sleep", pauses.append)
    return pauses


def complaint(item: Download, folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        download(item, folder)
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value), "no remedy"
    return str(caught.value)


def test_the_file_arrives_with_its_progress(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = download(
        server.item(sha256=SHA256.upper(), size=len(CONTENT)), tmp_path / "raw", lambda *at: seen.append(at)
    )
    assert path.read_bytes() == CONTENT
    assert os.listdir(path.parent) == ["set.zip"]
    assert seen == sorted(seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_a_file_that_is_there_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        download(server.item(md5=hashlib.md5(CONTENT).hexdigest()), tmp_path)
    assert len(server.requests) == 1


def test_a_broken_connection_costs_only_what_had_not_arrived(server: Server, tmp_path: Path, slept: list) -> None:
    server.breaks = (70_000, 50_000)
    path = download(server.item(sha256=SHA256), tmp_path)
    assert path.read_bytes() == CONTENT
    assert [request.get("Range") for request in server.requests] == [None, "bytes=70000-", "bytes=120000-"]
    assert os.listdir(tmp_path) == ["set.zip"]
    assert slept == [1.0, 1.0], "progress was made, so there is no reason to wait longer"


def test_an_interrupted_program_goes_on_where_it_was(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(downloading, "BLOCK", 1000)
    with pytest.raises(KeyboardInterrupt):
        download(server.item(), tmp_path, interrupt)
    kept = (tmp_path / "set.zip.partial").stat().st_size
    assert kept > 0
    assert not (tmp_path / "set.zip").exists()
    assert download(server.item(), tmp_path).read_bytes() == CONTENT
    assert server.requests[-1]["Range"] == f"bytes={kept}-"


def test_a_server_that_cannot_resume_starts_over(server: Server, tmp_path: Path) -> None:
    server.ranges, server.breaks = False, (70_000,)
    assert download(server.item(sha256=SHA256), tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_two_versions_are_not_glued_together(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set.zip.partial").write_bytes(b"old" * 1000)
    (tmp_path / "set.zip.partial.version").write_text('"0"')
    assert download(server.item(), tmp_path).read_bytes() == CONTENT
    assert server.requests[0]["If-Range"] == '"0"'


def test_a_partial_file_longer_than_the_whole_is_dropped(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set.zip.partial").write_bytes(CONTENT + b"more")
    assert download(server.item(sha256=SHA256), tmp_path).read_bytes() == CONTENT


def test_a_download_interrupted_while_it_was_verified_is_not_repeated(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set.zip.partial").write_bytes(CONTENT)
    assert download(server.item(sha256=SHA256), tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert os.listdir(tmp_path) == ["set.zip"]


@pytest.mark.parametrize("known", [{"sha256": "0" * 64}, {"md5": "0" * 32}, {"size": 5}])
def test_a_wrong_file_is_not_kept(server: Server, tmp_path: Path, known: dict[str, Any]) -> None:
    message = complaint(server.item(**known), tmp_path)
    assert message.startswith(f"{tmp_path / 'set.zip'}: its ")
    assert os.listdir(tmp_path) == []


def test_a_file_damaged_since_is_named_but_not_deleted(server: Server, tmp_path: Path) -> None:
    download(server.item(sha256=SHA256), tmp_path).write_bytes(b"damaged")
    assert "delete it" in complaint(server.item(sha256=SHA256), tmp_path)
    assert (tmp_path / "set.zip").read_bytes() == b"damaged"


def test_without_a_published_checksum_the_first_download_is_remembered(server: Server, tmp_path: Path) -> None:
    download(server.item(), tmp_path).unlink()
    assert (tmp_path / "set.zip.sha256").read_text() == f"{SHA256}  set.zip\n"
    server.content = archive()
    message = complaint(server.item(), tmp_path)
    assert SHA256 in message
    assert f"delete {tmp_path / 'set.zip.sha256'}" in message
    assert not (tmp_path / "set.zip").exists()


def test_an_archive_made_on_request_can_be_downloaded_twice(server: Server, tmp_path: Path) -> None:
    download(server.item(MadeOnRequest), tmp_path).unlink()
    server.content = archive()
    (tmp_path / "set.zip.partial").write_bytes(CONTENT[:1000])
    assert download(server.item(MadeOnRequest), tmp_path).read_bytes() == server.content, "two were glued together"
    assert os.listdir(tmp_path) == ["set.zip"]


def test_an_archive_cut_short_is_not_remembered_as_the_right_one(server: Server, tmp_path: Path) -> None:
    server.tells_length, server.breaks = False, (70_000,)
    message = complaint(server.item(), tmp_path)
    assert "it is no zip archive, or its end is missing; download it again" in message
    assert os.listdir(tmp_path) == []
    assert download(server.item(), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_what_is_not_there_is_not_asked_for_again(server: Server, tmp_path: Path, code: int, slept: list) -> None:
    server.answers = (code,) * 9
    assert f"set.zip: the server answers {code}" in complaint(server.item(), tmp_path)
    assert len(server.requests) == 1
    assert slept == []


def test_a_busy_server_is_asked_again_ever_later(server: Server, tmp_path: Path, slept: list) -> None:
    server.answers = (503, 429, 500)
    assert download(server.item(), tmp_path).read_bytes() == CONTENT
    assert slept == [1.0, 2.0, 4.0]


def test_a_server_that_stays_busy_is_given_up(server: Server, tmp_path: Path) -> None:
    server.answers = (503,) * 99
    assert "503" in complaint(server.item(), tmp_path)
    assert len(server.requests) == 1 + len(downloading.PAUSES)


def test_a_server_that_begins_anew_and_never_gets_further_is_given_up(server: Server, tmp_path: Path) -> None:
    server.breaks = (8000, 9000) * 99
    assert "cannot be downloaded" in complaint(server.item(MadeOnRequest), tmp_path)
    assert len(server.requests) == 2 + 1 + len(downloading.PAUSES)


def test_a_network_that_goes_away_meanwhile_is_not_taken_for_a_full_disk(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slept: list
) -> None:
    read, failing = http.client.HTTPResponse.read1, [OSError(errno.EHOSTUNREACH, "No route to host")]

    def read1(response: http.client.HTTPResponse, size: int = -1) -> bytes:
        if failing:
            raise failing.pop()
        return read(response, size)

    monkeypatch.setattr(http.client.HTTPResponse, "read1", read1)
    assert download(server.item(), tmp_path).read_bytes() == CONTENT
    assert slept == [1.0]


def test_a_memory_that_a_full_disk_left_empty_is_written_anew(server: Server, tmp_path: Path) -> None:
    download(server.item(), tmp_path)
    (tmp_path / "set.zip.sha256").write_text("")
    download(server.item(), tmp_path)
    assert SHA256 in (tmp_path / "set.zip.sha256").read_text()


def test_offline_is_said_in_one_line(server: Server, tmp_path: Path) -> None:
    item = server.item()
    server.server_close()
    server.shutdown()
    message = complaint(item, tmp_path)
    assert message.startswith(f"{item.url}: cannot be downloaded (")
    assert "refused" in message


def test_a_host_that_does_not_exist_is_said_in_one_line(tmp_path: Path) -> None:
    assert "cannot be downloaded" in complaint(Download("http://nowhere.invalid/set.zip", "set.zip"), tmp_path)


def test_a_page_to_log_in_is_not_taken_for_the_file(server: Server, tmp_path: Path) -> None:
    server.kind = "text/html; charset=utf-8"
    assert "web page" in complaint(server.item(), tmp_path)
    assert os.listdir(tmp_path) == []


def test_too_small_a_disk_is_noticed_before(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 100))
    assert "0 MB left" in complaint(server.item(), tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written" in complaint(server.item(), tmp_path / "file")
