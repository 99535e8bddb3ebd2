"""`drive`: retinal vessels of a diabetic retinopathy screening."""

from typing import ClassVar

from semiseg.data.pairs import PairedPictures


class Drive(PairedPictures):
    """40 photographs of 584 × 565 pixels with the vessels that the first observer drew.

    The challenge site keeps the labels of the 20 test images to itself; these images are left out, unless they come
    with `1st_manual`, as in earlier releases. They were chosen at random among those of 400 people; nothing says
    whether two are of one. What is outside the field of view counts as background; the field `field_of_view` tells
    where it is, and `second_observer`, for the test images alone, what another person drew.
    """

    name = "drive"
    summary = "fundus photographs with vessel masks (TIFF, GIF)"
    task = "vessels in fundus photographs"
    layout = (
        "DIR/training/images/NN_training.tif and DIR/training/1st_manual/NN_manual1.gif; "
        "optional: DIR/test/images/NN_test.tif and DIR/test/1st_manual/NN_manual1.gif, DIR/*/mask/NN_*_mask.gif, "
        "DIR/test/2nd_manual/NN_manual2.gif"
    )
    classes = ("background", "vessel")
    licence = "research and education only, no redistribution"
    registration = "https://drive.grand-challenge.org/"
    title = "DRIVE"
    modality = "fundus photography"
    page = "https://drive.grand-challenge.org/"
    citation = "Staal et al., IEEE Transactions on Medical Imaging 23 (2004)"
    images = r"images/(?P<case>\d\d)_(?:training|test)\.tif"
    masks = ((r"1st_manual/(?P<case>\d\d)_manual1\.gif", 1),)
    beside: ClassVar = {
        "field_of_view": r"mask/(?P<case>\d\d)_(?:training|test)_mask\.gif",
        "second_observer": r"2nd_manual/(?P<case>\d\d)_manual2\.gif",
    }
    unlabeled = r"images/(?P<case>\d\d)_test\.tif"
