"""Reads DICOM segmentations, which ITK does not understand: it stacks their frames, whatever each of them shows."""

import struct
from pathlib import Path
from typing import Any

import numpy as np

from semiseg.data.formats import unreadable
from semiseg.data.volume import Volume
from semiseg.errors import UserError

EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
UNDEFINED = 0xFFFFFFFF
END_OF_ITEM, END_OF_SEQUENCE = 0xFFFEE00D, 0xFFFEE0DD
SYNTAX, KIND, PIXELS = 0x00020010, 0x00620001, 0x7FE00010
FRAMES, ROWS, COLUMNS = 0x00280008, 0x00280010, 0x00280011
SHARED, EACH = 0x52009229, 0x52009230
# In the description of a frame, each value is in the one item of a sequence.
POSITION, ORIENTATION, SPACING = (0x00209113, 0x00200032), (0x00209116, 0x00200037), (0x00289110, 0x00280030)
SEGMENT = (0x0062000A, 0x0062000B)

Elements = dict[int, Any]


def read_segmentation(path: Path, image: Volume) -> Volume:
    """The segments drawn on an image, as a volume of segment numbers (1, x, y, z) on the image's voxels.

    A frame shows one segment in one slice; slices without any of it are often left out.
    """
    try:
        data = path.read_bytes()
        if data[128:132] != b"DICM":
            raise ValueError("no DICOM file")
        elements = _dataset(data, 132, len(data))[0]
        if _text(elements[SYNTAX]) != EXPLICIT_LITTLE_ENDIAN or _text(elements[KIND]) != "BINARY":
            raise UserError(
                f"{path}: only segmentations of the type BINARY, uncompressed and explicit little endian, are read; "
                "convert it to NIfTI, for example with `segimage2itkimage` of dcmqi or with 3D Slicer."
            )
        label = _painted(path, elements, image.affine, image.voxels.shape[1:])
    except (OSError, ValueError, LookupError, struct.error) as error:
        raise unreadable(path, "DICOM segmentation", error) from error
    return image._replace(voxels=label[None])


def _painted(path: Path, elements: Elements, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The segment that each voxel of an image belongs to, (x, y, z); 0 where it is none."""
    label = np.zeros(shape, np.float32)
    shared: Elements = next(iter(elements.get(SHARED, [])), {})
    for each, mask in zip(elements[EACH], _frames(elements), strict=True):
        segment, places = _voxels(shared | each, mask, affine)
        index = np.rint(places).astype(int)
        if (np.abs(places - index) > 0.25).any() or (index < 0).any() or (index >= shape).any():
            raise UserError(f"{path}: was not drawn on the slices of this series; take the series that it refers to.")
        at = tuple(index.T)
        other = label[at][(label[at] != 0) & (label[at] != segment)]
        if other.size:
            raise UserError(
                f"{path}: segments {other[0]:g} and {segment} overlap; draw them so that a voxel is in one of them."
            )
        label[at] = segment
    return label


def _frames(elements: Elements) -> np.ndarray:
    """The frames (frames, rows, columns), boolean; eight pixels to a byte, the first in the lowest bit."""
    rows, columns = (struct.unpack("<H", elements[tag])[0] for tag in (ROWS, COLUMNS))
    shape = int(elements[FRAMES]), rows, columns
    bits = np.unpackbits(np.frombuffer(elements[PIXELS], np.uint8), bitorder="little")
    if bits.size < np.prod(shape):
        raise ValueError("too few pixels")
    return bits[: np.prod(shape)].reshape(shape).astype(bool)


def _voxels(frame: Elements, mask: np.ndarray, affine: np.ndarray) -> tuple[int, np.ndarray]:
    """The segment that a frame shows, and where its pixels lie in the image, in voxels (n, 3)."""
    position, orientation, spacing = (
        np.array([float(number) for number in _text(frame[group][0][tag]).split("\\")])
        for group, tag in (POSITION, ORIENTATION, SPACING)
    )
    segment = struct.unpack("<H", frame[SEGMENT[0]][0][SEGMENT[1]])[0]
    rows, columns = np.nonzero(mask)
    # The first direction is that along a row, in which the column changes; the first distance is between rows.
    points = position + np.outer(columns * spacing[1], orientation[:3]) + np.outer(rows * spacing[0], orientation[3:])
    points[:, :2] *= -1  # DICOM's axes point left and backward
    return segment, (points - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T


def _dataset(data: bytes, at: int, end: int) -> tuple[Elements, int]:
    """The elements of a data set from `at` on, by tag, and where it ends; the values of sequences are lists of them."""
    elements: Elements = {}
    while at < end:
        tag = _tag(data, at)
        if tag == END_OF_ITEM:
            return elements, at + 8
        kind = data[at + 4 : at + 6]
        if kind in LONG:
            (length,) = struct.unpack_from("<I", data, at + 8)
            at += 12
        else:
            (length,) = struct.unpack_from("<H", data, at + 6)
            at += 8
        if kind == b"SQ":
            elements[tag], at = _sequence(data, at, len(data) if length == UNDEFINED else at + length)
        elif at + length > len(data):
            raise ValueError("ends too early, or is compressed")
        else:
            elements[tag] = data[at : at + length]
            at += length
    return elements, at


def _sequence(data: bytes, at: int, end: int) -> tuple[list[Elements], int]:
    """The items of a sequence from `at` on, and where it ends."""
    items: list[Elements] = []
    while at < end:
        tag, (length,) = _tag(data, at), struct.unpack_from("<I", data, at + 4)
        at += 8
        if tag == END_OF_SEQUENCE:
            return items, at
        elements, stop = _dataset(data, at, len(data) if length == UNDEFINED else at + length)
        items.append(elements)
        at = stop
    return items, at


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace").strip("\0 ")


def _tag(data: bytes, at: int) -> int:
    group, element = struct.unpack_from("<HH", data, at)
    return int(group) << 16 | int(element)
