"""`stare`: retinal vessels, in half of the images with a disease."""

import gzip
import io
from pathlib import Path

import numpy as np
from PIL import Image

from semiseg.data.budget import Budget, Metered
from semiseg.data.formats import PICTURES, unreadable
from semiseg.data.original import Still
from semiseg.data.pairs import PairedPictures, foreground
from semiseg.data.recipe import Download
from semiseg.errors import UserError

FOLDER = "https://cecas.clemson.edu/~ahoover/stare/probing"


class Stare(PairedPictures):
    """20 slides, digitized to 605 × 700 pixels, with the vessels that Adam Hoover drew.

    Nothing says which slides are of one patient. The files can stay compressed, and in one folder or several.
    """

    name = "stare"
    summary = "fundus photographs with vessel masks (PPM, compressed or not)"
    task = "vessels in fundus photographs"
    layout = "DIR/imNNNN.ppm.gz and DIR/imNNNN.ah.ppm.gz, or without .gz (stare-images.tar and labels-ah.tar unpacked)"
    classes = ("background", "vessel")
    licence = "publicly available, see its page"
    downloads = (
        Download(
            f"{FOLDER}/stare-images.tar",
            "stare-images.tar",
            sha256="5f7b509b6067cad4f1be84933145d783de9ec087b3eaaf4db0103dd0144dd433",
        ),
        Download(
            f"{FOLDER}/labels-ah.tar",
            "labels-ah.tar",
            sha256="ebf2f1e17ca955f24579d9edd990e2dae79a5c82def69f0985d8e24f826ddd2f",
        ),
    )
    title = "STARE"
    modality = "fundus photography"
    page = f"{FOLDER}/"
    citation = "Hoover et al., IEEE Transactions on Medical Imaging 19 (2000)"
    endings = (".ppm", ".ppm.gz", *PICTURES)
    images = r"(?P<case>im\d{4})\.ppm(?:\.gz)?"
    masks = ((r"(?P<case>im\d{4})\.ah\.ppm(?:\.gz)?", 1),)

    @classmethod
    def read_image(cls, path: Path) -> Still:
        """The image, (3, height, width)."""
        return Still(np.ascontiguousarray(np.moveaxis(np.asarray(open_ppm(path).convert("RGB")), -1, 0)))

    def read_mask(self, path: Path) -> np.ndarray:
        """Where there is a vessel."""
        return foreground(open_ppm(path), path)


def open_ppm(path: Path) -> Image.Image:
    """A picture in a file that is compressed or not."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            content = Metered(file, path, Budget(path.stat().st_size)).read()
        picture = Image.open(io.BytesIO(content))
        picture.load()
    except UserError:
        raise
    except Exception as error:  # gzip, zlib and Pillow each raise their own on damaged files
        raise unreadable(path, "image", error) from error
    return picture
