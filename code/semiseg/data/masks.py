"""What the values of a mask mean: classes, black and white, or greys that thresholds tell apart."""

from pathlib import Path

import numpy as np

from semiseg.errors import UserError

FEW = 32  # values up to here, without a fraction, are classes rather than greys
NAMED = "in classes.txt, the background first (in a dataset.json that has `labels`, there)"
Thresholds = tuple[float, ...]  # the least grey value of every class but the background, ascending


def parse_thresholds(text: str) -> Thresholds:
    """Read `128`, or `64,192`."""
    try:
        thresholds = tuple(float(part) for part in text.split(","))
    except ValueError:
        thresholds = ()
    if not thresholds or not np.isfinite(thresholds).all() or list(thresholds) != sorted(set(thresholds)):
        raise UserError(f"--threshold {text}: write a number, or ascending ones with commas, such as 64,192.")
    return thresholds


def describe(thresholds: Thresholds, classes: tuple[str, ...]) -> str:
    """What thresholds make of a mask, in a phrase."""
    first, *others = zip(thresholds, classes[1:], strict=True)
    return f"greys from {first[0]:g} on are {first[1]}" + "".join(f", from {t:g} on {name}" for t, name in others)


def class_indices(
    mask: np.ndarray, classes: tuple[str, ...], path: Path, thresholds: Thresholds | None = None, fixed: bool = False
) -> np.ndarray:
    """A mask as uint8 class indices; with two classes 255 also stands for the foreground.

    With thresholds, the class of a value is the number of thresholds that it reaches. None says that there is no
    asking for them; with `fixed` there is none for other classes either, which are those of a public data set.
    """
    if thresholds:
        return _divided(mask, thresholds, path)
    values = np.unique(mask).tolist()
    if len(classes) == 2 and 255 in values and set(values) <= {0, 255}:
        return (mask == 255).astype(np.uint8)
    unknown = [value for value in values if value not in range(len(classes))]
    if not unknown:
        return mask.astype(np.uint8)
    listed = f"{', '.join(f'{value:.9g}' for value in unknown[:6])}{', ...' * (len(unknown) > 6)}"
    named = ", ".join(f"{index} {name}" for index, name in enumerate(classes))
    if fixed:
        remedy = "they are the data set's: take its owner's masks, or prepare yours as image_folder or nifti_folder"
    elif thresholds is None or values[0] < 0 or not np.isfinite(values).all():
        remedy = f"name every class {NAMED}, or correct the mask"
    elif values[-1] < FEW and all(value == int(value) for value in values):
        remedy = f"name every class {NAMED}"
        if len(values) == len(classes) == 2:  # halfway up to white, as below, all would become background
            remedy += f", or, if {values[1]:g} is the object, add --threshold 1"
    else:
        # Not looked for in the mask: one proposal has to serve all masks of a folder.
        usual = _halfway(len(classes), values[-1])
        meaning = describe(usual, classes)
        option = f"--threshold {','.join(f'{value:g}' for value in usual)} ({meaning})"
        if len(values) > len(classes):
            raise UserError(
                f"{path}: the mask has values between those of its classes ({listed}), as smooth edges and JPEG leave "
                f"them; add {option}, or, if each is a class, name all {NAMED}."
            )
        remedy = f"name every class {NAMED}, or tell the values apart by {option}"
    raise UserError(f"{path}: the mask holds the values {listed}, but the classes are {named}; {remedy}.")


def _divided(mask: np.ndarray, thresholds: Thresholds, path: Path) -> np.ndarray:
    if not np.isfinite(mask).all():
        raise UserError(f"{path}: the mask holds values that are NaN or infinite; correct it.")
    indices = np.digitize(mask, thresholds).astype(np.uint8)
    if mask.any() and not indices.any():  # such as class indices among black and white masks
        raise UserError(
            f"{path}: the mask is not empty, but its values, up to {mask.max():.9g}, lie below --threshold "
            f"{thresholds[0]:g}; choose a lower one, or save all masks with the same values."
        )
    return indices


def _halfway(classes: int, highest: float) -> Thresholds:
    """The thresholds between evenly spaced grey values, up to what is usually white where the highest value is so."""
    white = next((usual for usual in (1, classes - 1, 255, 65535) if highest <= usual), highest)
    halves = [white * (2 * index + 1) / (2 * (classes - 1)) for index in range(classes - 1)]
    return tuple(float(np.ceil(half)) if white >= 255 else half for half in halves)
