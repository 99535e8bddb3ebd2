"""`left_atrium`: the 2018 Atrial Segmentation Challenge as its organizers publish it."""

import hashlib
from dataclasses import replace
from pathlib import Path

from semiseg.data.files import visible_files
from semiseg.data.itk import read_volume
from semiseg.data.original import Scan
from semiseg.data.pairs import nothing_found
from semiseg.errors import UserError

from .image_folder import Pair
from .volumes import VolumeRecipe, find, paired

SPACING = 0.625  # mm along each axis, according to the challenge


class LeftAtrium(VolumeRecipe):
    """Late gadolinium-enhanced MR of the heart, whole volumes of 88 slices.

    UA-MT's files of the same scans are cut to a box around the mask with a margin, which nobody could do for a scan
    that has no mask yet; here nothing is cut off. The headers tell a voxel size of 1 mm that is not true, so the
    challenge's takes its place. The published names do not tell which scans are of one patient; scans whose mask
    files are equal to the byte, as happens, form a group at least.
    """

    name = "left_atrium"
    summary = "late gadolinium-enhanced MR of the 2018 Atrial Segmentation Challenge (NRRD)"
    task = "left atrium in late gadolinium-enhanced MR"
    layout = "DIR/.../CASE/lgemri.nrrd and laendo.nrrd, in Training Set/ and Testing Set/ or one of them"
    classes = ("background", "left atrium")
    licence = "terms of the 2018 Atrial Segmentation Challenge"
    title = "Left atrium (2018 challenge)"
    modality = "LGE MR"
    citation = "Xiong et al., Medical Image Analysis 67 (2021)"
    file = "lgemri.nrrd"
    registration = "https://www.cardiacatlas.org/atriaseg2018-challenge/atria-seg-data/"

    def items(self) -> list[Pair]:
        """One pair per folder, named after it."""
        files = find(self.source, self.file, "laendo.nrrd")
        if not files:
            raise UserError(self._nothing())
        found = ((path.parent.name, path.name == "laendo.nrrd", path) for path in files)
        first: dict[str, str] = {}
        return [
            replace(pair, group=first.setdefault(_digest(pair.mask), pair.id))
            for pair in paired(found, self.file, "laendo.nrrd")
        ]

    @classmethod
    def read_image(cls, path: Path) -> Scan:
        """A whole volume, with the challenge's voxel size where the header tells none."""
        volume = read_volume(path)
        return Scan.of(volume._replace(spacing=(SPACING,) * 3) if volume.spacing == (1, 1, 1) else volume, path)

    def _nothing(self) -> str:
        if find(self.source, "mri_norm2.h5"):
            return (
                f"{self.source}: holds the HDF5 files of UA-MT, not those of the challenge; "
                f"prepare them with `semiseg prepare ua_mt_folder --source {self.source}`."
            )
        return nothing_found(self.source, visible_files(self.source), self.expected())


def _digest(path: Path) -> str:
    """What tells files of different content apart; an unreadable file is like no other."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return str(path)
