"""Preparing the Montgomery County X-ray set."""

from pathlib import Path

import numpy as np
import pytest

from pictures import COLOR, GREY, LEFT, RIGHT, complaints, prepared, save
from semiseg.data_prep.montgomery import Montgomery


@pytest.mark.parametrize("image", [GREY, COLOR, GREY.astype(np.uint16) * 80], ids=["8 bits", "RGB", "12 bits"])
def test_both_lungs_are_one_class_of_one_grey_channel_in_eight_bits(tmp_path: Path, image: np.ndarray) -> None:
    archive = tmp_path / "raw/MontgomerySet"
    save(archive / "CXR_png/MCUCXR_0001_0.png", image)
    save(archive / "ManualMask/leftMask/MCUCXR_0001_0.png", LEFT)
    save(archive / "ManualMask/rightMask/MCUCXR_0001_0.png", RIGHT)
    (archive / "ClinicalReadings").mkdir()
    (archive / "ClinicalReadings/MCUCXR_0001_0.txt").write_text("Patient's Sex: F\n")
    data = prepared(Montgomery(tmp_path / "raw"))
    stored = data.image("MCUCXR_0001_0")
    assert stored.dtype == np.uint8
    assert stored.shape == (1, 6, 8)
    assert (np.diff(stored[0].ravel().astype(int)) >= 0).all()
    assert stored.max() > 40
    assert data.records["MCUCXR_0001_0"].spacing == (0.0875, 0.0875)
    np.testing.assert_array_equal(data.label("MCUCXR_0001_0"), LEFT | RIGHT)


def test_a_missing_lung_is_reported(tmp_path: Path) -> None:
    save(tmp_path / "raw/CXR_png/MCUCXR_0001_0.png", GREY)
    save(tmp_path / "raw/ManualMask/leftMask/MCUCXR_0001_0.png", LEFT)
    assert "there is no mask of lung" in complaints(Montgomery(tmp_path / "raw"))[0]
