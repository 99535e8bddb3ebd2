"""`promise12`: the training cases of the PROMISE12 challenge as its organizers publish them."""

import re
from pathlib import Path

from semiseg.data.files import visible_files
from semiseg.data.pairs import nothing_found
from semiseg.data.recipe import Download
from semiseg.errors import UserError

from .image_folder import Pair, read_text
from .volumes import VolumeRecipe, find, paired, with_problem

NAME = re.compile(r"(Case\d+)(_segmentation)?\.mhd", re.IGNORECASE)


class Promise12(VolumeRecipe):
    """T2-weighted MR of 50 men from four hospitals.

    These are the cases that papers split anew. The test sets are left out, for they number their cases from 00
    again: files below a folder with `test` in its name do not count.
    """

    name = "promise12"
    summary = "T2-weighted MR of the PROMISE12 challenge (MetaImage)"
    task = "prostate in T2-weighted MR"
    layout = "DIR/.../CaseNN.mhd and CaseNN_segmentation.mhd, each with its .raw"
    classes = ("background", "prostate")
    licence = "free for research that cites the challenge's paper"
    title = "PROMISE12"
    modality = "T2-weighted MR"
    grouping = "patient"
    page = "https://doi.org/10.5281/zenodo.8026660"
    citation = "Litjens et al., Medical Image Analysis 18 (2014)"
    downloads = (
        Download(
            "https://zenodo.org/records/8026660/files/training_data.zip",
            "training_data.zip",
            size=323_664_221,
            md5="f6d23994117c989daf07e5291edd0aea",
        ),
    )

    def items(self) -> list[Pair]:
        """One pair per patient; a header without its voxels is a problem of the pair."""
        found = [
            (match[1].capitalize(), bool(match[2]), path)
            for path in find(self.source, "*.mhd")
            if (match := NAME.fullmatch(path.name)) and not self._is_test(path)
        ]
        if not found:
            raise UserError(nothing_found(self.source, visible_files(self.source), self.expected()))
        pairs = paired(found, "*.mhd", "*_segmentation.mhd")
        return [with_problem(pair, _without_voxels(pair.image) or _without_voxels(pair.mask)) for pair in pairs]

    def _is_test(self, path: Path) -> bool:
        return any("test" in folder.lower() for folder in path.relative_to(self.source).parts[:-1])


def _without_voxels(header: Path) -> str:
    """What is wrong with the file that a MetaImage header names; nothing if it is there."""
    try:
        entries = dict(line.partition("=")[::2] for line in read_text(header).splitlines())
    except UserError as error:
        return str(error)
    name = next((value.strip() for key, value in entries.items() if key.strip() == "ElementDataFile"), "")
    if name in ("", "LOCAL", "LIST") or (header.parent / name).is_file():
        return ""
    return f"{header}: its voxels should be in {name} beside it, which is not there; add that file."
