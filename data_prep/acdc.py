"""`acdc`: the Automated Cardiac Diagnosis Challenge as its organizers publish it."""

import re
from pathlib import Path

from semiseg.data.files import visible_files
from semiseg.data.pairs import nothing_found
from semiseg.data.recipe import MadeOnRequest
from semiseg.errors import UserError

from .image_folder import Pair, read_text
from .volumes import VolumeRecipe, find, paired

NAME = re.compile(r"(?P<case>patient\d+_frame\d+)(?P<mask>_gt)?\.nii(\.gz)?")


class Acdc(VolumeRecipe):
    """Short-axis cine MR of 150 patients, each at end diastole and end systole.

    All patients are cases, those of `testing` too, for their masks have been published since; a split keeps the
    two phases of a patient together.
    """

    name = "acdc"
    summary = "cine MR of the ACDC challenge (NIfTI)"
    task = "right ventricle, myocardium and left ventricle in short-axis cine MR"
    layout = (
        "DIR/.../patientNNN/patientNNN_frameNN.nii.gz with patientNNN_frameNN_gt.nii.gz and Info.cfg, "
        "in training/ and testing/ or one of them"
    )
    classes = ("background", "right ventricle", "myocardium", "left ventricle")
    licence = "CC BY-NC-SA 4.0"
    title = "ACDC"
    modality = "cine MR"
    grouping = "patient"
    page = "https://www.creatis.insa-lyon.fr/Challenge/acdc/"
    citation = "Bernard et al., IEEE Transactions on Medical Imaging 37 (2018)"
    downloads = (
        MadeOnRequest(
            "https://humanheart-project.creatis.insa-lyon.fr/database/api/v1/folder/637218e573e9f0047faa00fc/download",
            "acdc.zip",
        ),
    )

    def items(self) -> list[Pair]:
        """One pair per patient and phase; phases that `Info.cfg` names and nobody finds are pairs with a problem."""
        matches = [
            (match, path)
            for path in find(self.source, "patient*_frame*.nii.gz", "patient*_frame*.nii")
            if (match := NAME.fullmatch(path.name))
        ]
        if not matches:
            raise UserError(_nothing(self))
        pairs = paired(
            ((match["case"], bool(match["mask"]), path) for match, path in matches),
            "*.nii.gz",
            "*_gt.nii.gz",
            group=lambda case: case.partition("_")[0],
        )
        cases = {pair.id for pair in pairs}
        return pairs + [pair for path in find(self.source, "patient*/Info.cfg") for pair in _missing(path, cases)]


def _missing(path: Path, cases: set[str]) -> list[Pair]:
    """The phases of a patient that `Info.cfg` names (`ED: 1`, `ES: 12`) and that are not among the cases."""
    patient = path.parent.name
    try:
        entries = dict(line.partition(":")[::2] for line in read_text(path).splitlines())
    except UserError as error:
        return [Pair(f"{patient}_phases", patient, path, path, str(error))]
    pairs = []
    for phase in ("ED", "ES"):
        frame = entries.get(phase, "").strip()
        case = f"{patient}_frame{int(frame):02d}" if frame.isdecimal() else f"{patient}_{phase}"
        if not frame.isdecimal():
            problem = f"{path}: does not tell the frame of {phase}; restore the line `{phase}: N`."
        elif case not in cases:
            problem = f"{path}: names {case} as {phase}, but there is no {case}.nii.gz; add it and its mask."
        else:
            continue
        pairs.append(Pair(case, patient, path, path, problem))
    return pairs


def _nothing(recipe: Acdc) -> str:
    if find(recipe.source, "patient*_frame*.h5", "patient*_slice_*.h5"):
        return (
            f"{recipe.source}: holds the HDF5 files of SSL4MIS, not those of the challenge; "
            f"prepare them with `semiseg prepare ssl4mis_folder --source {recipe.source}`."
        )
    return nothing_found(recipe.source, visible_files(recipe.source), recipe.expected())
