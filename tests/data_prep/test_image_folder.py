"""Preparing one's own 2D images."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from semiseg.data.formats import read_image
from semiseg.data.prepare import prepare
from semiseg.data.store import Dataset
from semiseg.data_prep.image_folder import ImageFolder
from semiseg.errors import UserError, UserErrors

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)
MASK = (GREY > 20).astype(np.uint8)


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two good grey cases."""
    for case, mask in (("a", MASK), ("b", MASK * 255)):
        save(tmp_path / f"polyps/images/{case}.png", GREY)
        save(tmp_path / f"polyps/masks/{case}.png", mask)
    return tmp_path / "polyps"


def prepared(source: Path) -> Dataset:
    return Dataset(prepare(ImageFolder(source), source.parent / "out")[0])


def complaint(source: Path) -> str:
    """The only complaint about a source, which is one line."""
    with pytest.raises(UserError) as caught:
        prepared(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_black_and_white_masks_mean_the_same_as_class_indices(source: Path) -> None:
    data = prepared(source)
    assert data.info.name == "polyps"
    assert not data.info.grouping
    np.testing.assert_array_equal(data.label("a"), MASK)
    np.testing.assert_array_equal(data.label("b"), MASK)
    np.testing.assert_array_equal(data.image("a"), GREY[None])


def test_colors_keep_their_order(source: Path, tmp_path: Path) -> None:
    color = np.stack([GREY, GREY + 50, GREY + 100], axis=-1)
    np.testing.assert_array_equal(read_image(save(tmp_path / "c.png", color))[2], GREY + 100)


def test_images_of_one_patient_stay_together(source: Path) -> None:
    (source / "groups.csv").write_text("\ufeffcase,group\na,p1\nb,p1\n", encoding="utf-8")
    data = prepared(source)
    assert data.info.grouping
    assert {record.group for record in data.records.values()} == {"p1"}


def test_a_case_without_group_is_not_taken_for_a_group_of_its_own(source: Path) -> None:
    (source / "groups.csv").write_text("case,group\na,p1\n")
    message = complaint(source)
    assert "groups.csv" in message
    assert "'b'" in message


@pytest.mark.parametrize("text", ["case;group\na;p1\n", "case,group\na,p1\na,p2\n", "case,group\na,\n", "case,group\n"])
def test_unusable_groups_are_refused(source: Path, text: str) -> None:
    (source / "groups.csv").write_text(text)
    assert "groups.csv" in complaint(source)


def test_a_bad_table_and_bad_images_are_reported_in_one_round(source: Path) -> None:
    (source / "groups.csv").write_text("case,group\na,\nb,p1\nb,p2\n")
    (source / "images/a.png").write_bytes(b"")
    with pytest.raises(UserErrors) as caught:
        prepared(source)
    named = [Path(message.partition(": ")[0]).name for message in caught.value.messages]
    assert named == ["groups.csv", "groups.csv", "a.png"]


def test_named_classes_allow_further_mask_values(source: Path) -> None:
    save(source / "masks/a.png", MASK * 2)
    save(source / "masks/b.png", MASK)
    assert "values 2, but" in complaint(source)
    (source / "classes.txt").write_text("background\npolyp\ninstrument\n")
    data = prepared(source)
    assert data.info.classes == ("background", "polyp", "instrument")
    np.testing.assert_array_equal(data.label("a"), MASK * 2)


@pytest.mark.parametrize("text", ["only\n", "a\na\n"])
def test_unusable_class_names_are_refused(source: Path, text: str) -> None:
    (source / "classes.txt").write_text(text)
    assert "classes.txt" in complaint(source)


def test_a_palette_that_shows_the_background_white_is_not_taken_for_the_object(source: Path) -> None:
    mask = next((source / "masks").iterdir())
    for palette, good in (([0, 0, 0, 255, 255, 255], True), ([255, 255, 255, 0, 0, 0], False)):
        picture = Image.fromarray(np.eye(6, 8, dtype=np.uint8)).convert("P")
        picture.putpalette(palette)
        picture.save(mask)
        if good:
            assert prepared(source).label(mask.stem).sum() == 6
        else:
            with pytest.raises(UserError, match="its palette shows class 0, the background, brighter than class 1"):
                prepared(source)


def test_a_photo_held_sideways_is_turned_as_its_viewer_would(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by 90 degrees
    turned = read_image(save(tmp_path / "p.png", GREY, exif=exif))
    np.testing.assert_array_equal(turned[0], np.rot90(GREY, -1))


def test_sixteen_bit_greys_are_not_cut_to_eight(tmp_path: Path) -> None:
    deep = np.linspace(1000, 3000, 2000).astype(np.uint16).reshape(40, 50)
    image = read_image(save(tmp_path / "d.png", deep))
    assert image.dtype == np.float32
    assert image.min() == 0
    assert image.max() == 1
    assert len(np.unique(image)) > 1000


def test_only_an_opaque_alpha_channel_is_dropped(source: Path, tmp_path: Path) -> None:
    alpha = np.stack([GREY, GREY, GREY + 1, np.full_like(GREY, 255)], axis=-1)
    np.testing.assert_array_equal(read_image(save(tmp_path / "o.png", alpha))[2], GREY + 1)
    alpha[0, 0, 3] = 254
    with pytest.raises(UserError, match=r"t\.png: has transparent"):
        read_image(save(tmp_path / "t.png", alpha))


def test_grey_and_color_images_are_not_mixed(source: Path) -> None:
    for case in "cd":
        save(source / f"images/{case}.png", np.stack([GREY] * 3, axis=-1))
        save(source / f"masks/{case}.png", MASK)
    save(source / "images/e.png", np.stack([GREY] * 3, axis=-1))
    save(source / "masks/e.png", MASK)
    assert "a, b (2 in all) 2D, grey" in complaint(source)


def test_every_bad_file_is_reported_at_once(source: Path) -> None:
    images, masks = source / "images", source / "masks"
    for case in ("cut", "small", "smooth", "colored", "floating", "twice", "fine"):
        save(images / f"{case}.png", GREY)
        save(masks / f"{case}.png", MASK)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    cut = save(images / "cut.png", noise)
    cut.write_bytes(cut.read_bytes()[:2000])
    save(masks / "small.png", MASK[1:])
    save(masks / "smooth.png", GREY * 5)
    save(masks / "colored.png", np.stack([MASK, MASK, 1 - MASK], axis=-1))
    (images / "floating.png").unlink()
    (masks / "floating.png").replace(masks / "orphan.png")
    save(images / "lonely.png", GREY)
    save(images / "twice.jpg", GREY)
    (images / "fake.png").write_text("this is no image")
    save(masks / "fake.png", MASK)
    save(images / "._a.png", GREY)  # what macOS leaves in archives is no case
    with pytest.raises(UserErrors) as caught:
        prepared(source)
    found = {Path(message.partition(": ")[0]).name: message for message in caught.value.messages}
    assert set(found) == {
        "cut.png",
        "small.png",
        "smooth.png",
        "colored.png",
        "lonely.png",
        "orphan.png",
        "twice.jpg",
        "fake.png",
    }
    assert len(caught.value.messages) == 8
    assert f"add it or move this image to {source / 'unlabeled'}" in found["lonely.png"]
    assert "orphan.png for it in" in found["orphan.png"]
    assert not any("\n" in message for message in caught.value.messages)
    assert "truncated" in found["cut.png"]
    assert "6 × 8" in found["small.png"]
    assert "5 × 8" in found["small.png"]
    assert "smooth" in found["smooth.png"]
    assert "colour mask" in found["colored.png"]


def test_a_misspelt_mask_is_one_problem_not_two(source: Path) -> None:
    for case in ("scan_01", "scan_02", "scan_03"):
        save(source / "images" / f"{case}.png", GREY)
        save(source / "masks" / f"{case}.png", MASK)
    (source / "masks" / "scan_02.png").replace(source / "masks" / "scna_02.png")
    with pytest.raises(UserErrors) as caught:
        prepared(source)
    (message,) = caught.value.messages
    assert "scan_02.png: has no mask of its name; if scna_02.png is it, name both alike" in message
    (source / "masks" / "scna_02.png").replace(source / "masks" / "scan_04.png")  # of another case, for all one knows
    with pytest.raises(UserErrors) as caught:
        prepared(source)
    alone, orphan = sorted(caught.value.messages)
    assert "scan_02.png: there is no" in alone
    assert "scan_04.png: there is no" in orphan


def test_a_file_that_may_not_be_read_is_told_from_a_damaged_one(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(UserErrors, match=r"a\.png .*: no permission"):
        prepared(source)


@pytest.mark.parametrize("remove", ["masks", "images"])
def test_a_missing_folder_is_named(source: Path, remove: str) -> None:
    (source / remove).rename(source / "elsewhere")
    told = complaint(source)
    assert (
        f"{source / remove}: there is no such folder; put the images into {source / 'images'} and their masks" in told
    )
    assert f"into {source / 'masks'}, or point --source to the folder that holds both" in told


def test_an_empty_folder_is_named(source: Path) -> None:
    for file in [*source.glob("images/*"), *source.glob("masks/*")]:
        file.unlink()
    assert f"{source / 'images'}: holds no" in complaint(source)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_colours_of_16_bits_are_not_cut_to_8(source: Path, ending: str) -> None:
    """Pillow reads the upper half of each number, which of 12 bits leaves 16 values."""
    deep = sitk.GetImageFromArray(np.stack([GREY.astype(np.uint16) * 80] * 3, -1), isVector=True)
    (source / "images/a.png").unlink()
    sitk.WriteImage(deep, str(source / f"images/a.{ending}"))
    assert "has 16 bits, and colours or transparency; save it with 8 bits" in complaint(source)


def test_images_without_masks_are_unlabelled_ones_and_no_image_is_both(source: Path) -> None:
    for number in range(6):
        save(source / "images" / f"{number}.png", GREY + np.uint8(number))
        save(source / "masks" / f"{number}.png", MASK)
        save(source / "unlabeled" / f"more_{number}.png", GREY + np.uint8(40 + number))
    dataset = prepared(source)
    assert len(dataset.records) == 14
    assert sorted(dataset.annotated) == [*(str(number) for number in range(6)), "a", "b"]
    assert np.array_equal(dataset.image("more_3")[0], GREY + 43)
    save(source / "unlabeled" / "2.png", GREY)
    with pytest.raises(UserErrors, match=r"unlabeled.2\.png: there is a case 2 in"):
        prepared(source)
    (source / "unlabeled" / "2.png").unlink()
    (source / "images" / "3.png").rename(source / "unlabeled" / "3.png")  # its mask stays behind
    assert "masks/3.png: there is no 3.png for it in" in complaint(source)
    (source / "unlabeled" / "3.png").rename(source / "images" / "3.png")
    save(source / "unlabeled" / "again.png", GREY + np.uint8(4))
    with pytest.raises(UserError, match="'again' is that of '4', which has one and is tested"):
        prepared(source)


def test_the_table_of_groups_names_images_without_masks_too(source: Path) -> None:
    save(source / "unlabeled" / "more.png", GREY + np.uint8(40))
    (source / "groups.csv").write_text("case,group\na,patient 1\nb,patient 2")
    with pytest.raises(UserErrors, match="has no line for the case 'more'"):
        prepared(source)
    (source / "groups.csv").write_text("case,group\na,patient 1\nb,patient 2\nmore,patient 2")
    assert prepared(source).records["more"].group == "patient 2"


def test_a_folder_of_images_without_masks_that_cannot_be_read_is_not_passed_over(source: Path) -> None:
    save(source / "unlabelled" / "more.png", GREY)
    assert "call this folder unlabeled" in complaint(source)
    (source / "unlabelled").rename(source / "unlabeled")
    (source / "unlabeled" / "more.png").rename(source / "unlabeled" / "more.webp")
    assert "unlabeled: holds no .png" in complaint(source)
