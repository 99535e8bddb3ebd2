"""Preparing STARE."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from pictures import COLOR, LEFT, RIGHT, complaints, prepared, save
from semiseg.data import budget
from semiseg.data_prep.stare import Stare


def compress(path: Path) -> Path:
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return packed


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("folders", [("", "", ""), ("stare-images", "labels-ah", "labels-vk")])
def test_compressed_files_in_one_folder_or_several_are_read(
    tmp_path: Path, packed: bool, folders: tuple[str, ...]
) -> None:
    names = ("im0001.ppm", "im0001.ah.ppm", "im0001.vk.ppm")
    for folder, name, array in zip(folders, names, (COLOR, LEFT, RIGHT), strict=True):
        file = save(tmp_path / "raw" / folder / name, array, format="PPM")
        if packed:
            compress(file)
    data = prepared(Stare(tmp_path / "raw"))
    np.testing.assert_array_equal(data.image("im0001"), COLOR.transpose(2, 0, 1))
    np.testing.assert_array_equal(data.label("im0001"), LEFT)


def test_a_bomb_is_refused_before_it_fills_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "HARMLESS", 2**16)
    save(tmp_path / "raw/im0001.ah.ppm", LEFT, format="PPM")
    file = save(tmp_path / "raw/im0001.ppm", COLOR, format="PPM")
    file.write_bytes(file.read_bytes() + bytes(2**22))
    compress(file)
    (message,) = complaints(Stare(tmp_path / "raw"))
    assert "im0001.ppm.gz: would grow" in message


def test_a_cut_file_is_named(tmp_path: Path) -> None:
    save(tmp_path / "raw/im0001.ah.ppm", LEFT, format="PPM")
    file = compress(save(tmp_path / "raw/im0001.ppm", COLOR))
    file.write_bytes(file.read_bytes()[:-9])
    (message,) = complaints(Stare(tmp_path / "raw"))
    assert "im0001.ppm.gz: not a readable image, truncated" in message
