"""Masks for new images, by a finished run."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from semiseg.data.discovery import recipes
from semiseg.data.formats import PICTURES, VOLUMES, is_grey
from semiseg.data.recipe import Recipe
from semiseg.errors import UserError
from semiseg.method import Method, Task
from semiseg.registry import find_methods
from semiseg.settings import RunSpec
from semiseg.tasks import DEFAULT
from semiseg.training.checksums import WEIGHTS
from semiseg.training.evaluation import predict_case
from semiseg.training.files import read_record
from semiseg.training.precision import place
from semiseg.validation import validate


@dataclass(frozen=True)
class Predictor:
    """The reported network of a finished run."""

    network: nn.Module
    task: Task
    volumetric: bool
    precision: str
    device: torch.device
    image_type: str = ""  # of the images it was trained on; empty where the run does not tell, or any image is read
    # Reads images as those of the training were read; its class methods are all that is called.
    recipe: type[Recipe] = Recipe  # type: ignore[type-abstract]

    def __call__(self, image: np.ndarray, path: Path) -> np.ndarray:
        """Class indices (*space) of an image (channels, *space)."""
        if (len(image), self.task.channels) == (3, 1) and is_grey(image):
            image = image[:1]
        if len(image) != self.task.channels:
            many = f"{len(image)} channel{'s' if len(image) > 1 else ''}"
            raise UserError(f"{path}: has {many}, and the run was trained on {self.task.channels}; convert it.")
        if self.image_type and str(image.dtype) != self.image_type:
            own, trained = ("8 bits", "more") if image.dtype == np.uint8 else ("more than 8 bits", "8")
            raise UserError(f"{path}: has {own}, and the images that the run was trained on {trained}; convert it.")
        (mask,) = predict_case([self.network], image, self.task, self.device, self.precision)
        return mask


def load_predictor(run: Path, device: str, methods_dir: Path | None = None) -> Predictor:
    """Load the reported network of a run folder."""
    record, weights = read_record(run), run / WEIGHTS
    if record.get("status") != "finished":
        raise UserError(
            f"{run}: not the folder of a finished run; "
            "it is called like results/NAME/runs/METHOD/labels-05/fold-0/seed-0."
        )
    if not weights.exists():
        raise UserError(f"{weights}: the weights are missing; delete run.json and repeat the run.")
    spec, data = validate(RunSpec, record["spec"], str(run / "run.json")), record["data"]
    if data.get("task", DEFAULT) != DEFAULT:
        raise UserError(f"{run}: learned {data['task']}; masks are predicted by runs that learned {DEFAULT}.")
    method_class = _method(spec.implementation, run, methods_dir)
    training = spec.training
    task = Task(
        data["channels"], len(data["classes"]), training.size, spec.network, spec.seed, trained=True,
        crop=training.crop, stride=spec.protocol.stride if spec.protocol else None,
    )  # fmt: skip
    method = method_class(task, validate(method_class.Config, spec.config, str(run / "run.json")))
    try:
        method.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        raise UserError(f"{weights}: damaged, or not of this run; delete run.json and repeat the run.") from error
    network = place(next(iter(method.predictors().values())), task.dims, torch.device(device))
    kind = _recipe(data.get("recipe", ""), run)
    precision = "float32" if (device, task.dims) == ("cpu", 3) else training.precision  # whatever a GPU trained with
    image_type = data.get("image_type", "") if kind is not Recipe else ""
    return Predictor(network, task, data["volumetric"], precision, torch.device(device), image_type, kind)


def _method(name: str, run: Path, methods_dir: Path | None) -> type[Method]:
    found = find_methods(methods_dir)
    if name not in found:
        raise UserError(
            f"{run}: was trained with the method {name!r}, which is not installed here; "
            f"give the folder of its file, {name}.py, with --methods-dir DIR."
        )
    return found[name]


def _recipe(name: str, run: Path) -> type[Recipe]:
    """The recipe of the data that a run was trained on; where the run does not tell, any image is read as it is."""
    if not name:
        return Recipe
    found = recipes()
    if name not in found:
        raise UserError(
            f"{run}: was trained on data of the recipe {name!r}, which has to read new images, too, and is not there; "
            f"put its file into data_prep/ (`semiseg prepare {name}` tells what is wrong with a file that is there)."
        )
    return found[name]


def image_files(predictor: Predictor, images: Path) -> list[Path]:
    """The images to segment: one, or all in a folder that the run can read."""
    if not images.exists():
        raise UserError(f"{images}: there is no such file or folder.")
    others = PICTURES if predictor.volumetric else VOLUMES
    files = [f for f in predictor.recipe.find_images(images) if not f.name.lower().endswith(others)]
    if not files:
        endings = [e for e in predictor.recipe.endings if e not in others]
        raise UserError(f"{images}: holds no image that this run can segment ({', '.join(endings)}).")
    masks = Counter(mask_name(predictor, f) for f in files)
    for file in files:
        if masks[mask_name(predictor, file)] > 1:
            raise UserError(f"{file}: another image would get a mask of the same name; rename one of them.")
    return files


def mask_name(predictor: Predictor, image: Path) -> str:
    """The file name of an image's mask; an image may also be the folder of a series, or the only one in its folder."""
    if image.is_file() and image.name == predictor.recipe.file:
        image = image.resolve().parent
    endings = [e for e in predictor.recipe.endings if image.is_file() and image.name.lower().endswith(e)]
    stem = image.name[: -len(max(endings, key=len))] if endings else image.resolve().name
    return stem + (".nii.gz" if predictor.volumetric else ".png")


def write_mask(predictor: Predictor, path: Path, out: Path) -> bool:
    """Segment one image: a picture to a PNG (two classes as 0 and 255), a volume to NIfTI on the same grid.

    Returns:
        Whether anything but background was found.
    """
    target = out / mask_name(predictor, path)
    if target.resolve() == path.resolve():
        raise UserError(f"--out {out}: the mask would replace the image {path}; choose another folder.")
    original = predictor.recipe.read_image(path)
    mask = predictor(original.image, path)
    if not predictor.volumetric and predictor.task.classes == 2:
        mask *= 255
    out.mkdir(parents=True, exist_ok=True)
    original.save(mask, target)
    return bool(mask.any())
