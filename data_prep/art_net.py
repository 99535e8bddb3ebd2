"""`art_net`: tools in laparoscopy."""

from semiseg.data.pairs import PairedPictures


class ArtNet(PairedPictures):
    """The frames that show a tool, at their size; the frames without (`TrainNeg`, `TestNeg`) have no masks.

    The videos are of several patients, but the names are mere numbers. Frames are read from `TrainPos` and `TestPos`,
    as the authors' repository calls them. What the folders of the tool masks are called could not be verified: a folder
    with `mask`, `seg` or `tool_gt` in its name counts, unless it is about edges, mid-lines or tips, and it must be the
    only one for a frame.
    """

    name = "art_net"
    summary = "laparoscopy frames with tool masks (PNG)"
    task = "tools in laparoscopy frames"
    layout = (
        "DIR/Train/TrainPos/NUMBER.png with a mask of the same name in another folder, such as DIR/Train/ToolMask/ "
        "(mask, seg or tool_gt in its name), likewise DIR/Test/"
    )
    classes = ("background", "tool")
    licence = "research and academic use only"
    registration = "https://github.com/kamruleee51/ART-Net"
    title = "ART-Net"
    modality = "laparoscopy"
    page = "https://github.com/kamruleee51/ART-Net"
    citation = "Hasan et al., Medical Image Analysis 70 (2021)"
    images = r"(?:train|test)_?pos(?:itive)?/(?P<case>\d+)\.png"
    masks = ((r"(?![^/]*(?:edge|mid|tip))[^/]*(?:mask|seg|tool_?gt)[^/]*/(?P<case>\d+)[^/]*\.png", 1),)
