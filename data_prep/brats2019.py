"""`brats2019`: whole tumors in the FLAIR volumes of the Brain Tumor Segmentation Challenge 2019."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from semiseg.data.files import visible_files
from semiseg.data.itk import read_volume
from semiseg.data.original import Scan
from semiseg.data.pairs import nothing_found
from semiseg.data.store import Case
from semiseg.errors import UserError

from .image_folder import Pair
from .volumes import VolumeRecipe, find, nonzero_box, paired

# The values of the published masks; 3 is not in use, but copies exist in which it stands for 4.
REGIONS = ("background", "necrotic core", "edema", "enhancing tumor", "enhancing tumor")


class Brats2019(VolumeRecipe):
    """FLAIR volumes with the skull removed, and the whole tumor: every voxel that the mask names at all.

    This is the task of SSL4MIS. The air around the head is cut off, by the image alone.
    """

    name = "brats2019"
    summary = "FLAIR MR of the BraTS 2019 challenge (NIfTI)"
    task = "whole brain tumor in FLAIR MR"
    layout = "DIR/.../HGG/PATIENT/PATIENT_flair.nii.gz and PATIENT_seg.nii.gz, the same in LGG/ (or .nii)"
    classes = ("background", "whole tumor")
    licence = "terms of the BraTS 2019 challenge"
    title = "BraTS 2019, whole tumor"
    modality = "FLAIR MR"
    grouping = "patient"
    citation = (
        "Menze et al., IEEE Transactions on Medical Imaging 34 (2015); "
        "Bakas et al., Scientific Data 4 (2017); Bakas et al., arXiv:1811.02629 (2018)"
    )
    registration = "https://www.med.upenn.edu/cbica/brats2019/registration.html"

    def items(self) -> list[Pair]:
        """One pair per patient."""
        found = [
            (path.name.rpartition(kind)[0], kind == "_seg", path)
            for kind in ("_flair", "_seg")
            for path in find(self.source, f"*{kind}.nii.gz", f"*{kind}.nii")
        ]
        if not found:
            raise UserError(nothing_found(self.source, visible_files(self.source), self.expected()))
        return paired(found, "*_flair.nii.gz", "*_seg.nii.gz")

    @classmethod
    def read_image(cls, path: Path) -> Scan:
        """The head, slices first."""
        volume = read_volume(path)
        return Scan.of(volume, path, nonzero_box(volume.voxels))

    def load(self, item: Pair) -> Case:
        """The head, with one mask for all regions of the tumor."""
        case = self.case(item, REGIONS)
        return replace(case, label=(np.asarray(case.label) > 0).astype(np.uint8))
