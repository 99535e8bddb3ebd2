"""Images with texts: one case for each image, patients that share one are one, and what is wrong names its row."""

import csv

import numpy as np
import pytest
from PIL import Image

from semiseg.data.store import check_case
from semiseg.data_prep.image_text_folder import ImageTextFolder, ImageTextMasks
from semiseg.errors import UserError

ROWS = [
    {"image": "a.png", "patient": "p1", "lungs": "a.png", "text": "Both lungs  are clear."},
    {"image": "b.png", "patient": "p2", "lungs": "", "text": "A nodule on the left."},
    {"image": "b.jpg", "patient": "p3", "lungs": "b.png", "text": "A nodule on the right."},
]


def folder(tmp_path, rows=ROWS, color=(90, 90, 90)):
    for place in ("images", "lungs"):
        (tmp_path / place).mkdir(exist_ok=True)
    for number, name in enumerate(("a.png", "b.png", "b.jpg")):
        Image.new("RGB", (30 + number, 20), color).save(tmp_path / "images" / name)
    for name, width in (("a.png", 30), ("b.png", 32)):
        mask = np.zeros((20, width), np.uint8)
        mask[5:10, 5:10] = 255
        Image.fromarray(mask).save(tmp_path / "lungs" / name)
    with (tmp_path / "notes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path


def test_every_image_is_a_case_with_its_text_and_greys_are_one_channel(tmp_path):
    recipe = ImageTextFolder(folder(tmp_path))
    cases = [recipe.load(item) for item in recipe.items()]
    assert [case.id for case in cases] == ["a", "b.png", "b.jpg"]
    assert [case.group for case in cases] == ["p1", "p2", "p3"]
    assert cases[0].fields == {"text": "Both lungs are clear.", "study": "a"}
    assert cases[0].image.shape == (1, 20, 30)
    assert cases[0].label is None
    for case in cases:
        check_case(case, recipe.info())
    assert (recipe.info().task, recipe.info().name) == ("alignment", tmp_path.name)


def test_colours_stay_where_there_are_any(tmp_path):
    recipe = ImageTextFolder(folder(tmp_path, color=(200, 90, 90)))
    assert recipe.load(recipe.items()[0]).image.shape == (3, 20, 30)


def test_only_rows_with_a_mask_are_segmented_and_their_texts_stay(tmp_path):
    recipe = ImageTextMasks(folder(tmp_path))
    cases = [recipe.load(item) for item in recipe.items()]
    assert [case.id for case in cases] == ["a", "b.jpg"]
    assert recipe.info().classes == ("background", "lungs")
    assert (recipe.info().task, recipe.info().name) == ("segmentation", f"{tmp_path.name}_masks")
    assert cases[1].label.sum() == 25
    assert cases[1].fields["text"] == "A nodule on the right."
    for case in cases:
        check_case(case, recipe.info())


def test_columns_without_a_name_of_masks_are_no_structures(tmp_path):
    """pandas writes its row numbers under an empty name, and a folder may be called like a column of text."""
    (tmp_path / "patient").mkdir()
    recipe = ImageTextMasks(folder(tmp_path, [{"": str(number), **row} for number, row in enumerate(ROWS)]))
    assert recipe.structures == ["lungs"]
    assert [recipe.load(item).id for item in recipe.items()] == ["a", "b.jpg"]


def test_patients_who_share_an_image_are_one(tmp_path):
    rows = [*ROWS, {**ROWS[0], "patient": "p2", "text": "The same."}]
    recipe = ImageTextFolder(folder(tmp_path, rows))
    cases = [recipe.load(item) for item in recipe.items()]
    assert [(case.id, case.group) for case in cases] == [("a", "p1"), ("b.png", "p1"), ("b.jpg", "p3")]
    assert cases[0].fields["text"] == "Both lungs are clear."


def test_a_chain_of_shared_images_joins_all_their_patients(tmp_path):
    chain = [("a.png", "p1"), ("a.png", "p2"), ("b.png", "p2"), ("b.png", "p3"), ("b.jpg", "p3")]
    for rows in (chain, chain[::-1]):
        recipe = ImageTextFolder(folder(tmp_path, [{"image": i, "patient": p, "text": "x"} for i, p in rows]))
        assert len({note.patient for note in recipe.notes}) == 1


def test_a_black_first_frame_does_not_take_the_colours_of_the_others(tmp_path):
    source = folder(tmp_path, color=(200, 90, 90))
    Image.new("RGB", (30, 20)).save(source / "images" / "a.png")
    recipe = ImageTextFolder(source)
    assert [recipe.load(item).image.shape[0] for item in recipe.items()] == [3, 3, 3]


def test_radiographs_of_more_than_8_bits_are_not_burnt_to_white(tmp_path):
    source = folder(tmp_path)
    deep = np.linspace(0, 4095, 600).reshape(20, 30).astype(np.uint16)
    for name in ("a.png", "b.png"):
        Image.fromarray(deep).save(source / "images" / name)
    (case, *_) = [recipe.load(recipe.items()[0]) for recipe in (ImageTextFolder(source),)]
    assert case.image.dtype == np.float32
    assert np.ptp(case.image) == 1
    assert len(np.unique(case.image)) > 500


def test_a_picture_that_cannot_be_read_is_named_and_the_others_are_loaded(tmp_path):
    source = folder(tmp_path)
    (source / "images" / "b.png").write_text("not a picture")
    recipe = ImageTextFolder(source)
    first, damaged, last = recipe.items()
    with pytest.raises(UserError, match=r"b\.png: not a readable image"):
        recipe.load(damaged)
    assert [recipe.load(item).id for item in (first, last)] == ["a", "b.jpg"]


def test_a_mask_that_may_be_upside_down_is_refused(tmp_path):
    source = folder(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (32, 20)).save(source / "images" / "b.jpg", exif=exif)
    recipe = ImageTextMasks(source)
    with pytest.raises(UserError, match="EXIF orientation 3"):
        recipe.load(recipe.items()[1])


@pytest.mark.parametrize(("line", "problem"), [
    ("a.png,clear, no effusion", "line 2: has more cells than the first line; put texts with commas into quotation"),
    (",clear", "line 2: names no image"),
])  # fmt: skip
def test_a_row_that_is_cut_wrongly_is_named(tmp_path, line, problem):
    source = folder(tmp_path)
    (source / "notes.csv").write_text(f"image,text\n{line}\n")
    with pytest.raises(UserError, match=problem):
        ImageTextFolder(source).items()


@pytest.mark.parametrize(("change", "problem"), [
    ({"image": "z.png"}, r"line 2: there is no .*z\.png"),
    ({"text": "  "}, r"line 2: a\.png has no text"),
])  # fmt: skip
def test_a_row_that_lacks_something_is_named(tmp_path, change, problem):
    recipe = ImageTextFolder(folder(tmp_path, [{**ROWS[0], **change}, *ROWS[1:]]))
    with pytest.raises(UserError, match=problem):
        recipe.load(recipe.items()[0])


def test_a_missing_or_misshapen_mask_is_named(tmp_path):
    source = folder(tmp_path)
    (source / "lungs" / "a.png").unlink()
    Image.new("L", (5, 5)).save(source / "lungs" / "b.png")
    recipe = ImageTextMasks(source)
    for item, problem in zip(recipe.items(), (r"a\.png has no mask", "provide a mask of its size"), strict=True):
        with pytest.raises(UserError, match=problem):
            recipe.load(item)


def test_a_table_without_texts_says_what_it_needs(tmp_path):
    source = folder(tmp_path, [{"image": "a.png", "report": "x"}])
    with pytest.raises(UserError, match="needs the columns image and text"):
        ImageTextFolder(source).items()
    (source / "notes.csv").unlink()
    with pytest.raises(UserError, match=r"notes\.csv: cannot be read"):
        ImageTextFolder(source).items()


def test_images_of_one_study_are_of_one_group(tmp_path):
    """Frontal and lateral view share a text, so that neither may be tested where the other trains."""
    rows = [
        {"image": "a.png", "study": "s1", "patient": "", "text": "Both lungs are clear."},
        {"image": "b.png", "study": "s1 ", "patient": "p1 ", "text": "Both lungs are clear."},
        {"image": "b.jpg", "study": "s2", "patient": "", "text": "A nodule."},
    ]
    recipe = ImageTextFolder(folder(tmp_path, rows))
    assert [note.patient for note, _ in recipe.items()] == ["p1", "p1", "study s2"]
    assert recipe.info().grouping == "", "whose the last one is, nobody knows"
    rows = [{key: value for key, value in row.items() if key != "patient"} for row in rows]
    recipe = ImageTextFolder(folder(tmp_path, rows))
    assert [note.patient for note, _ in recipe.items()] == ["study s1", "study s1", "study s2"]
    assert recipe.info().grouping == ""
