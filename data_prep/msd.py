"""`msd` and its ten tasks: the Medical Segmentation Decathlon."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from semiseg.data.recipe import Download
from semiseg.data.store import Case, DatasetInfo
from semiseg.errors import UserError

from .image_folder import Alone, Pair
from .nifti_folder import NiftiFolder
from .volumes import with_problem


def archive(task: str, md5: str) -> tuple[Download]:
    """The archive of a task in the open-data bucket; the checksums are those that MONAI publishes."""
    return (Download(f"https://msd-for-monai.s3-us-west-2.amazonaws.com/{task}.tar", f"{task}.tar", md5=md5),)


class Msd(NiftiFolder):
    """Any task of the Decathlon; `dataset.json` says what belongs to it.

    Its list counts, and not `numTraining`, which adds nothing to it. The Decathlon does not tell which volumes are
    of one patient. CT is scaled like any other image, by each volume's own percentiles, not by a window in
    Hounsfield units, which would have to be chosen for each organ.
    """

    name = "msd"
    summary = "any task of the Medical Segmentation Decathlon (NIfTI)"
    task = "what dataset.json names"
    layout = 'DIR/dataset.json with "labels", "modality" and "training", DIR/imagesTr/*.nii.gz, DIR/labelsTr/*.nii.gz'
    licence = "CC BY-SA 4.0"
    page = "http://medicaldecathlon.com"
    citation = "Antonelli et al., Nature Communications 13 (2022)"
    thresholds = None

    def __init__(self, source: Path | None = None) -> None:
        super().__init__(source)
        path = self.source / "dataset.json"
        if not path.is_file():
            raise UserError(f"{path}: there is no such file. {self.expected()}")
        for key, kind in (("labels", dict), ("modality", dict), ("training", list)):
            if not isinstance(self.description.get(key), kind) or not self.description[key]:
                raise UserError(f'{path}: has no "{key}" as the Decathlon writes it; restore the original file.')
        known = type(self).classes
        if known and [*map(_spelled, self.classes)] != [*map(_spelled, known)]:
            task = self.downloads[0].file.removesuffix(".tar")
            raise UserError(
                f"{path}: names the classes {', '.join(self.classes)}, but those of {self.name} are "
                f"{', '.join(known)}; name the folder of that task, {task}, or prepare this one as `msd`."
            )

    def info(self) -> DatasetInfo:
        """Named after the recipe; the general one after its folder."""
        info = super().info()
        return replace(
            info,
            name=info.name if self.name == "msd" else self.name,
            title=f"MSD {info.title}",
            licence=self.licence,
            source=self.page,
            citation=self.citation,
        )

    def items(self) -> list[Pair | Alone]:
        """One pair per case; `dataset.json` and the folders must agree on what the cases are."""
        path = self.source / "dataset.json"
        listed = {_case(entry) for entry in self.description["training"]}
        pairs = super().items()
        items = [
            pair
            if isinstance(pair, Alone) or pair.id in listed
            else with_problem(pair, f"{pair.image}: is not listed in {path}; take it away, or add it to the list.")
            for pair in pairs
        ]
        absent = [
            f"{path}: lists {case or 'a case without image and label'}, which is in neither folder; "
            "complete the folders or correct the list."
            for case in sorted(listed - {pair.id for pair in pairs if isinstance(pair, Pair)})
        ]
        return [*items, *(Pair("", "", path, path, problem) for problem in absent)]

    def load(self, item: Pair | Alone) -> Case:
        """One volume with the channels that `modality` names."""
        case = super().load(item)
        channels = self.description["modality"]
        if len(case.image) != len(channels):
            raise UserError(
                f"{item.image}: has {len(case.image)} channels, but dataset.json names {len(channels)} "
                f"({', '.join(map(str, channels.values()))}); replace it by the original file."
            )
        return case


def _case(entry: Any) -> str:
    """The name of a case in the list; empty if the entry is none or its files have two names."""
    if not isinstance(entry, dict):
        return ""
    image, label = (re.sub(r"\.nii(\.gz)?$", "", Path(str(entry.get(key, ""))).name) for key in ("image", "label"))
    return image if image == label else ""


def _spelled(name: str) -> str:
    """A class name in one spelling: copies differ in capitals, in hyphens, and in how they write tumor."""
    return re.sub(r"[\W_]+", " ", name).strip().casefold().replace("tumour", "tumor")


class MsdBrainTumour(Msd):
    """Task 1."""

    name = "msd_brain_tumour"
    summary = "four MR sequences of the Decathlon's task 1 (NIfTI)"
    task = "edema, non-enhancing and enhancing tumor in multi-sequence brain MR"
    classes = ("background", "edema", "non-enhancing tumor", "enhancing tumour")
    downloads = archive("Task01_BrainTumour", "240a19d752f0d9e9101544901065d872")


class MsdHeart(Msd):
    """Task 2."""

    name = "msd_heart"
    summary = "MR of the Decathlon's task 2 (NIfTI)"
    task = "left atrium in MR"
    classes = ("background", "left atrium")
    downloads = archive("Task02_Heart", "06ee59366e1e5124267b774dbd654057")


class MsdLiver(Msd):
    """Task 3."""

    name = "msd_liver"
    summary = "CT of the Decathlon's task 3 (NIfTI)"
    task = "liver and liver tumors in CT"
    classes = ("background", "liver", "cancer")
    downloads = archive("Task03_Liver", "a90ec6c4aa7f6a3d087205e23d4e6397")


class MsdHippocampus(Msd):
    """Task 4.

    The left and the right hippocampus of a person are volumes of their own, and the Decathlon does not tell which
    belong together; so a split may separate them.
    """

    name = "msd_hippocampus"
    summary = "MR of the Decathlon's task 4 (NIfTI)"
    task = "anterior and posterior hippocampus in MR"
    classes = ("background", "Anterior", "Posterior")
    downloads = archive("Task04_Hippocampus", "9d24dba78a72977dbd1d2e110310f31b")


class MsdProstate(Msd):
    """Task 5."""

    name = "msd_prostate"
    summary = "two MR sequences of the Decathlon's task 5 (NIfTI)"
    task = "peripheral and transition zone of the prostate in T2-weighted MR and ADC"
    classes = ("background", "PZ", "TZ")
    downloads = archive("Task05_Prostate", "35138f08b1efaef89d7424d2bcc928db")


class MsdLung(Msd):
    """Task 6."""

    name = "msd_lung"
    summary = "CT of the Decathlon's task 6 (NIfTI)"
    task = "lung tumors in CT"
    classes = ("background", "cancer")
    downloads = archive("Task06_Lung", "8afd997733c7fc0432f71255ba4e52dc")


class MsdPancreas(Msd):
    """Task 7."""

    name = "msd_pancreas"
    summary = "CT of the Decathlon's task 7 (NIfTI)"
    task = "pancreas and pancreatic tumors in CT"
    classes = ("background", "pancreas", "cancer")
    downloads = archive("Task07_Pancreas", "4f7080cfca169fa8066d17ce6eb061e4")


class MsdHepaticVessel(Msd):
    """Task 8."""

    name = "msd_hepatic_vessel"
    summary = "CT of the Decathlon's task 8 (NIfTI)"
    task = "hepatic vessels and tumors in CT"
    classes = ("background", "Vessel", "Tumour")
    downloads = archive("Task08_HepaticVessel", "641d79e80ec66453921d997fbf12a29c")


class MsdSpleen(Msd):
    """Task 9."""

    name = "msd_spleen"
    summary = "CT of the Decathlon's task 9 (NIfTI)"
    task = "spleen in CT"
    classes = ("background", "spleen")
    downloads = archive("Task09_Spleen", "410d4a301da4e5b2f6f86ec3ddba524e")


class MsdColon(Msd):
    """Task 10."""

    name = "msd_colon"
    summary = "CT of the Decathlon's task 10 (NIfTI)"
    task = "colon cancer in CT"
    classes = ("background", "colon cancer primaries")
    downloads = archive("Task10_Colon", "bad7a188931dc2f6acf72b08eb6202d0")
