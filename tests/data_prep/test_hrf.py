"""Preparing HRF."""

from pathlib import Path

import numpy as np
import pytest

from pictures import COLOR, LEFT, RIGHT, prepared, save
from semiseg.data_prep.hrf import Hrf


@pytest.mark.parametrize(
    ("image", "mask"),
    [("images/01_dr.JPG", "manual1/01_dr.tif"), ("diabetic_retinopathy/01_dr.JPG", "manualsegm/01_dr.tif")],
)
def test_one_archive_or_one_of_each_diagnosis_is_read(tmp_path: Path, image: str, mask: str) -> None:
    save(tmp_path / "raw" / image, COLOR, format="JPEG")
    save(tmp_path / "raw" / mask, LEFT)
    save(tmp_path / "raw/mask/01_dr_mask.tif", LEFT | RIGHT)  # the field of view
    data = prepared(Hrf(tmp_path / "raw"))
    assert data.records["01_dr"].shape == (3, 6, 8)
    np.testing.assert_array_equal(data.label("01_dr"), LEFT)
