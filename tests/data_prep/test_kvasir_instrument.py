"""Preparing Kvasir-Instrument."""

from pathlib import Path

import numpy as np

from pictures import COLOR, LEFT, prepared, save
from semiseg.data_prep.kvasir_instrument import KvasirInstrument


def test_the_official_archive_is_read(tmp_path: Path) -> None:
    archive = tmp_path / "raw/kvasir-instrument"
    for case in ("ckcu8ty6z00003b5yzfaezbs5", "ckcu92bou00033b5yc9i0gvc9"):
        save(archive / f"images/{case}.jpg", COLOR, quality=95)
        save(archive / f"masks/{case}.png", np.stack([LEFT] * 3, axis=-1))
    (archive / "bboxes.json").write_text("{}")
    (archive / "train.txt").write_text("ckcu8ty6z00003b5yzfaezbs5\n")  # which does not leave out the other frame
    data = prepared(KvasirInstrument(tmp_path / "raw"))
    assert set(data.records) == {"ckcu8ty6z00003b5yzfaezbs5", "ckcu92bou00033b5yc9i0gvc9"}
    assert data.info.grouping == ""
    assert data.channels == 3
    np.testing.assert_array_equal(data.label("ckcu8ty6z00003b5yzfaezbs5"), LEFT)
