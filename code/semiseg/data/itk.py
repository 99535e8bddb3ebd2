"""Reads the volumes that ITK knows and nibabel does not: NRRD, MetaImage, DICOM slices."""

from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from semiseg.data.formats import VOLUMES as NIFTI
from semiseg.data.formats import read_nifti, unreadable
from semiseg.data.volume import Volume, grid_header
from semiseg.errors import UserError

VOLUMES = (*NIFTI, ".nrrd", ".mha", ".mhd")

# What ITK warns of (odd headers, uneven slices) is either harmless or told as an error of the file.
sitk.ProcessObject.SetGlobalWarningDisplay(False)


def read_volume(path: Path) -> Volume:
    """A volume in any of the formats; NIfTI through nibabel, for ITK takes half a file for a whole one."""
    return read_nifti(path) if path.name.lower().endswith(NIFTI) else read_itk(path)


def read_itk(path: Path) -> Volume:
    """A volume in a format that ITK reads."""
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise itk_error(path, "volume", error) from error
    return oriented(image, path)


def read_slices(files: list[Path]) -> Volume:
    """A volume from the files of its slices, which are sorted and evenly spaced."""
    try:
        image = sitk.ReadImage([str(file) for file in files])
    except RuntimeError as error:
        raise itk_error(files[0].parent, "DICOM series", error) from error
    return oriented(image, files[0].parent)


def oriented(image: sitk.Image, path: Path) -> Volume:
    """An ITK image as a volume; `path` is where it comes from."""
    if image.GetDimension() != 3:
        raise UserError(f"{path}: has {image.GetDimension()} axes; save it as a volume.")
    voxels = sitk.GetArrayFromImage(image).astype(np.float32)
    if voxels.ndim == 3:
        voxels = voxels[..., None]
    voxels = voxels.transpose(2, 1, 0, 3)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1  # ITK's axes point left and backward
    stored = grid_header(voxels.shape[:3], affine)
    turn = nib.io_orientation(affine)
    affine = affine @ nib.orientations.inv_ornt_aff(turn, voxels.shape[:3])
    voxels = np.moveaxis(nib.apply_orientation(voxels, turn), -1, 0)
    return Volume(voxels, affine, tuple(float(size) for size in nib.affines.voxel_sizes(affine)), stored)


def itk_error(path: Path, kind: str, error: Exception) -> UserError:
    """The error for a file that ITK could not read; what it says last is the reason."""
    lines = [line.strip() for line in str(error).splitlines()]
    # Of a file that ends too early, MetaImage says that there is none.
    reasons = [line.rpartition("): ")[2] for line in lines if line and not line.startswith("Reason: No such file")]
    return unreadable(path, kind, RuntimeError(reasons[-1] if reasons else type(error).__name__))
