"""A volume turned as all volumes are, which remembers how its file holds it."""

from typing import NamedTuple

import nibabel as nib
import numpy as np

CANONICAL = nib.orientations.axcodes2ornt("RAS")


class Volume(NamedTuple):
    """A volume in the orientation closest to right, anterior, superior."""

    voxels: np.ndarray  # (channels, x, y, z), float32
    affine: np.ndarray  # (4, 4)
    spacing: tuple[float, ...]  # along x, y and z, in mm
    stored: nib.Nifti1Header  # tells the grid of the file

    def as_stored(self, mask: np.ndarray) -> nib.Nifti1Image:
        """A mask (x, y, z) of the volume, on the grid of the file."""
        header, affine = self.stored.copy(), self.stored.get_best_affine()
        header.set_data_dtype(mask.dtype)
        header["cal_min"] = header["cal_max"] = 0  # the range in which to show the image would hide the mask
        kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        return kind(nib.apply_orientation(mask, self._turn_back()), affine, header)

    def is_placed(self) -> bool:
        """Whether the file tells where the volume lies."""
        return bool(self.stored["qform_code"] or self.stored["sform_code"])

    def in_file_order(self) -> np.ndarray:
        """The voxels (channels, *axes of the file)."""
        return np.stack([nib.apply_orientation(channel, self._turn_back()) for channel in self.voxels])

    def from_file_order(self, mask: np.ndarray) -> np.ndarray:
        """A mask (*axes of the file), turned as the voxels are."""
        return np.asarray(nib.apply_orientation(mask, nib.io_orientation(self.stored.get_best_affine())))

    def _turn_back(self) -> np.ndarray:
        """How the axes x, y and z become those of the file."""
        return nib.orientations.ornt_transform(CANONICAL, nib.io_orientation(self.stored.get_best_affine()))


def grid_header(shape: tuple[int, ...], affine: np.ndarray) -> nib.Nifti1Header:
    """The header of a grid that comes from a file of another format."""
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_qform(affine, 1)  # sets the voxel size, too
    header.set_sform(affine, 1)
    header.set_xyzt_units("mm")
    return header
