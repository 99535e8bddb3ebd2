"""From a download or an archive to a recipe on a folder."""

import hashlib
import http.server
import io
import os
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from semiseg.console.preparing import prepare_dataset
from semiseg.data import download as downloading
from semiseg.data.recipe import Download, Recipe
from semiseg.data.source import open_recipe
from semiseg.data.store import Dataset
from semiseg.data_prep.image_folder import ImageFolder
from semiseg.errors import UserError


def picture(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 5), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def pack(path: Path, top: str = "", cases: int = 2) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for case in range(cases):
            file.writestr(f"{top}images/{case}.png", picture(100))
            file.writestr(f"{top}masks/{case}.png", picture(1))
    return path


class Polyps(ImageFolder):
    """Pictures that can be downloaded."""

    name = "polyps"
    served: ClassVar[list[str]] = []


@pytest.fixture
def polyps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Polyps]]:
    """A recipe whose archive a server has."""
    archive = pack(tmp_path / "polyps-v1.zip", "polyps-v1/").read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            Polyps.served.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(archive)

        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        address = f"http://127.0.0.1:{server.server_port}/polyps-v1.zip"
        item = Download(address, "polyps-v1.zip", sha256=hashlib.sha256(archive).hexdigest())
        monkeypatch.setattr(Polyps, "downloads", (item,))
        monkeypatch.setattr(Polyps, "served", [])
        monkeypatch.setattr(downloading, "PAUSES", (0.0,))
        yield Polyps
        server.shutdown()


def complaint(kind: type[Recipe], source: Path | None, raw: Path) -> str:
    with pytest.raises(UserError) as caught:
        open_recipe(kind, source, raw)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_command_downloads_unpacks_and_prepares(
    polyps: type[Polyps], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semiseg.console.preparing.recipe", lambda name: polyps)
    prepare_dataset("polyps", None, tmp_path / "data")
    assert len(Dataset(tmp_path / "data/polyps-v1.h5").records) == 2
    before = (tmp_path / "data/polyps-v1.h5").stat().st_mtime_ns
    prepare_dataset("polyps", None, tmp_path / "data")
    assert len(polyps.served) == 1
    assert (tmp_path / "data/polyps-v1.h5").stat().st_mtime_ns == before
    assert sorted(os.listdir(tmp_path / "data/raw")) == ["downloads", "polyps"]


def test_the_archive_may_be_deleted_once_it_is_unpacked(polyps: type[Polyps], tmp_path: Path) -> None:
    open_recipe(polyps, None, tmp_path / "raw")
    (tmp_path / "raw/downloads/polyps/polyps-v1.zip").unlink()
    assert len(open_recipe(polyps, None, tmp_path / "raw").items()) == 2
    assert len(polyps.served) == 1


def test_a_new_version_of_the_recipe_is_downloaded(
    polyps: type[Polyps], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_recipe(polyps, None, tmp_path / "raw")
    newer = Download(polyps.downloads[0].url.replace("v1", "v2"), "polyps-v2.zip")
    monkeypatch.setattr(polyps, "downloads", (newer,))
    open_recipe(polyps, None, tmp_path / "raw")
    assert polyps.served == ["/polyps-v1.zip", "/polyps-v2.zip"]


def test_files_put_in_place_by_hand_need_no_network(polyps: type[Polyps], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "polyps-v1.zip") as file:
        file.extractall(tmp_path / "raw/polyps")
    assert len(open_recipe(polyps, None, tmp_path / "raw").items()) == 2
    assert polyps.served == []


def test_offline_names_the_page_the_place_and_the_layout(
    polyps: type[Polyps], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polyps, "downloads", (Download("http://127.0.0.1:9/polyps.zip", "polyps.zip"),))
    message = complaint(polyps, None, tmp_path / "raw")
    assert "http://127.0.0.1:9/polyps.zip" in message
    assert str(tmp_path / "raw/polyps") in message
    assert polyps.layout in message
    assert not (tmp_path / "raw/polyps").exists()


def test_data_behind_a_registration_are_not_guessed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Polyps, "registration", "https://example.org/polyps")
    message = complaint(Polyps, None, tmp_path / "raw")
    assert "https://example.org/polyps" in message
    assert Polyps.layout in message
    assert str(tmp_path / "raw/polyps") in message


@pytest.mark.parametrize("top", ["", "mine/", "a/b/"])
def test_an_archive_is_a_source_with_or_without_a_folder_around(tmp_path: Path, top: str) -> None:
    source = pack(tmp_path / "frames.zip", top)
    if top == "a/b/":
        assert "frames/images: there is no such folder" in complaint(ImageFolder, source, tmp_path / "raw")
        return
    recipe = open_recipe(ImageFolder, source, tmp_path / "raw")
    assert len(recipe.items()) == 2
    assert recipe.info().name == (top.strip("/") or "frames")


def test_an_archive_is_unpacked_anew_only_when_it_changed(tmp_path: Path) -> None:
    source = pack(tmp_path / "frames.zip")
    open_recipe(ImageFolder, source, tmp_path / "raw")
    before = (tmp_path / "raw/frames").stat().st_ino
    open_recipe(ImageFolder, source, tmp_path / "raw")
    assert (tmp_path / "raw/frames").stat().st_ino == before
    pack(source, cases=3)
    assert len(open_recipe(ImageFolder, source, tmp_path / "raw").items()) == 3


def test_an_archive_does_not_overwrite_a_folder_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "raw/frames").mkdir(parents=True)
    (tmp_path / "raw/frames/precious").write_text("")
    assert "rename it" in complaint(ImageFolder, pack(tmp_path / "frames.zip"), tmp_path / "raw")
    (tmp_path / "other").mkdir()
    open_recipe(ImageFolder, pack(tmp_path / "clips.zip"), tmp_path / "raw")
    assert "rename it" in complaint(ImageFolder, pack(tmp_path / "other/clips.zip"), tmp_path / "raw")
    assert (tmp_path / "raw/frames/precious").exists()


def test_a_file_of_another_kind_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "frames.rar").write_bytes(b"Rar!")
    assert "neither a folder nor an archive" in complaint(ImageFolder, tmp_path / "frames.rar", tmp_path / "raw")
    assert "no such folder, or archive" in complaint(ImageFolder, tmp_path / "absent.zip", tmp_path / "raw")
