"""`kvasir_instrument`: tools of gastrointestinal endoscopy."""

from semiseg.data.pairs import PairedPictures
from semiseg.data.recipe import Download


class KvasirInstrument(PairedPictures):
    """590 frames, at their size.

    Nothing says which frames come from one video. The lists `train.txt` and `test.txt` (472 and 118 frames) are not
    read: every method is compared on the suite's own splits.
    """

    name = "kvasir_instrument"
    summary = "gastrointestinal endoscopy frames with tool masks (JPEG, PNG)"
    task = "instruments in gastrointestinal endoscopy frames"
    layout = "DIR/images/*.jpg and DIR/masks/*.png with the same names"
    classes = ("background", "instrument")
    licence = "research and education only"
    downloads = (Download("https://datasets.simula.no/downloads/kvasir-instrument.zip", "kvasir-instrument.zip"),)
    title = "Kvasir-Instrument"
    modality = "gastrointestinal endoscopy"
    page = "https://datasets.simula.no/kvasir-instrument/"
    citation = "Jha et al., MultiMedia Modeling (2021), doi:10.1007/978-3-030-67835-7_19"
    images = r"images/(?P<case>[^/]+)\.(?:jpe?g|png)"
    masks = ((r"masks/(?P<case>[^/]+)\.(?:png|jpe?g)", 1),)
