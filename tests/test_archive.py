"""Unpacking archives of unknown origin."""

import gzip
import io
import os
import shutil
import stat
import tarfile
import zipfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from semiseg.data import archive, budget
from semiseg.data.archive import is_archive, name_of, unpack, unpacked_from
from semiseg.errors import UserError

FILES = {"images/a.png": b"picture" * 900, "masks/a.png": b"", "readme.txt": os.urandom(5000)}


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as file:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def write(path: Path, files: dict[str, bytes]) -> Path:
    return (write_zip if path.suffix == ".zip" else write_tar)(path, files)


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files if path.name != ".unpacked"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that was unpacked earlier."""
    unpack([write_zip(tmp_path / "old.zip", {"old.txt": b"old"})], tmp_path / "raw/set", "earlier")
    return tmp_path / "raw/set"


def complaint(source: Path, folder: Path) -> str:
    """The one line of a refusal, after which the earlier folder is there, and nothing else."""
    with pytest.raises(UserError) as caught:
        unpack([source], folder, "now")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{source}: ")
    assert ";" in message, "no remedy"
    assert content(folder) == {"old.txt": b"old"}
    assert unpacked_from(folder) == "earlier"
    assert os.listdir(folder.parent) == [folder.name]
    return message


def test_archives_in_an_archive_are_unpacked_where_they_are(tmp_path: Path) -> None:
    inner = write(tmp_path / "images.tar.gz", {"images/a.png": b"picture"})
    unpack([write(tmp_path / "set.zip", {"set/images.tar.gz": inner.read_bytes()})], tmp_path / "raw", "now")
    assert content(tmp_path / "raw") == {"set/images/a.png": b"picture"}


def test_an_archive_in_an_archive_is_no_way_round_the_checks(tmp_path: Path, folder: Path) -> None:
    inner = write(tmp_path / "inner.zip", {"../evil.txt": b"evil"})
    with pytest.raises(UserError, match=rf"^{tmp_path}/set\.zip, in it inner\.zip: its member"):
        unpack([write(tmp_path / "set.zip", {"inner.zip": inner.read_bytes()})], folder, "now")
    assert content(folder) == {"old.txt": b"old"}
    assert not (tmp_path / "evil.txt").exists()


@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.tar.gz", "set.tgz"])
def test_every_kind_is_unpacked_to_the_byte(tmp_path: Path, name: str) -> None:
    source = write(tmp_path / name, FILES)
    unpack([source], tmp_path / "raw/set", "x")
    assert content(tmp_path / "raw/set") == FILES
    assert is_archive(source)
    assert name_of(source) == "set"


def test_several_archives_and_plain_files_make_one_folder(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(b"case")
    sources = [write_zip(tmp_path / "a.zip", {"a/1": b"1"}), write_tar(tmp_path / "b.tar", {"b/2": b"2"})]
    unpack([*sources, tmp_path / "table.csv"], tmp_path / "set", "x")
    assert content(tmp_path / "set") == {"a/1": b"1", "b/2": b"2", "table.csv": b"case"}


def test_an_earlier_folder_is_replaced_not_mixed(folder: Path, tmp_path: Path) -> None:
    unpack([write_zip(tmp_path / "new.zip", {"new.txt": b"new"})], folder, "later")
    assert content(folder) == {"new.txt": b"new"}
    assert unpacked_from(folder) == "later"
    assert os.listdir(folder.parent) == [folder.name]


def test_folders_of_a_zip_with_backslashes_are_folders(tmp_path: Path) -> None:
    files = {"set\\": b"", "set\\images\\": b"", "set\\images\\a.png": b"1"}
    unpack([write_zip(tmp_path / "set.zip", files)], tmp_path / "set", "x")
    assert content(tmp_path / "set") == {"set/images/a.png": b"1"}


def test_what_macos_adds_is_left_out(tmp_path: Path) -> None:
    files = {"images/a.png": b"1", "__MACOSX/images/._a.png": b"2", "images/.DS_Store": b"3"}
    unpack([write_zip(tmp_path / "set.zip", files)], tmp_path / "set", "x")
    assert content(tmp_path / "set") == {"images/a.png": b"1"}


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:\\evil"])
def test_no_member_leaves_the_folder(folder: Path, tmp_path: Path, kind: str, name: str) -> None:
    source = write(tmp_path / f"set.{kind}", {"fine.txt": b"", name: b"evil"})
    assert "outside" in complaint(source, folder)
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(folder: Path, tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as file:
        info = tarfile.TarInfo("way/out")
        info.type, info.linkname = kind, "/etc/passwd"
        file.addfile(info)
    assert "link or a device" in complaint(tmp_path / "set.tar", folder)


def test_links_in_a_zip_are_refused(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        info = zipfile.ZipInfo("out")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(info, "/etc")
    assert "link or a device" in complaint(tmp_path / "set.zip", folder)


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz"])
def test_a_bomb_is_refused_before_it_fills_the_disk(
    folder: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "HARMLESS", 2**20)
    source = write(tmp_path / name, {f"zeros{number}": bytes(2**19) for number in range(8)})
    assert "bomb" in complaint(source, folder)


@pytest.mark.parametrize("name", ["inner.zip", "inner.tar.gz"])
def test_a_bomb_of_bombs_has_no_more_than_one_budget(
    folder: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "HARMLESS", 2**20)
    monkeypatch.setattr(budget, "MOST_RATIO", 20)
    inner = write(tmp_path / name, {"noise": os.urandom(2**14), "zeros": bytes(2**19)}).read_bytes()
    source = write(tmp_path / "set.zip", {f"{number}/{name}": inner for number in range(8)})
    written: list[int] = []
    blocks = archive._blocks

    def counted(*args: Any) -> Iterator[bytes]:
        for block in blocks(*args):
            written.append(len(block))
            yield block

    monkeypatch.setattr(archive, "_blocks", counted)
    with pytest.raises(UserError, match=rf"^{source}, in it \d/{name}: would grow .* bombs do; ") as caught:
        unpack([source], folder, "now")
    assert "\n" not in str(caught.value)
    assert sum(written) <= max(2**20, 20 * source.stat().st_size)
    assert content(folder) == {"old.txt": b"old"}


@pytest.mark.parametrize("name", ["__MACOSX/zeros", "zeros"])
def test_what_is_passed_over_in_a_compressed_tar_counts(
    folder: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "HARMLESS", 2**20)
    assert "bomb" in complaint(write_tar(tmp_path / "set.tgz", {name: bytes(2**22), "a": b"a"}), folder)


def test_a_header_without_end_does_not_fill_the_memory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "HARMLESS", 2**20)
    with tarfile.open(tmp_path / "set.tgz", "w:gz", format=tarfile.PAX_FORMAT) as file:
        info = tarfile.TarInfo("a")
        info.pax_headers = {"comment": "0" * 2**22}
        file.addfile(info)
    read = gzip.GzipFile.read
    sizes: list[int] = []
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, size=-1: sizes.append(size) or read(self, size))
    assert "bomb" in complaint(tmp_path / "set.tgz", folder)
    assert 0 < max(sizes) <= 2**20 + 1


def test_what_shrinks_as_masks_do_is_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "HARMLESS", 2**20)
    files = {"a": bytes(2**21), "b": os.urandom(2**15)}
    unpack([write_zip(tmp_path / "set.zip", files)], tmp_path / "set", "x")
    assert content(tmp_path / "set") == files


@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.tar.gz"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_a_truncated_archive_gives_nothing(folder: Path, tmp_path: Path, name: str, share: float) -> None:
    source = write(tmp_path / name, FILES | {"more": os.urandom(9000)})
    source.write_bytes(source.read_bytes()[: int(share * source.stat().st_size)])
    assert "not a readable archive" in complaint(source, folder)


def test_a_tar_cut_between_two_members_gives_nothing(folder: Path, tmp_path: Path) -> None:
    source = write_tar(tmp_path / "set.tar", {"a": bytes(512), "b": bytes(512)})
    source.write_bytes(source.read_bytes()[:1024])
    assert "not a readable archive" in complaint(source, folder)


def test_a_tar_damaged_between_two_members_gives_nothing(folder: Path, tmp_path: Path) -> None:
    source = write_tar(tmp_path / "set.tar", {"a": b"1" * 512, "b": b"2" * 512})
    damaged = bytearray(source.read_bytes())
    damaged[1024:1100] = b"?" * 76
    source.write_bytes(damaged)
    assert "not a readable archive" in complaint(source, folder)


def test_a_flipped_byte_is_noticed(folder: Path, tmp_path: Path) -> None:
    source = write_zip(tmp_path / "set.zip", {"a": os.urandom(4000)})
    damaged = bytearray(source.read_bytes())
    damaged[2000] ^= 1
    source.write_bytes(damaged)
    assert "not a readable archive" in complaint(source, folder)


@pytest.mark.parametrize("text", [b"", b"<html>Please log in</html>"])
def test_what_is_no_archive_is_said_to_be_none(folder: Path, tmp_path: Path, text: bytes) -> None:
    for name in ("set.zip", "set.tar", "set.tgz"):
        (tmp_path / name).write_bytes(text)
        assert "not a readable archive" in complaint(tmp_path / name, folder)


def test_an_encrypted_zip_is_named_as_such(folder: Path, tmp_path: Path) -> None:
    source = write_zip(tmp_path / "set.zip", {"a": b"secret"})
    encrypted = bytearray(source.read_bytes())
    encrypted[6] |= 1  # the flag in the local header
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1  # and in the directory
    source.write_bytes(encrypted)
    assert "password" in complaint(source, folder)


def test_a_member_that_comes_twice_is_not_chosen_silently(folder: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as file:
        file.addfile(tarfile.TarInfo("a"))
        file.addfile(tarfile.TarInfo("./a"))
    assert "twice" in complaint(tmp_path / "set.tar", folder)


@pytest.mark.parametrize("names", [("a", "a/b"), ("a", "a/b/c")])
def test_a_file_where_a_folder_should_be_is_not_mistaken_for_a_full_disk(
    folder: Path, tmp_path: Path, names: tuple[str, str]
) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as file:
        for name in names:
            file.addfile(tarfile.TarInfo(name))
    assert "holds both a file and a folder" in complaint(tmp_path / "set.tar", folder)


@pytest.mark.parametrize("name", ["set.zip", "set.tar"])
def test_too_small_a_disk_is_noticed_before(
    folder: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 3000))
    message = complaint(write(tmp_path / name, FILES), folder)
    assert "--raw" in message
    assert "0 MB left" in message


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interruption_leaves_the_earlier_folder(
    folder: Path, tmp_path: Path, error: BaseException | type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise error

    unbroken: Callable[..., object] = archive._blocks
    monkeypatch.setattr(archive, "_blocks", lambda *args: interrupt() if "masks" in args[1].name else unbroken(*args))
    with pytest.raises((KeyboardInterrupt, UserError)):
        unpack([write_zip(tmp_path / "set.zip", FILES)], folder, "now")
    assert content(folder) == {"old.txt": b"old"}
    assert os.listdir(folder.parent) == [folder.name]


def test_the_earlier_folder_returns_if_the_new_one_cannot_take_its_place(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name == "made":
            raise PermissionError(13, "Permission denied", str(target))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(UserError, match="Permission denied"):
        unpack([write_zip(tmp_path / "set.zip", FILES)], folder, "now")
    assert content(folder) == {"old.txt": b"old"}
    assert os.listdir(folder.parent) == [folder.name]


def test_what_a_killed_process_left_does_not_fill_the_disk_forever(folder: Path, tmp_path: Path) -> None:
    left, running, other = (
        folder.parent / f".{name}" for name in ("set.partial-1", "set.partial-2", "set.x.partial-1")
    )
    for place in (left, running, other):
        (place / "made").mkdir(parents=True)
    for place in (left, other):
        os.utime(place, (0, 0))
    unpack([write_zip(tmp_path / "new.zip", {"new.txt": b"new"})], folder, "later")
    assert sorted(folder.parent.iterdir()) == sorted([folder, running, other])


def test_the_earlier_folder_returns_after_a_process_was_killed_while_it_was_replaced(
    folder: Path, tmp_path: Path
) -> None:
    left = folder.parent / ".set.partial-1"
    left.mkdir()
    folder.rename(left / "replaced")
    os.utime(left, (0, 0))
    (tmp_path / "damaged.zip").write_bytes(b"damaged")
    complaint(tmp_path / "damaged.zip", folder)


def test_others_may_read_what_was_unpacked(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    assert folder.stat().st_mode == (tmp_path / "plain").stat().st_mode
