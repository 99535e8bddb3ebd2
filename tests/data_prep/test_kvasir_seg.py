"""Preparing Kvasir-SEG."""

from pathlib import Path

import numpy as np

from pictures import prepared, save
from semiseg.data_prep.kvasir_seg import KvasirSeg


def test_masks_in_jpeg_files_become_two_classes(tmp_path: Path) -> None:
    polyp = np.zeros((64, 64), bool)
    polyp[16:48, 16:48] = True
    archive = tmp_path / "raw/Kvasir-SEG"
    save(archive / "images/cju0qkwl35piu0993l0dewei2.jpg", np.full((64, 64, 3), 90, np.uint8))
    save(archive / "masks/cju0qkwl35piu0993l0dewei2.jpg", np.stack([polyp] * 3, axis=-1), quality=75)
    (archive / "kavsir_bboxes.json").write_text("{}")
    data = prepared(KvasirSeg(tmp_path / "raw"))
    assert data.info.classes == ("background", "polyp")
    np.testing.assert_array_equal(data.label("cju0qkwl35piu0993l0dewei2"), polyp)
