"""`kvasir_seg`: polyps in colonoscopy."""

from semiseg.data.pairs import PairedPictures
from semiseg.data.recipe import Download


class KvasirSeg(PairedPictures):
    """1000 frames, at their size, between 332 × 487 and 1920 × 1072 pixels.

    The masks are JPEG files, so not quite black and white. Nothing says which frames come from one patient.
    """

    name = "kvasir_seg"
    summary = "colonoscopy frames with polyp masks (JPEG)"
    task = "polyps in colonoscopy frames"
    layout = "DIR/images/*.jpg and DIR/masks/*.jpg with the same names"
    classes = ("background", "polyp")
    licence = "research and education only"
    downloads = (
        Download(
            "https://datasets.simula.no/downloads/kvasir-seg.zip",
            "kvasir-seg.zip",
            sha256="03b30e21d584e04facf49397a2576738fd626815771afbbf788f74a7153478f7",
        ),
    )
    title = "Kvasir-SEG"
    modality = "colonoscopy"
    page = "https://datasets.simula.no/kvasir-seg/"
    citation = "Jha et al., MultiMedia Modeling (2020), doi:10.1007/978-3-030-37734-2_37"
    images = r"images/(?P<case>[^/]+)\.(?:jpe?g|png)"
    masks = ((r"masks/(?P<case>[^/]+)\.(?:jpe?g|png)", 1),)
