"""Preparing RoboTool."""

from pathlib import Path

import numpy as np

from pictures import COLOR, LEFT, complaints, groups, prepared, save
from semiseg.data_prep.robotool import RoboTool


def test_frames_of_a_video_stay_together(tmp_path: Path) -> None:
    for case in ("dv1_00004", "dv1_00026", "dv10_00001"):
        save(tmp_path / f"raw/robo_tool/{case}.png", COLOR)
        save(tmp_path / f"raw/robo_tool/{case}_seg.png", LEFT)
    data = prepared(RoboTool(tmp_path / "raw"))
    assert groups(data) == {"dv1_00004": "dv1", "dv1_00026": "dv1", "dv10_00001": "dv10"}
    assert data.info.grouping == "video"
    np.testing.assert_array_equal(data.label("dv10_00001"), LEFT)


def test_a_mask_is_not_taken_for_an_image(tmp_path: Path) -> None:
    for case in ("dv1_00004", "dv1_00026"):
        save(tmp_path / f"raw/{case}.png", COLOR)
        save(tmp_path / f"raw/{case}_seg.png", LEFT)
    (tmp_path / "raw/dv1_00026.png").unlink()
    (message,) = complaints(RoboTool(tmp_path / "raw"))
    assert "dv1_00026_seg.png: there is no image" in message
