"""Grey masks of one's own: what the command does to them, says of them, and keeps to itself."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from commands import call
from semiseg.data.masks import class_indices
from semiseg.data.prepare import prepare
from semiseg.data.problems import one_of_each_kind
from semiseg.data.store import Dataset
from semiseg.data_prep.image_folder import ImageFolder, read_classes
from semiseg.data_prep.nifti_folder import NiftiFolder
from semiseg.errors import UserError, UserErrors

GREY = np.arange(0, 240, 5, dtype=np.uint8).reshape(6, 8)
EDGE = np.array([[0, 0, 64, 127, 128, 200, 255, 255]] * 6, np.uint8)  # a smooth one


@pytest.fixture
def frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty images, of whose masks 37 have smooth edges."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEMISEG_DATA", raising=False)
    for folder in ("images", "masks"):
        (tmp_path / "frames" / folder).mkdir(parents=True)
    for case in range(40):
        Image.fromarray(GREY).save(tmp_path / f"frames/images/{case:02}.png")
        Image.fromarray(EDGE if case < 37 else EDGE // 255 * 255).save(tmp_path / f"frames/masks/{case:02}.png")
    return tmp_path / "frames"


def grey_prepared(source: Path, *thresholds: float) -> Dataset:
    recipe = ImageFolder(source)
    recipe.divide_masks(thresholds)
    return Dataset(prepare(recipe, source.parent / "out", jobs=1)[0])


def test_smooth_masks_are_one_line_whose_command_prepares_them(frames, capfd):
    assert call("prepare", "image_folder", "--source", "frames") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "frames/masks/00.png (one of 37, like 01.png and 02.png)" in line
    assert "add --threshold 128 (greys from 128 on are foreground)" in line
    assert call("prepare", "image_folder", "--source", "frames", "--threshold", "128") == 0
    data = Dataset(Path("data/frames.h5"))
    np.testing.assert_array_equal(data.label("00"), EDGE >= 128)
    np.testing.assert_array_equal(data.label("39"), EDGE == 255)
    capfd.readouterr()
    assert call("datasets") == 0
    assert "(masks: greys from 128 on are foreground)" in capfd.readouterr().out


def test_another_threshold_is_not_taken_for_what_was_prepared(frames):
    first = grey_prepared(frames, 128)
    object_then = first.label("00")
    second = grey_prepared(frames, 200)
    assert first.hash != second.hash
    assert second.label("00").sum() < object_then.sum()
    with pytest.raises(UserError, match="add --threshold 128"):
        prepare(ImageFolder(frames), frames.parent / "out", jobs=1)
    assert Dataset(frames.parent / "out" / "frames.h5").hash == second.hash


def test_several_classes_have_a_threshold_each(frames):
    (frames / "classes.txt").write_text("background\npolyp\ninstrument\n")
    with pytest.raises(UserErrors, match=r"add --threshold 64,192 \(greys from 64 on are polyp, from 192 on instru"):
        prepare(ImageFolder(frames), frames.parent / "out", jobs=1)
    data = grey_prepared(frames, 64, 192)
    assert data.label("00")[0].tolist() == [0, 0, 1, 1, 1, 2, 2, 2]
    assert data.info.masks == "greys from 64 on are polyp, from 192 on instrument"
    with pytest.raises(UserError, match=r"write 2 numbers"):
        ImageFolder(frames).divide_masks((128,))


def test_class_indices_among_black_and_white_masks_do_not_become_empty(frames):
    Image.fromarray(EDGE // 255).save(frames / "masks" / "07.png")
    with pytest.raises(UserErrors, match=r"07\.png: the mask is not empty, but its values, up to 1, lie below --thres"):
        grey_prepared(frames, 128)


def test_an_object_of_another_number_than_1_is_told_apart_by_what_the_message_says(frames, capfd):
    for mask in (frames / "masks").iterdir():
        Image.fromarray(EDGE // 255 * 2).save(mask)
    assert call("prepare", "image_folder", "--source", "frames") == 2
    assert ", or, if 2 is the object, add --threshold 1." in capfd.readouterr().err
    np.testing.assert_array_equal(grey_prepared(frames, 1).label("00"), EDGE == 255)


def test_greys_of_a_palette_are_what_it_shows_not_its_indices(frames):
    picture = Image.fromarray(EDGE).quantize(5)
    assert sorted(np.unique(picture)) != sorted(np.unique(EDGE))
    picture.save(frames / "masks" / "07.png")
    shown = np.asarray(picture.convert("L"))
    np.testing.assert_array_equal(grey_prepared(frames, 128).label("07"), shown >= 128)


def test_an_old_black_and_white_picture_does_not_become_empty(frames):
    Image.fromarray(EDGE == 255).save(frames / "masks" / "07.png")
    np.testing.assert_array_equal(grey_prepared(frames, 128).label("07"), EDGE == 255)


def test_masks_without_an_object_stay_as_they_are(frames):
    Image.fromarray(EDGE * 0).save(frames / "masks" / "07.png")
    assert not grey_prepared(frames, 128).label("07").any()


def test_volumes_that_were_resampled_have_the_same_remedy(tmp_path):
    for folder, array in (("images", GREY[..., None]), ("labels", EDGE[..., None] / np.float32(255))):
        (tmp_path / "scans" / folder).mkdir(parents=True)
        nib.save(nib.Nifti1Image(np.repeat(array, 4, 2), np.eye(4)), tmp_path / "scans" / folder / "a.nii.gz")
    recipe = NiftiFolder(tmp_path / "scans")
    with pytest.raises(UserError, match=r"add --threshold 0\.5 "):
        prepare(recipe, tmp_path, jobs=1)
    recipe.divide_masks((0.5,))
    label = Dataset(prepare(recipe, tmp_path, jobs=1)[0]).label("a")
    assert label.sum() == 4 * (EDGE >= 128).sum()


def test_nothing_changes_in_what_needs_no_threshold(frames):
    """The hash of a folder that an earlier version prepared: frozen splits refuse data of any other."""
    for mask in sorted((frames / "masks").iterdir())[:37]:
        shutil.copy(frames / "masks" / "39.png", mask)
    data = Dataset(prepare(ImageFolder(frames), frames.parent / "out", jobs=1)[0])
    assert data.hash == "176d0f806f6994bacf0fc5aea2da19e3038daeb0d98123c1facfbf4f592048be"
    assert data.info.masks == ""


@pytest.mark.parametrize("text", ["", "dark", "128,64", "128,128", "nan", "1;2"])
def test_thresholds_that_make_no_sense_are_refused(frames, text, capfd):
    if text:
        assert call("prepare", "image_folder", "--source", "frames", "--threshold", text) == 2
        assert f"--threshold {text}: write" in capfd.readouterr().err
    assert not Path("data/frames.h5").exists()


def test_masks_as_an_owner_publishes_them_are_not_divided(frames, capfd):
    assert call("prepare", "phantom_cardiac", "--threshold", "128") == 2
    assert "reads masks as their owner" in capfd.readouterr().err


def test_nan_is_no_class(tmp_path):
    with pytest.raises(UserError, match="NaN"):
        class_indices(np.array([0.0, np.nan, 200.0]), ("background", "object"), tmp_path, (128.0,))


def test_what_is_wrong_in_different_ways_is_not_thrown_together():
    lines = [
        *(
            f"/my data/masks/polyp {n} x.png: has values up to {i}, see /my data/images/polyp {n} x.png."
            for i, n in enumerate("pqrst")
        ),
        "/my data/masks/9.png: is empty; replace it.",
        *(f"/my data/groups.csv: has no line for the case {name!r}; add one." for name in ("a", "b c", "it's")),
        "/my data/images/one/1.dcm: is no slice.",
        "/my data/images/two/1.dcm: is no slice.",
    ]
    assert one_of_each_kind(lines) == [
        "/my data/masks/polyp p x.png (one of 5, like polyp q x.png and polyp r x.png): has values up to 0, "
        "see /my data/images/polyp p x.png.",
        "/my data/masks/9.png: is empty; replace it.",
        "/my data/groups.csv: has no line for the case 'a' (one of 3, like 'b c' and \"it's\"); add one.",
        "/my data/images/one/1.dcm (one of 2, like two/1.dcm): is no slice.",
    ]
    assert one_of_each_kind(lines[5:6]) == lines[5:6]


@pytest.mark.parametrize("named", [(), ("instrument", "wrist", "shaft")], ids=["unnamed", "without_background"])
def test_masks_of_more_classes_than_are_named_ask_for_names_and_not_for_thresholds(tmp_path, named):
    if named:
        (tmp_path / "classes.txt").write_text("\n".join(named))
    classes = read_classes(tmp_path)
    with pytest.raises(UserError) as caught:
        class_indices(np.array([[0, 1], [3, 2]], np.uint8), classes, tmp_path / "a.png", ())
    assert "name every class in classes.txt, the background first" in str(caught.value)
    assert "threshold" not in str(caught.value)
