"""`drive`: retinal vessels of a diabetic retinopathy screening."""

from semiseg.data.pairs import PairedPictures


class Drive(PairedPictures):
    """40 photographs of 584 × 565 pixels with the vessels that the first observer drew.

    The challenge site keeps the labels of the 20 test images to itself; these images are left out, unless they come
    with `1st_manual`, as in earlier releases. They were chosen at random among those of 400 people; nothing says
    whether two are of one. The masks of the field of view are not read: what is outside counts as background.
    """

    name = "drive"
    summary = "fundus photographs with vessel masks (TIFF, GIF)"
    task = "vessels in fundus photographs"
    layout = (
        "DIR/training/images/NN_training.tif and DIR/training/1st_manual/NN_manual1.gif; "
        "optional: DIR/test/images/NN_test.tif and DIR/test/1st_manual/NN_manual1.gif"
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
    unlabeled = r"images/(?P<case>\d\d)_test\.tif"
