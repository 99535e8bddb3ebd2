"""Reads image files as people have them: pictures, and volumes in NIfTI files."""

from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image, ImageOps

from semiseg.errors import UserError

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
VOLUMES = (".nii.gz", ".nii")


def unreadable(path: Path, kind: str, error: Exception) -> UserError:
    """The error for a file that its library could not read."""
    if isinstance(error, PermissionError):
        return UserError(f"{path}: no permission to read it; change that with `chmod +r`.")
    reason = str(error).partition("\n")[0] or type(error).__name__
    return UserError(
        f"{path}: not a readable {kind}, truncated or of another kind ({reason}); replace it by an intact copy."
    )


def open_picture(path: Path) -> Image.Image:
    """A picture upright and without transparency."""
    try:
        with Image.open(path) as file:
            pages = getattr(file, "n_frames", 1) if file.format == "TIFF" else 1
            picture = ImageOps.exif_transpose(file)
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise unreadable(path, "image", error) from error
    if pages > 1:
        raise UserError(f"{path}: holds {pages} pages; save each as an image of its own.")
    if "A" in picture.getbands():
        if picture.getchannel("A").getextrema() != (255, 255):
            raise UserError(f"{path}: has transparent pixels; flatten it onto a background.")
        picture = picture.convert("L" if picture.mode == "LA" else "RGB")
    return picture


def read_image(path: Path) -> np.ndarray:
    """An image upright and channels first: (1 or 3, height, width), uint8, or float32 if it has more bits."""
    picture = open_picture(path)
    if picture.mode == "P":
        picture = picture.convert("RGB")
    if picture.mode in ("1", "L"):
        return np.asarray(picture.convert("L"))[None]
    if picture.mode == "RGB":
        return np.ascontiguousarray(np.moveaxis(np.asarray(picture), -1, 0))
    if picture.mode == "F" or picture.mode.startswith("I"):
        return unit_range(np.asarray(picture, np.float32)[None], path)
    raise UserError(f"{path}: color mode {picture.mode} is not supported; save it as grey or RGB.")


def unit_range(image: np.ndarray, path: Path) -> np.ndarray:
    """Each channel of (channels, *space) clipped at its 0.5 and 99.5 percentiles, as float32 in [0, 1]."""
    if not np.isfinite(image).all():
        raise UserError(
            f"{path}: {np.count_nonzero(~np.isfinite(image))} of its values are NaN or infinite; "
            "replace them or leave out the case."
        )
    scaled = np.empty(image.shape, np.float32)
    for out, channel in zip(scaled, image, strict=True):
        low, high = np.percentile(channel, (0.5, 99.5))
        if low == high:  # nearly everything is background
            low, high = channel.min(), channel.max()
        out[...] = np.clip((channel - low) / (high - low or 1), 0, 1)
    return scaled


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """A volume in the orientation closest to right, anterior, superior.

    Returns:
        The voxels (channels, x, y, z) as float32, the affine (4, 4), the spacing along x, y and z in mm.
    """
    try:
        volume = nib.as_closest_canonical(nib.load(path))
        voxels = np.asarray(volume.dataobj, dtype=np.float32)
    except Exception as error:  # nibabel, gzip and zlib each raise their own on damaged files
        raise unreadable(path, "NIfTI file", error) from error
    if voxels.ndim not in (3, 4):
        raise UserError(f"{path}: has {voxels.ndim} axes; save it as a volume, or as a volume of channels (4 axes).")
    spacing = tuple(float(size) for size in volume.header.get_zooms()[:3])
    if not all(np.isfinite(size) and size > 0 for size in spacing):
        raise UserError(f"{path}: its header gives the voxel size {spacing}; correct the header.")
    return (voxels[None] if voxels.ndim == 3 else np.moveaxis(voxels, -1, 0)), volume.affine, spacing


def slices_first(spacing: tuple[float, ...]) -> tuple[int, int, int]:
    """The order of the axes x, y, z that makes them depth, height, width.

    Slices were taken along the axis of the coarsest spacing, or axially (z) if none stands out by 1 %.
    """
    depth = max(range(3), key=lambda axis: (spacing[axis] > 0.99 * max(spacing), axis))
    height, width = (axis for axis in (2, 1, 0) if axis != depth)
    return depth, height, width
