"""Masks for new images, by a finished run."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from semiseg.data.formats import PICTURES, VOLUMES, read_image, read_nifti, slices_first, unit_range
from semiseg.errors import UserError
from semiseg.method import Task
from semiseg.registry import get_method
from semiseg.settings import RunSpec, validate
from semiseg.training.evaluation import predict_case
from semiseg.training.files import read_record
from semiseg.training.precision import place


@dataclass(frozen=True)
class Predictor:
    """The reported network of a finished run."""

    network: nn.Module
    task: Task
    volumetric: bool
    precision: str
    device: torch.device

    def __call__(self, image: np.ndarray, path: Path) -> np.ndarray:
        """Class indices (*space) of an image (channels, *space)."""
        if len(image) != self.task.channels:
            raise UserError(f"{path}: has {len(image)} channels, the run was trained with {self.task.channels}.")
        return predict_case(self.network, image, self.task, self.device, self.precision)


def load_predictor(run: Path, device: str, methods_dir: Path | None = None) -> Predictor:
    """Load the reported network of a run folder."""
    record, weights = read_record(run), run / "model.safetensors"
    if record.get("status") != "finished":
        raise UserError(
            f"{run}: not the folder of a finished run; "
            "it is called like results/NAME/runs/METHOD/labels-05/fold-0/seed-0."
        )
    if not weights.exists():
        raise UserError(f"{weights}: the weights are missing; delete run.json and repeat the run.")
    spec, data = validate(RunSpec, record["spec"], str(run / "run.json")), record["data"]
    method_class = get_method(spec.implementation, methods_dir)
    task = Task(data["channels"], len(data["classes"]), spec.training.size, spec.network, spec.seed)
    method = method_class(task, validate(method_class.Config, spec.config, str(run / "run.json")))
    try:
        method.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        raise UserError(f"{weights}: damaged, or not of this run; delete run.json and repeat the run.") from error
    network = place(next(iter(method.predictors().values())), task.dims, torch.device(device))
    return Predictor(network, task, data["volumetric"], spec.training.precision, torch.device(device))


def image_files(images: Path, volumetric: bool) -> list[Path]:
    """The files to segment: one file, or all of a folder that the run can read."""
    endings = VOLUMES if volumetric else PICTURES
    files = [images] if images.is_file() else sorted(images.iterdir()) if images.is_dir() else []
    files = [f for f in files if f.name.lower().endswith(endings)]
    if not files:
        raise UserError(f"{images}: holds no image that this run can segment ({', '.join(endings)}).")
    masks = Counter(mask_name(f) for f in files)
    for file in files:
        if masks[mask_name(file)] > 1:
            raise UserError(f"{file}: another image would get a mask of the same name; rename one of them.")
    return files


def mask_name(image: Path) -> str:
    """The file name of an image's mask."""
    ending = next(e for e in (*VOLUMES, *PICTURES) if image.name.lower().endswith(e))
    return image.name[: -len(ending)] + (".nii.gz" if ending in VOLUMES else ".png")


def write_mask(predictor: Predictor, path: Path, out: Path) -> None:
    """Segment one file: a picture to a PNG (two classes as 0 and 255), a volume to NIfTI on the same grid."""
    target = out / mask_name(path)
    if target.resolve() == path.resolve():
        raise UserError(f"--out {out}: the mask would replace the image {path}; choose another folder.")
    out.mkdir(parents=True, exist_ok=True)
    if not predictor.volumetric:
        mask = predictor(read_image(path), path)
        Image.fromarray(mask * (255 if predictor.task.classes == 2 else 1)).save(target)
        return
    voxels, affine, spacing = read_nifti(path)
    order = slices_first(spacing)
    image = np.ascontiguousarray(unit_range(voxels, path).transpose(0, *(axis + 1 for axis in order)))
    mask = predictor(image, path).transpose(np.argsort(order))
    original: Any = nib.load(path)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.io_orientation(original.affine))
    nib.Nifti1Image(mask, affine).as_reoriented(turn).to_filename(target)
