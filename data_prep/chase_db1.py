"""`chase_db1`: retinal vessels of school children."""

from typing import ClassVar

from semiseg.data.pairs import PairedPictures
from semiseg.data.recipe import Download


class ChaseDb1(PairedPictures):
    """Both eyes of 14 children, 960 × 999 pixels, with the vessels that the first observer drew.

    What the second one drew is the field `second_observer`. The owner gives no masks of the field of view.
    """

    name = "chase_db1"
    summary = "fundus photographs with vessel masks (JPEG, PNG)"
    task = "vessels in fundus photographs of children"
    layout = (
        "DIR/Image_01L.jpg, Image_01R.jpg, ... and DIR/Image_01L_1stHO.png, Image_01R_1stHO.png, ...; "
        "optional: DIR/Image_01L_2ndHO.png, ..."
    )
    classes = ("background", "vessel")
    licence = "CC BY 4.0"
    downloads = (Download("https://researchdata.kingston.ac.uk/96/1/CHASEDB1.zip", "CHASEDB1.zip"),)
    title = "CHASE_DB1"
    modality = "fundus photography"
    page = "https://researchdata.kingston.ac.uk/96/"
    citation = "Fraz et al., IEEE Transactions on Biomedical Engineering 59 (2012)"
    grouping = "patient"
    images = r"(?P<case>(?P<group>Image_\d\d)[LR])\.jpg"
    masks = ((r"(?P<case>Image_\d\d[LR])_1stHO\.png", 1),)
    beside: ClassVar = {"second_observer": r"(?P<case>Image_\d\d[LR])_2ndHO\.png"}
