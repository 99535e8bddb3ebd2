"""Preparing JSRT with the masks of SCR, with small radiographs."""

from pathlib import Path

import numpy as np
import pytest

from pictures import complaints, prepared, save
from semiseg.data_prep import jsrt_scr
from semiseg.data_prep.jsrt_scr import JsrtScr

RAW = np.random.default_rng(0).integers(0, 4096, (8, 8))
STRUCTURES = {"left lung": 0, "right lung": 3, "heart": 1, "left clavicle": 0, "right clavicle": 3}  # columns


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A radiograph of 8 × 8 pixels whose masks are 4 × 4."""
    monkeypatch.setattr(jsrt_scr, "SIZE", 8)
    add(tmp_path / "raw", "JPCLN001", "fold1")
    return tmp_path / "raw"


def add(source: Path, case: str, fold: str) -> Path:
    image = source / f"All247images/{case}.IMG"
    image.parent.mkdir(parents=True, exist_ok=True)
    RAW.astype(">u2").tofile(image)
    for structure, column in STRUCTURES.items():
        mask = np.zeros((4, 4), bool)
        mask[: 1 if "clavicle" in structure else 3, column] = True
        save(source / f"scratch/{fold}/masks/{structure}/{case}.gif", mask)
    return image


def test_a_radiograph_is_averaged_to_the_grid_of_its_masks_inverted_in_eight_bits(source: Path) -> None:
    data = prepared(JsrtScr(source))
    blocks = [[RAW[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean() for x in range(4)] for y in range(4)]
    expected = np.round((4095 - np.array(blocks)) / 4095 * 255)
    np.testing.assert_array_equal(data.image("JPCLN001")[0], expected)
    assert data.records["JPCLN001"].spacing == (0.35, 0.35)


def test_clavicles_lie_over_lungs(source: Path) -> None:
    expected = [[3, 2, 0, 3], [1, 2, 0, 1], [1, 2, 0, 1], [0, 0, 0, 0]]
    np.testing.assert_array_equal(prepared(JsrtScr(source)).label("JPCLN001"), expected)


def test_both_folds_are_read_and_every_bad_file_is_reported(source: Path) -> None:
    add(source, "JPCNN001", "fold2")
    assert set(prepared(JsrtScr(source)).records) == {"JPCLN001", "JPCNN001"}
    cut = add(source, "JPCNN002", "fold1")
    cut.write_bytes(cut.read_bytes()[:-2])
    little = add(source, "JPCNN003", "fold1")
    RAW.astype("<u2").tofile(little)
    add(source, "JPCNN004", "fold1")
    save(source / "scratch/fold1/masks/left lung/JPCNN004.gif", np.eye(3, dtype=bool))
    add(source, "JPCNN005", "fold1")
    (source / "scratch/fold1/masks/heart/JPCNN005.gif").unlink()
    found = {Path(message.partition(": ")[0]).stem: message for message in complaints(JsrtScr(source))}
    assert set(found) == {"JPCNN002", "JPCNN003", "JPCNN004", "JPCNN005"}
    assert "holds 63 numbers" in found["JPCNN002"]
    assert "above 4095" in found["JPCNN003"]
    assert "3 × 3, which does not divide" in found["JPCNN004"]
    assert "no mask of heart" in found["JPCNN005"]
