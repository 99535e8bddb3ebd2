"""Preparing CHASE_DB1."""

from pathlib import Path

import numpy as np

from pictures import COLOR, LEFT, RIGHT, groups, prepared, save
from semiseg.data_prep.chase_db1 import ChaseDb1


def test_both_eyes_of_a_child_stay_together_and_the_first_observer_counts_beside_the_second(tmp_path: Path) -> None:
    for case in ("Image_01L", "Image_01R", "Image_02L"):
        save(tmp_path / f"raw/{case}.jpg", COLOR)
        save(tmp_path / f"raw/{case}_1stHO.png", LEFT)
        save(tmp_path / f"raw/{case}_2ndHO.png", RIGHT)
    data = prepared(ChaseDb1(tmp_path / "raw"))
    assert groups(data) == {"Image_01L": "Image_01", "Image_01R": "Image_01", "Image_02L": "Image_02"}
    assert data.info.grouping == "patient"
    np.testing.assert_array_equal(data.label("Image_02L"), LEFT)
    np.testing.assert_array_equal(data.field("Image_02L", "second_observer"), RIGHT)
