"""Pairing pictures with masks by their names."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from pictures import COLOR, GREY, LEFT, RIGHT, complaints, groups, prepared, save
from semiseg.data.pairs import PairedPictures, foreground
from semiseg.errors import UserError


class Eyes(PairedPictures):
    """Two structures, each with its own masks, of people who have two eyes."""

    name = "eyes"
    summary = task = layout = title = modality = page = citation = licence = "for tests"
    classes = ("background", "disc", "cup")
    grouping = "patient"
    images: ClassVar[str] = r"photos/(?P<case>(?P<group>p\d)_[lr])\.png"
    masks = ((r"disc/(?P<case>p\d_[lr])\.png", 1), (r"cup/(?P<case>p\d_[lr])_cup\.gif", 2))
    unlabeled = r"test/.*"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two good cases of one person, in different folders."""
    for case, folder in (("p1_l", "first"), ("p1_r", "second/deeper")):
        save(tmp_path / f"eyes/{folder}/photos/{case}.PNG", COLOR)
        save(tmp_path / f"eyes/{folder}/disc/{case}.png", LEFT | RIGHT)
        save(tmp_path / f"eyes/cup/{case}_cup.gif", RIGHT)
    return tmp_path / "eyes"


def test_images_find_their_masks_in_whatever_folder_an_archive_has_around_them(source: Path) -> None:
    data = prepared(Eyes(source))
    np.testing.assert_array_equal(data.image("p1_l"), COLOR.transpose(2, 0, 1))
    np.testing.assert_array_equal(data.label("p1_r"), LEFT + 2 * RIGHT)


def test_the_eyes_of_a_patient_stay_together(source: Path) -> None:
    data = prepared(Eyes(source))
    assert groups(data) == {"p1_l": "p1", "p1_r": "p1"}
    assert data.info.grouping == "patient"


def test_linked_folders_are_searched_but_not_in_circles(source: Path, tmp_path: Path) -> None:
    (source / "cup").rename(tmp_path / "disk")
    (source / "cup").symlink_to(tmp_path / "disk")
    (source / "circle").symlink_to(source)
    assert len(prepared(Eyes(source)).records) == 2


def test_every_bad_file_is_reported_at_once(source: Path) -> None:
    for case in ("p2_l", "p3_l", "p4_l", "p5_l", "p6_l", "p7_l"):
        save(source / f"photos/{case}.png", COLOR)
        save(source / f"disc/{case}.png", LEFT)
        save(source / f"cup/{case}_cup.gif", RIGHT)
    (source / "disc/p2_l.png").unlink()
    (source / "photos/p3_l.png").unlink()
    save(source / "copy/photos/p4_l.png", COLOR)
    save(source / "disc/p5_l.png", LEFT[1:])
    (source / "photos/p6_l.png").write_bytes(b"no picture")
    save(source / "disc/p7_l.png", GREY * 5)
    save(source / "__MACOSX/photos/p9_l.png", COLOR)
    save(source / "photos/._p9_l.png", COLOR)
    messages = complaints(Eyes(source))
    found = {Path(message.partition(": ")[0]).name: message for message in messages}
    assert len(messages) == len(found) == 6
    assert "no mask of disc" in found["p2_l.png"]
    assert "no image for this mask" in found["p3_l.png"]
    assert "photos/p4_l.png beside it would be the same case" in found["p4_l.png"]
    assert "6 × 8, its mask" in found["p5_l.png"]
    assert "not a readable image" in found["p6_l.png"]
    assert "neither black nor white" in found["p7_l.png"]


def test_only_images_without_published_masks_are_left_out(source: Path) -> None:
    save(source / "test/photos/p2_l.png", COLOR)
    assert set(prepared(Eyes(source)).records) == {"p1_l", "p1_r"}
    save(source / "disc/p2_l.png", LEFT)
    assert "no mask of cup" in complaints(Eyes(source))[0]


def test_an_archive_inside_that_nobody_unpacked_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no image where one is expected\. Expected: for tests"):
        prepared(Eyes(tmp_path))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/photos.tar.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"deep/photos\.tar\.gz; unpack that where it is"):
        prepared(Eyes(tmp_path))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_mask_means_the_same_however_its_pixels_are_stored(mode: str) -> None:
    picture = Image.fromarray(LEFT.astype(np.uint8) * 255).convert(mode)
    np.testing.assert_array_equal(foreground(picture, Path("m")), LEFT)


@pytest.mark.parametrize("white", [1, 38, 255])
def test_dark_masks_are_not_taken_for_empty(white: int) -> None:
    np.testing.assert_array_equal(foreground(Image.fromarray(LEFT.astype(np.uint8) * white), Path("m")), LEFT)
    with pytest.raises(UserError, match="neither black nor white"):
        foreground(Image.fromarray(GREY // 4), Path("m"))


@pytest.mark.parametrize("full", [True, False])
def test_masks_may_be_empty_or_full(full: bool) -> None:
    assert (foreground(Image.fromarray(np.full((2, 2), 255 * full, np.uint8)), Path("m")) == full).all()


def test_masks_of_a_color_are_not_taken_for_empty() -> None:
    red = np.stack([LEFT * 255, LEFT * 0, LEFT * 0], axis=-1).astype(np.uint8)
    np.testing.assert_array_equal(foreground(Image.fromarray(red), Path("m")), LEFT)


def test_what_jpeg_leaves_around_black_and_white_is_cut_in_the_middle() -> None:
    noise = np.random.default_rng(0).integers(0, 40, LEFT.shape)
    np.testing.assert_array_equal(foreground(Image.fromarray((LEFT * 215 + noise).astype(np.uint8)), Path("m")), LEFT)


def test_a_mask_of_sixteen_bits_is_refused() -> None:
    with pytest.raises(UserError, match="colour mode"):
        foreground(Image.fromarray(GREY.astype(np.uint16)), Path("m"))
