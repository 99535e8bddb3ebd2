"""`robotool`: instruments of robotic surgery in many kinds of procedures."""

from semiseg.data.pairs import PairedPictures


class RoboTool(PairedPictures):
    """514 frames, at their size, of 20 videos of surgical procedures, which the names tell (`dv1` to `dv20`)."""

    name = "robotool"
    summary = "frames of robotic surgery with instrument masks (PNG)"
    task = "instruments in frames of robotic surgery"
    layout = "DIR/dvN_NNNNN.png and DIR/dvN_NNNNN_seg.png"
    classes = ("background", "instrument")
    licence = "CC BY 4.0, see its Synapse page"
    registration = "https://www.synapse.org/#!Synapse:syn22427422"
    title = "RoboTool"
    modality = "robotic surgery"
    page = "https://www.synapse.org/#!Synapse:syn22427422"
    citation = "Garcia-Peraza-Herrera et al., IEEE Transactions on Medical Imaging 40 (2021)"
    grouping = "video"
    images = r"(?P<case>(?P<group>dv\d+)_\d+)\.(?:png|jpe?g)"
    masks = ((r"(?P<case>dv\d+_\d+)_seg\.png", 1),)
