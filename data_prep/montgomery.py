"""`montgomery`: lungs in the chest X-rays of a tuberculosis screening."""

from pathlib import Path

import numpy as np

from semiseg.data.formats import read_image
from semiseg.data.original import Still
from semiseg.data.pairs import PairedPictures
from semiseg.data.recipe import Download


class Montgomery(PairedPictures):
    """138 radiographs of 4020 × 4892 or 4892 × 4020 pixels, stored at that size in 8 bits: 2.7 GB before compression.

    Both lungs are one class, since images are mirrored in training. The names hold a number and whether the lungs are
    normal (0) or not (1); that no patient has two numbers is likely, but not stated.
    """

    name = "montgomery"
    summary = "chest X-rays with a mask of each lung (PNG)"
    task = "lungs in chest X-rays"
    layout = "DIR/CXR_png/MCUCXR_*.png, and with the same names DIR/ManualMask/leftMask and DIR/ManualMask/rightMask"
    classes = ("background", "lung")
    licence = "free to use with citation, no redistribution"
    downloads = (
        Download("https://openi.nlm.nih.gov/imgs/collections/NLM-MontgomeryCXRSet.zip", "NLM-MontgomeryCXRSet.zip"),
    )
    title = "Montgomery County X-ray Set"
    modality = "chest X-ray"
    page = "https://lhncbc.nlm.nih.gov/LHC-downloads/downloads.html#tuberculosis-image-data-sets"
    citation = (
        "Jaeger et al., Quantitative Imaging in Medicine and Surgery 4 (2014); "
        "Jaeger et al. and Candemir et al., both IEEE Transactions on Medical Imaging 33 (2014)"
    )
    images = r"CXR_png/(?P<case>MCUCXR_\d{4}_[01])\.png"
    masks = (
        (r"leftMask/(?P<case>MCUCXR_\d{4}_[01])\.png", 1),
        (r"rightMask/(?P<case>MCUCXR_\d{4}_[01])\.png", 1),
    )
    spacing, unit = (0.0875, 0.0875), "mm"

    @classmethod
    def read_image(cls, path: Path) -> Still:
        """One channel in 8 bits, whatever the file has: as float32 the radiographs would take 11 GB."""
        image = read_image(path)[:1]
        return Still(image if image.dtype == np.uint8 else np.round(255 * image).astype(np.uint8))
