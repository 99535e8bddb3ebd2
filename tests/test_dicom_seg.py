"""Reading DICOM segmentations; files that highdicom wrote were read the same way when this was written."""

import struct
from pathlib import Path

import numpy as np
import pytest

from semiseg.data.dicom_seg import LONG, read_segmentation
from semiseg.data.volume import Volume, grid_header
from semiseg.errors import UserError

# Volumes lie right, anterior, superior: the last row and the last column of a slice come first.
LABEL = np.random.default_rng(0).integers(0, 3, (5, 4, 3))  # x, y, z
LABEL[:, :, 1] = 0
PIXELS, THICKNESS = (0.9, 0.8), 3.0  # between rows, between columns, between slices
AFFINE = np.array([[0.8, 0, 0, -7], [0, 0.9, 0, 4], [0, 0, 3, 20], [0, 0, 0, 1]])
IMAGE = Volume(np.zeros((1, *LABEL.shape), np.float32), AFFINE, (0.8, 0.9, 3.0), grid_header(LABEL.shape, AFFINE))


def element(tag: int, kind: bytes, value: bytes) -> bytes:
    value += b" " * (len(value) % 2)
    length = b"\0\0" + struct.pack("<I", len(value)) if kind in LONG else struct.pack("<H", len(value))
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + kind + length + value


def sequence(tag: int, *items: bytes, told: bool = True) -> bytes:
    """Lengths may be told, or left open with a mark at the end."""
    mark = struct.pack("<HH", 0xFFFE, 0xE000)
    if told:
        return element(tag, b"SQ", b"".join(mark + struct.pack("<I", len(item)) + item for item in items))
    opened = b"".join(mark + b"\xff" * 4 + item + struct.pack("<HHI", 0xFFFE, 0xE00D, 0) for item in items)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + b"SQ\0\0" + b"\xff" * 4
    return head + opened + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def numbers(*values: float) -> bytes:
    return "\\".join(map(str, values)).encode()


def segmentation(label: np.ndarray = LABEL, told: bool = True, kind: bytes = b"BINARY", shift: float = 0.0) -> bytes:
    """One frame per segment and slice, from the top down, empty ones left out."""
    frames, pixels = [], []
    corner = AFFINE @ [label.shape[0] - 1, label.shape[1] - 1, 0, 1]
    for z in reversed(range(label.shape[2])):
        for segment in (1, 2):
            mask = (label[::-1, ::-1, z] == segment).T
            if mask.any():
                position = numbers(-corner[0] + shift, -corner[1], corner[2] + THICKNESS * z)
                frames.append(
                    sequence(0x00209113, element(0x00200032, b"DS", position), told=told)
                    + sequence(0x0062000A, element(0x0062000B, b"US", struct.pack("<H", segment)), told=told)
                )
                pixels.append(mask)
    shared = sequence(0x00209116, element(0x00200037, b"DS", numbers(1, 0, 0, 0, 1, 0)), told=told)
    shared += sequence(0x00289110, element(0x00280030, b"DS", numbers(*PIXELS)), told=told)
    bits = np.packbits(np.stack(pixels), bitorder="little").tobytes()
    parts = (
        element(0x00020010, b"UI", b"1.2.840.10008.1.2.1\0"),
        element(0x00280008, b"IS", str(len(frames)).encode()),
        element(0x00280010, b"US", struct.pack("<H", label.shape[1])),
        element(0x00280011, b"US", struct.pack("<H", label.shape[0])),
        element(0x00620001, b"CS", kind),
        sequence(0x52009229, shared, told=told),
        sequence(0x52009230, *frames, told=told),
        element(0x7FE00010, b"OB", bits),
    )
    return b"\0" * 128 + b"DICM" + b"".join(parts)


def read(folder: Path, content: bytes) -> np.ndarray:
    (folder / "seg.dcm").write_bytes(content)
    return read_segmentation(folder / "seg.dcm", IMAGE)[0]


def complaint(folder: Path, content: bytes) -> str:
    with pytest.raises(UserError) as caught:
        read(folder, content)
    assert "\n" not in str(caught.value)
    assert "seg.dcm: " in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("told", [True, False])
def test_segments_land_where_they_were_drawn(tmp_path: Path, told: bool) -> None:
    np.testing.assert_array_equal(read(tmp_path, segmentation(told=told))[0], LABEL)


def test_a_segmentation_of_another_series_is_refused(tmp_path: Path) -> None:
    assert "not drawn on the slices" in complaint(tmp_path, segmentation(shift=0.4))
    assert "not drawn on the slices" in complaint(tmp_path, segmentation(shift=8.0))


def test_overlapping_segments_are_refused(tmp_path: Path) -> None:
    content = segmentation().replace(
        element(0x00200032, b"DS", numbers(3.8, -6.7, 26.0)), element(0x00200032, b"DS", numbers(3.8, -6.7, 20.0))
    )
    assert "overlap" in complaint(tmp_path, content)


def test_other_types_are_refused_with_a_remedy(tmp_path: Path) -> None:
    assert "segimage2itkimage" in complaint(tmp_path, segmentation(kind=b"FRACTIONAL"))


def test_no_truncation_goes_unnoticed(tmp_path: Path) -> None:
    content = segmentation()
    for size in range(0, len(content) - 1, 7):
        assert "not a readable DICOM segmentation" in complaint(tmp_path, content[:size])
