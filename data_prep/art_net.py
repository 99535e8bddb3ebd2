"""`art_net`: tools in laparoscopy."""

from pathlib import Path

from semiseg.data.files import visible_files
from semiseg.data.pairs import PairedPictures, Picture, matches
from semiseg.errors import UserError

CASE = r"(?P<case>(?:(?:train|test)_pos_sample_)?\d+)"  # numbers begin anew in the second half


class ArtNet(PairedPictures):
    """The frames that show a tool, at their size; the frames without (`TrainNeg`, `TestNeg`) have no masks.

    The videos are of several patients, but the names tell nothing but numbers. Frames are read from `TrainPos` and
    `TestPos`, as the authors' repository calls them, or `Train_Positive` and `Test_Positive`, which public code reads.
    A folder with `mask`, `seg` or `tool_gt` in its name counts, unless it is about edges, mid-lines, tips or frames
    without a tool (`neg`), and no other beside it may hold the same frame.
    """

    name = "art_net"
    summary = "laparoscopy frames with tool masks (PNG)"
    task = "tools in laparoscopy frames"
    layout = (
        "DIR/Train/TrainPos/NUMBER.png with a mask of the same name in another folder, such as DIR/Train/ToolMask/ "
        "(mask, seg or tool_gt in its name), or DIR/Train/Train_Positive/Train_Pos_sample_NUMBER.png with "
        "Train_Positive_Tool_Mask/Train_Pos_sample_NUMBER_Tool_Mask.png; likewise DIR/Test/"
    )
    classes = ("background", "tool")
    licence = "research and academic use only"
    registration = "https://github.com/kamruleee51/ART-Net"
    title = "ART-Net"
    modality = "laparoscopy"
    page = "https://github.com/kamruleee51/ART-Net"
    citation = "Hasan et al., Medical Image Analysis 70 (2021)"
    images = rf"(?:train|test)_?pos(?:itive)?/{CASE}\.png"
    masks = ((rf"(?![^/]*(?:edge|mid|tip|neg))[^/]*(?:mask|seg|tool_?gt)[^/]*/{CASE}(?!\d)[^/]*\.png", 1),)

    def items(self) -> list[Picture]:
        """One item per frame with a tool, once it is clear which folders hold the masks."""
        for masks in matches(visible_files(self.source), self.masks[0][0]).values():
            folders = sorted({Path(mask.string).parent for mask in masks})
            if len({folder.parent for folder in folders}) < len(folders):
                raise UserError(
                    f"{self.source}: the masks of the tools may be in {' or '.join(map(str, folders))}; "
                    "keep the folder that shows whole tools, and move the others elsewhere."
                )
        return super().items()
