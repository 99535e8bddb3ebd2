"""`hrf`: retinal vessels at high resolution, in healthy eyes, diabetic retinopathy and glaucoma."""

from semiseg.data.pairs import PairedPictures
from semiseg.data.recipe import Download


class Hrf(PairedPictures):
    """45 photographs with the vessels that experts drew.

    They are stored as they are, 2336 × 3504 pixels and 8 bits a channel: 1.1 GB before compression. The names hold a
    number and the diagnosis (`01_dr`, `01_g`, `01_h`); nothing says whether a patient was photographed twice. The
    masks of the field of view are not read: what is outside counts as background.
    """

    name = "hrf"
    summary = "high resolution fundus photographs with vessel masks (JPEG, TIFF)"
    task = "vessels in fundus photographs"
    layout = "DIR/images/NN_dr.JPG, NN_g.jpg and NN_h.jpg, and DIR/manual1/*.tif with the same names"
    classes = ("background", "vessel")
    licence = "CC BY 4.0"
    downloads = (
        Download(
            "https://www5.cs.fau.de/fileadmin/research/datasets/fundus-images/all.zip",
            "all.zip",
            sha256="a914d02cda161b7f33f25d0397c276d50e9a6cbc705e9b364a54f0adafed57e4",
        ),
    )
    title = "HRF"
    modality = "fundus photography"
    page = "https://www5.cs.fau.de/research/data/fundus-images/"
    citation = "Budai et al., International Journal of Biomedical Imaging (2013)"
    images = r"(?P<case>\d\d_(?:dr|g|h))\.jpg"
    masks = ((r"(?P<case>\d\d_(?:dr|g|h))\.tif", 1),)
