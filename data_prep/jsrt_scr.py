"""`jsrt_scr`: lungs, heart and clavicles in chest X-rays."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semiseg.data.formats import PICTURES, unreadable
from semiseg.data.original import Still
from semiseg.data.pairs import PairedPictures, Picture
from semiseg.data.store import Case
from semiseg.errors import UserError

SIZE, PIXEL = 2048, 0.175  # pixels along each side, and the size of one in mm
COARSER = 2  # how many of them a pixel of the masks takes along each side, as SCR publishes them
CASE = r"(?P<case>JPC(?:LN|NN)\d{3})"


class JsrtScr(PairedPictures):
    """247 radiographs of the JSRT with the masks of the SCR database.

    The films were digitized to 2048 × 2048 pixels of 12 bits, and the masks are drawn on a coarser grid. Stored is the
    grid of the masks (the mean of the 2 × 2 pixels that one mask pixel covers, where the masks are 1024 × 1024), in
    8 bits, and inverted, so that lungs are dark as on film. Left and right are one class, since images are mirrored
    in training. A clavicle lies over a lung; the pixel counts as clavicle. Nothing says whether two radiographs are of
    one patient. A new radiograph, which has no masks, is read on the grid of those that SCR publishes, 1024 × 1024.
    """

    name = "jsrt_scr"
    summary = "chest X-rays (raw, 2048 × 2048, 12 bits) with masks of lungs, heart and clavicles (GIF)"
    task = "lungs, heart and clavicles in chest X-rays"
    layout = (
        "DIR/All247images/JPC*.IMG (of JSRT) and DIR/fold1/masks/, DIR/fold2/masks/ with the folders left lung, "
        "right lung, heart, left clavicle and right clavicle of JPC*.gif (of SCR)"
    )
    classes = ("background", "lung", "heart", "clavicle")
    licence = "research and education only, no redistribution"
    registration = "http://db.jsrt.or.jp/eng.php and https://www.isi.uu.nl/Research/Databases/SCR/"
    title = "JSRT with SCR masks"
    modality = "chest X-ray"
    page = "http://db.jsrt.or.jp/eng.php, https://www.isi.uu.nl/Research/Databases/SCR/"
    citation = (
        "Shiraishi et al., American Journal of Roentgenology 174 (2000); "
        "van Ginneken et al., Medical Image Analysis 10 (2006)"
    )
    endings = (".img", *PICTURES)
    images = rf"{CASE}\.img"
    masks = (
        (rf"left[ _]lung/{CASE}\.gif", 1),
        (rf"right[ _]lung/{CASE}\.gif", 1),
        (rf"heart/{CASE}\.gif", 2),
        (rf"left[ _]clavicle/{CASE}\.gif", 3),
        (rf"right[ _]clavicle/{CASE}\.gif", 3),
    )

    def load(self, item: Picture) -> Case:
        """Read a radiograph at the size of its masks."""
        if item.problem:
            raise UserError(item.problem)
        rows, columns = self.read_mask(item.masks[0]).shape
        if rows != columns or SIZE % rows:
            raise UserError(
                f"{item.masks[0]}: the mask is {rows} × {columns}, which does not divide the {SIZE} × {SIZE} pixels "
                "of the radiograph; replace it by the mask of the SCR database."
            )
        image = read_raw(item.image, SIZE // rows).image
        pixel = PIXEL * SIZE / rows
        return Case(item.id, item.group, image, self.read_label(item, (rows, columns)), (pixel, pixel))

    @classmethod
    def read_image(cls, path: Path) -> Still:
        """A raw radiograph, or a picture of one in which lungs are dark."""
        return read_raw(path, COARSER) if path.name.lower().endswith(".img") else super().read_image(path)


@dataclass(frozen=True)
class Radiograph(Still):
    """A radiograph on a coarser grid."""

    factor: int = COARSER

    def save(self, mask: np.ndarray, path: Path) -> None:
        """Write a mask at the size of the radiograph."""
        super().save(mask.repeat(self.factor, 0).repeat(self.factor, 1), path)


def read_raw(path: Path, factor: int) -> Radiograph:
    """A raw radiograph, averaged over squares of `factor` pixels: (1, SIZE / factor, SIZE / factor), uint8."""
    try:
        raw = np.fromfile(path, ">u2")
    except OSError as error:
        raise unreadable(path, "raw image", error) from error
    if raw.size != SIZE * SIZE:
        raise UserError(
            f"{path}: holds {raw.size} numbers of 16 bits instead of {SIZE} × {SIZE}, truncated or of another kind; "
            "replace it by an intact copy."
        )
    if raw.max() > 4095:
        raise UserError(f"{path}: holds values above 4095, so not the 12 bits of JSRT; replace it by the original.")
    squares = raw.reshape(SIZE // factor, factor, SIZE // factor, factor).mean((1, 3))
    return Radiograph(np.round((4095 - squares) * (255 / 4095)).astype(np.uint8)[None], factor=factor)
