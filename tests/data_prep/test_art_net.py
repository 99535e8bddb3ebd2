"""Preparing ART-Net."""

from pathlib import Path

import numpy as np
import pytest

from pictures import COLOR, GREY, LEFT, RIGHT, prepared, save
from semiseg.data_prep.art_net import ArtNet
from semiseg.errors import UserError


@pytest.mark.parametrize("folder", ["TrainPos_ToolMask", "TrainSeg", "Train_Tool_GT"])
def test_tools_are_read_and_other_annotations_are_not(tmp_path: Path, folder: str) -> None:
    train = tmp_path / "raw/Annotated Images/Train"
    save(train / "TrainPos/001.png", COLOR)
    save(train / f"{folder}/001.png", LEFT)
    save(train / "TrainNeg/1000.png", COLOR)
    save(train / "TrainNegMask/1000.png", 0 * GREY)
    for other in ("TrainPos_EdgeMask", "Train_MidLine_GT", "TrainPos_ToolTipMask"):
        save(train / f"{other}/001.png", GREY)
    data = prepared(ArtNet(tmp_path / "raw"))
    np.testing.assert_array_equal(data.label("001"), LEFT)
    assert set(data.records) == {"001"}


def test_two_folders_that_could_be_the_masks_are_not_mixed_up(tmp_path: Path) -> None:
    train = tmp_path / "raw/Train"
    save(train / "TrainPos/001.png", COLOR)
    save(train / "ToolMask/001.png", LEFT)
    save(train / "SegMask/001.png", RIGHT)
    with pytest.raises(UserError, match="may be in Train/SegMask or Train/ToolMask; keep"):
        prepared(ArtNet(tmp_path / "raw"))


def test_masks_of_training_and_test_frames_may_lie_side_by_side(tmp_path: Path) -> None:
    for part, case in (("Train", "001"), ("Test", "002")):
        save(tmp_path / f"raw/{part}Pos/{case}.png", COLOR)
        save(tmp_path / f"raw/{part}Mask/{case}.png", LEFT)
    assert set(prepared(ArtNet(tmp_path / "raw")).records) == {"001", "002"}


def test_names_of_public_code_are_read_and_halves_that_count_anew_stay_apart(tmp_path: Path) -> None:
    for part, mask in (("Train", LEFT), ("Test", RIGHT)):
        folder, name = tmp_path / "raw" / part, f"{part}_Pos_sample_0001"
        save(folder / f"{part}_Positive/{name}.png", COLOR if part == "Train" else COLOR[:, ::-1])
        for kind in ("Tool_Mask", "TipPoint", "MidLine", "EdgeLine_1"):
            drawn = mask if kind == "Tool_Mask" else GREY
            save(folder / f"{part}_Positive_{kind}/{name}_{kind}.png", drawn)
        save(folder / f"{part}_Negative/{part}_Neg_sample_0001.png", COLOR)
    data = prepared(ArtNet(tmp_path / "raw"))
    assert [*data.records] == ["Test_Pos_sample_0001", "Train_Pos_sample_0001"]
    np.testing.assert_array_equal(data.label("Train_Pos_sample_0001"), LEFT)
    np.testing.assert_array_equal(data.label("Test_Pos_sample_0001"), RIGHT)
