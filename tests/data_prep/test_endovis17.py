"""Preparing the EndoVis 2017 robotic instruments."""

from pathlib import Path

import numpy as np
import pytest

from pictures import complaints, groups, prepared, save
from semiseg.data_prep.endovis17 import EndoVis17, EndoVis17Parts
from semiseg.errors import UserError

FRAME = np.random.default_rng(0).integers(0, 255, (4, 6, 3), np.uint8)
FORCEPS, DRIVER, OTHER = (np.zeros((4, 6), np.uint8) for _ in range(3))
FORCEPS[0], DRIVER[1], OTHER[2] = (0, 10, 20, 30, 0, 0), (30, 0, 0, 0, 10, 10), 40


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two training videos, and the test part of one that comes without masks."""
    for video in (1, 2):
        folder = tmp_path / f"raw/train/instrument_dataset_{video}"
        for number in ("000", "001"):
            save(folder / f"left_frames/frame{number}.png", FRAME)
            save(folder / f"right_frames/frame{number}.png", FRAME)
            save(folder / f"ground_truth/Left_Prograsp_Forceps_labels/frame{number}.png", FORCEPS)
            save(folder / f"ground_truth/Large_Needle_Driver_Right_labels/frame{number}.png", DRIVER)
            save(folder / f"ground_truth/Other_labels/frame{number}.png", OTHER)
    save(tmp_path / "raw/test/instrument_dataset_1/left_frames/frame225.png", FRAME)
    return tmp_path / "raw"


def test_frames_of_a_video_stay_together_over_both_sets(source: Path) -> None:
    save(source / "test/instrument_dataset_1/ground_truth/PartsSegmentation/frame225.png", FORCEPS * 0)
    data = prepared(EndoVis17(source))
    assert groups(data) == {
        "video1_frame000": "video1",
        "video1_frame001": "video1",
        "video1_frame225": "video1",
        "video2_frame000": "video2",
        "video2_frame001": "video2",
    }
    assert data.info.grouping == "video"


def test_the_masks_of_all_robotic_instruments_are_one(source: Path) -> None:
    whole, parts = prepared(EndoVis17(source)), prepared(EndoVis17Parts(source))
    assert len(whole.records) == 4, "test frames without masks are left out"
    expected = np.zeros((4, 6))
    expected[:2] = [0, 1, 2, 3, 0, 0], [3, 0, 0, 0, 1, 1]
    np.testing.assert_array_equal(parts.label("video1_frame000"), expected)
    np.testing.assert_array_equal(whole.label("video1_frame000"), expected > 0)
    assert parts.info.classes == ("background", "shaft", "wrist", "claspers")


def test_folders_of_instruments_are_taken_whatever_their_ending_and_what_scripts_make_of_them_is_not(
    source: Path,
) -> None:
    """Three of the challenge's folders are not called `…_labels`: `Prograsp_Forceps` in video 6, two in video 7."""
    truth = source / "train/instrument_dataset_1/ground_truth"
    for name in ("Left_Prograsp_Forceps", "Large_Needle_Driver_Right"):
        (truth / f"{name}_labels").rename(truth / name)
    for number in ("000", "001"):
        for name in ("binary_labels", "parts_labels", "type_labels", "Other_labels"):
            save(truth / f"{name}/frame{number}.png", np.full((4, 6), 30, np.uint8))
        save(truth.parent / f"binary_masks/frame{number}.png", np.full((4, 6), 30, np.uint8))
    data = prepared(EndoVis17Parts(source))
    expected = np.zeros((4, 6))
    expected[:2] = [0, 1, 2, 3, 0, 0], [3, 0, 0, 0, 1, 1]
    for case in ("video1_frame000", "video2_frame000"):
        np.testing.assert_array_equal(data.label(case), expected)


@pytest.mark.parametrize("folder", ["ground_truth/PartsSegmentation", "PartsSegmentation"])
def test_test_masks_number_the_parts_differently(source: Path, folder: str) -> None:
    mask = np.array([[0, 30, 100, 255, 200, 0]] * 4, np.uint8)
    save(source / f"test/instrument_dataset_1/{folder}/frame225.png", mask)
    save(source / f"test/instrument_dataset_1/{folder.replace('Parts', 'Type')}/frame225.png", mask // 50)
    np.testing.assert_array_equal(prepared(EndoVis17Parts(source)).label("video1_frame225")[0], [0, 1, 2, 3, 0, 0])


def test_test_frames_and_their_masks_may_be_two_archives_side_by_side(source: Path) -> None:
    save(source / "truth/instrument_dataset_1/gt/PartsSegmentation/frame225.png", FORCEPS * 0)
    assert "video1_frame225" in prepared(EndoVis17(source)).records


def test_nothing_that_lacks_its_other_half_is_dropped_silently(source: Path) -> None:
    (source / "train/instrument_dataset_1/left_frames/frame000.png").unlink()
    save(source / "train/instrument_dataset_3/left_frames/frame000.png", FRAME)
    save(source / "truth/instrument_dataset_4/gt/PartsSegmentation/frame225.png", FORCEPS * 0)
    lost, bare, masks = complaints(EndoVis17(source))
    assert "frame000.png: there is no left_frames/frame000.png for it" in lost
    assert "train/instrument_dataset_3: has no masks" in bare
    assert "truth/instrument_dataset_4: has masks, but no left_frames" in masks


def test_the_black_around_the_camera_image_is_cut_off(tmp_path: Path) -> None:
    folder = tmp_path / "raw/instrument_dataset_3"
    frame = np.zeros((1080, 1920, 3), np.uint8)
    frame[28, 320] = 9
    save(folder / "left_frames/frame000.png", frame)
    mask = np.zeros((1080, 1920), np.uint8)
    mask[28 + 1023, 320 + 1279] = 30
    save(folder / "ground_truth/Vessel_Sealer_labels/frame000.png", mask)
    data = prepared(EndoVis17Parts(tmp_path / "raw"))
    assert data.records["video3_frame000"].shape == (3, 1024, 1280)
    assert data.image("video3_frame000")[0, 0, 0] == 9
    assert data.label("video3_frame000")[-1, -1] == 3


def test_every_bad_file_is_reported_at_once(source: Path) -> None:
    truth = source / "train/instrument_dataset_2/ground_truth"
    (truth / "Left_Prograsp_Forceps_labels/frame000.png").unlink()
    save(truth / "Left_Prograsp_Forceps_labels/frame001.png", FORCEPS + 1)
    save(source / "train/instrument_dataset_1/ground_truth/Left_Prograsp_Forceps_labels/frame000.png", FORCEPS[1:])
    messages = complaints(EndoVis17(source))
    assert len(messages) == 3
    assert "provide masks of its size" in messages[0]
    assert "Left_Prograsp_Forceps_labels/frame000.png is missing" in messages[1]
    assert "the mask holds 1, 11, 21, 31" in messages[2]


def test_a_folder_without_masks_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "raw/instrument_dataset_1/left_frames/frame000.png", FRAME)
    with pytest.raises(UserError, match="endovissub2017"):
        prepared(EndoVis17(tmp_path / "raw"))
