"""Masks for new images, one after the other; an image that cannot be read does not stop the others."""

from pathlib import Path

from rich.progress import track

from semiseg.console.terminal import console
from semiseg.data.problems import one_of_each_kind
from semiseg.errors import UserError, UserErrors
from semiseg.training.prediction import image_files, load_predictor, write_mask


def predict(run: Path, images: Path, out: Path, device: str, methods_dir: Path | None) -> None:
    """Write the masks, say how many, and raise what went wrong."""
    predictor = load_predictor(run, device, methods_dir)
    empty, problems = 0, []
    files = image_files(predictor, images)
    for path in track(files, "Predicting", console=console, transient=True, disable=not console.is_terminal):
        try:
            empty += not write_mask(predictor, path, out)
        except UserError as error:
            problems.append(str(error))
    nothing = f", in {empty} of which there is nothing but background" if empty else ""
    written = len(files) - len(problems)
    console.print(f"{written} mask{'s' * (written != 1)} in {out}{nothing}", highlight=False)
    if problems:
        raise UserErrors(one_of_each_kind(problems))
