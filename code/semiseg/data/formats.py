"""Reads image files as people have them: pictures, and volumes in NIfTI files."""

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import ExifTags, Image, ImageOps

from semiseg.data.volume import Volume
from semiseg.errors import UserError

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
VOLUMES = (".nii.gz", ".nii")
MILLIMETRES = {1: 1000.0, 3: 0.001}  # in a metre and a micron, by the code of a NIfTI header
COLOURS = ("LA", "RGB", "RGBA")
USUAL = (0.5, 99.5)  # percentiles between which intensities are scaled
GREY = 2  # how far the channels of a grey picture may differ, as JPEG leaves them

Image.MAX_IMAGE_PIXELS = None  # slides of tissue have more than Pillow takes for an attack


def unreadable(path: Path, kind: str, error: Exception) -> UserError:
    """The error for a file that its library could not read."""
    if isinstance(error, PermissionError):
        return UserError(f"{path}: no permission to read it; change that with `chmod +r`.")
    if isinstance(error, FileNotFoundError) and not path.is_symlink():
        return UserError(f"{path}: there is no such file; restore it.")
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path}: is a link to a file that is not there; restore the file or remove the link.")
    if path.is_dir():
        return UserError(f"{path}: is a folder where a file is expected; take it away or rename it.")
    reason = str(error).partition("\n")[0] or type(error).__name__
    return UserError(
        f"{path}: not a readable {kind}, truncated or of another kind ({reason}); replace it by an intact copy."
    )


def open_picture(path: Path) -> Image.Image:
    """A picture upright and without transparency."""
    try:
        with Image.open(path) as file:
            # Cameras hide a second view behind the first in JPEG files, which are then called MPO.
            pages = 1 if file.format == "MPO" else getattr(file, "n_frames", 1)
            deep = file.mode in COLOURS and ";16" in str(file.tile) and file.format != "BMP"
            picture = ImageOps.exif_transpose(file)
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise unreadable(path, "image", error) from error
    if pages > 1:
        raise UserError(f"{path}: holds {pages} pages or frames; save each as an image of its own.")
    if deep:
        raise UserError(f"{path}: has 16 bits, and colours or transparency; save it with 8 bits, or as plain grey.")
    if picture.mode in ("LA", "RGBA", "PA"):
        if picture.getchannel("A").getextrema() != (255, 255):
            raise UserError(f"{path}: has transparent pixels; flatten it onto a background.")
        picture = picture.convert("L" if picture.mode == "LA" else "RGB")
    return picture


def is_deep(picture: Image.Image) -> bool:
    """Whether a picture has more than 8 bits, of which Pillow makes white."""
    return picture.mode == "F" or picture.mode.startswith("I")


def is_grey(image: np.ndarray) -> bool:
    """Whether the colours of a picture (3, height, width) are all greys, as those of many a radiograph."""
    return image.dtype == np.uint8 and bool((np.ptp(image.astype(np.int16), axis=0) <= GREY).all())


def check_turned_alike(image: Path, mask: Path) -> None:
    """Refuse a mask that may have been drawn on the image before, or after, a viewer turned it upright."""
    turns = [_orientation(path) for path in (image, mask)]
    with Image.open(image) as picture:
        square = picture.width == picture.height
    # Where only one of them swaps its sides, their sizes agree if and only if they belong together.
    if turns[0] != turns[1] and (square or len({turn >= 5 for turn in turns}) == 1):
        raise UserError(
            f"{image}: is to be shown turned (EXIF orientation {turns[0]}), its mask {mask} otherwise ({turns[1]}), "
            "and their sizes do not tell how the mask was drawn; save both upright, without that tag."
        )


def _orientation(path: Path) -> int:
    """How a picture is to be turned to be upright, as EXIF counts: 1 is not at all, from 5 its sides swap."""
    with Image.open(path) as file:
        return int(file.getexif().get(ExifTags.Base.Orientation, 1))


def read_image(path: Path) -> np.ndarray:
    """An image upright and channels first: (1 or 3, height, width), uint8, or float32 if it has more bits."""
    return pixels(open_picture(path), path)


def pixels(picture: Image.Image, path: Path) -> np.ndarray:
    """The same of a picture that was opened."""
    if picture.mode == "P":
        picture = picture.convert("RGB")
    if picture.mode in ("1", "L"):
        return np.asarray(picture.convert("L"))[None]
    if picture.mode == "RGB":
        return np.ascontiguousarray(np.moveaxis(np.asarray(picture), -1, 0))
    if is_deep(picture):
        return unit_range(np.asarray(picture, np.float32)[None], path)
    raise UserError(f"{path}: colour mode {picture.mode} is not supported; save it as grey or RGB.")


def unit_range(image: np.ndarray, path: Path, between: tuple[float, float] = USUAL) -> np.ndarray:
    """Each channel of (channels, *space) clipped at two of its percentiles, as float32 in [0, 1]."""
    if not np.isfinite(image).all():
        raise UserError(
            f"{path}: {np.count_nonzero(~np.isfinite(image))} of its values are NaN or infinite; "
            "replace them or leave out the case."
        )
    scaled = np.empty(image.shape, np.float32)
    for out, channel in zip(scaled, image, strict=True):
        low, high = np.percentile(channel, between)
        if low == high:  # nearly everything is background
            low, high = channel.min(), channel.max()
        for row, values in zip(out, channel, strict=True):  # at once it takes five times the memory of a volume
            row[...] = np.clip((values - low) / (high - low or 1), 0, 1)
    return scaled


def read_nifti(path: Path) -> Volume:
    """A volume, or one of several channels."""
    try:
        stored: Any = _unpacked(path) if path.name.lower().endswith(".gz") else nib.load(path)
        if stored.get_data_dtype().kind == "c":
            raise ValueError("its voxels are complex numbers")
        volume = nib.as_closest_canonical(stored)
        voxels = np.asarray(volume.dataobj, dtype=np.float32)
    except Exception as error:  # nibabel, gzip and zlib each raise their own on damaged files
        raise unreadable(path, "NIfTI file", error) from error
    if voxels.ndim not in (3, 4):
        raise UserError(f"{path}: has {voxels.ndim} axes; save it as a volume, or as a volume of channels (4 axes).")
    if not voxels.size:
        raise UserError(f"{path}: is empty, {' × '.join(map(str, voxels.shape))} voxels; replace it by an intact copy.")
    affine, spacing = _measured(stored, volume.affine)
    if not all(np.isfinite(size) and size > 0 for size in spacing):
        raise UserError(f"{path}: its header gives the voxel size {spacing}; correct the header.")
    channels = voxels[None] if voxels.ndim == 3 else np.moveaxis(voxels, -1, 0)
    return Volume(channels, affine, spacing, stored.header)


def _measured(stored: Any, affine: np.ndarray) -> tuple[np.ndarray, tuple[float, ...]]:
    """The affine of a turned volume and its voxel size, which some files (ACDC's) have in their list of sizes alone."""
    sizes = nib.affines.voxel_sizes(affine)
    if np.allclose(sizes, 1):
        listed = np.array(stored.header.get_zooms()[:3], dtype=float)
        measured = np.empty(3)
        measured[nib.io_orientation(stored.affine)[:, 0].astype(int)] = listed
        affine = affine.copy()
        affine[:3, :3] *= measured / sizes
        sizes = measured
    scale = MILLIMETRES.get(int(stored.header["xyzt_units"]) & 7, 1)
    return np.diag([scale, scale, scale, 1]) @ affine, tuple((scale * sizes).tolist())


def _unpacked(path: Path) -> nib.Nifti1Image:
    """A packed volume, whole and with the right checksum, neither of which nibabel looks at."""
    content = gzip.decompress(path.read_bytes())
    sizes = [int.from_bytes(content[:4], order) for order in ("little", "big")]
    return (nib.Nifti2Image if 540 in sizes else nib.Nifti1Image).from_bytes(content)


def slices_first(spacing: tuple[float, ...]) -> tuple[int, int, int]:
    """The order of the axes x, y, z that makes them depth, height, width.

    Pixels are square, so slices lie one behind the other along the axis whose spacing differs from that of the other
    two, be it coarser or finer; along the coarsest where all differ, and along z where all agree to 1 %.
    """
    across = [axis for axis in range(3) if _agree(*(size for other, size in enumerate(spacing) if other != axis))]
    coarsest = max(range(3), key=lambda axis: spacing[axis])
    depth = 2 if _agree(*spacing) else max(across, default=coarsest)
    height, width = (axis for axis in (2, 1, 0) if axis != depth)
    return depth, height, width


def _agree(*sizes: float) -> bool:
    return max(sizes) <= 1.01 * min(sizes)
