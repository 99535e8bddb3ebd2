"""`endovis17` and `endovis17_parts`: robotic instruments, as a whole or by their parts."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from semiseg.data.files import visible_files
from semiseg.data.formats import open_picture, read_image
from semiseg.data.original import Still
from semiseg.data.pairs import PairedPictures, Picture, matches, nothing_found
from semiseg.errors import UserError

FRAME = r"instrument_dataset_(?P<video>\d+)/left_frames/(?P<frame>frame\d+)\.png"
MASK = r"instrument_dataset_(?P<video>\d+)/(?P<inside>(?:ground_truth|gt)/)?(?P<kind>[^/]+)/(?P<frame>frame\d+)\.png"
LABELS = re.compile(r"PartsSegmentation|.*_labels")  # elsewhere than in ground_truth, where three lack the ending
APART = re.compile(r"Other.*|(?:Binary|Type)Segmentation|(?:binary|parts|types?|instruments?)_(?:labels|masks)")
SIZE = 1080, 1920  # of a frame
CROP = slice(28, 28 + 1024), slice(320, 320 + 1280)  # the camera's image in it
TRAINING = {0: 0, 10: 1, 20: 2, 30: 3}  # shaft, wrist, claspers
TEST = {0: 0, 30: 1, 100: 2, 255: 3, 200: 0}  # 200 is an ultrasound probe


class EndoVis17(PairedPictures):
    """The left camera's frames, 1024 × 1280 pixels, of 8 videos; and of the test videos where these have masks.

    Frames of one video follow each other at 2 Hz, and the test frames of videos 1 to 8 follow their training frames,
    so the video is the group, across both sets. The other instruments (`Other_labels`, such as an ultrasound probe)
    are background: the challenge labels them for methods not to take them for robotic ones.
    """

    name = "endovis17"
    summary = "frames of robotic surgery on pigs with instrument masks (PNG)"
    task = "robotic instruments in endoscopy frames"
    layout = (
        "DIR/.../instrument_dataset_N/left_frames/frameNNN.png and beside left_frames, for training, "
        "ground_truth/INSTRUMENT/frameNNN.png, for testing, [ground_truth/]PartsSegmentation/frameNNN.png, "
        "which may also be below another instrument_dataset_N"
    )
    classes: tuple[str, ...] = ("background", "instrument")
    licence = "see the rules of the challenge"
    registration = "https://endovissub2017-roboticinstrumentsegmentation.grand-challenge.org/"
    title = "EndoVis 2017 robotic instruments"
    modality = "robotic surgery, porcine"
    page = "https://endovissub2017-roboticinstrumentsegmentation.grand-challenge.org/"
    citation = "Allan et al., arXiv:1902.06426 (2019)"
    grouping = "video"

    def items(self) -> list[Picture]:
        """One item per frame of the videos that have masks, and one per video or mask that lacks its other half."""
        paths = list(visible_files(self.source))
        frames = by_video(each(paths, FRAME))
        masks = by_video(mask for mask in each(paths, MASK) if is_taken(mask))
        join_halves(frames, masks)
        labelled = {Path(video).parent for video in masks}
        pictures: list[Picture] = []
        for video in sorted(frames.keys() | masks.keys()):
            folder = self.source / video
            if video in frames and video in masks:
                pictures += self._pictures(frames[video], masks[video])
            elif video in masks:
                problem = f"{folder}: has masks, but no left_frames; add these or take the masks away."
                pictures.append(Picture(folder.name, folder.name, folder, (), problem))
            elif Path(video).parent in labelled:  # elsewhere no video has masks, as in the test set
                problem = f"{folder}: has no masks, unlike the videos beside it; add them or take the video away."
                pictures.append(Picture(folder.name, folder.name, folder, (), problem))
        if not pictures:
            raise UserError(nothing_found(self.source, paths, self.expected()))
        return pictures

    def _pictures(self, frames: list[re.Match[str]], masks: list[re.Match[str]]) -> Iterator[Picture]:
        """One item per frame of a video, each with a mask of every kind that the video has."""
        images = {frame["frame"]: self.source / frame.string for frame in frames}
        drawn: dict[str, dict[Path, Path]] = {}
        for mask in masks:
            path = self.source / mask.string
            drawn.setdefault(mask["frame"], {})[path.parent] = path
        kinds = sorted({kind for files in drawn.values() for kind in files})
        for frame in sorted(images.keys() | drawn.keys()):
            files = tuple(drawn.get(frame, {}).values())
            image = images.get(frame) or files[0]
            absent = next((kind / f"{frame}.png" for kind in kinds if kind not in drawn.get(frame, {})), None)
            problem = ""
            if frame not in images:
                problem = f"{image}: there is no left_frames/{frame}.png for it; add it or take the mask away."
            elif absent:
                problem = f"{image}: {absent} is missing; complete the masks or take the frame away."
            video = f"video{frames[0]['video']}"
            yield Picture(f"{video}_{frame}", video, image, files, problem)

    @classmethod
    def read_image(cls, path: Path) -> Still:
        """The camera's image, without the black around it."""
        frame = read_image(path)
        if frame.shape[1:] != SIZE:
            return Still(frame)
        return Still(np.ascontiguousarray(frame[:, *CROP]), SIZE, CROP)

    def read_label(self, item: Picture, space: tuple[int, ...]) -> np.ndarray:
        """The parts of all instruments in a frame, as far as the classes tell them apart."""
        label = np.zeros(space, np.uint8)
        for path in item.masks:
            parts = read_parts(path)
            if parts.shape != space:
                raise UserError(f"{path}: is {parts.shape}, its frame {item.image} {space}; provide masks of its size.")
            label[parts > 0] = parts[parts > 0]
        return np.minimum(label, len(self.classes) - 1).astype(np.uint8)


class EndoVis17Parts(EndoVis17):
    """The same frames with the parts of an instrument told apart."""

    name = "endovis17_parts"
    task = "shafts, wrists and claspers of robotic instruments in endoscopy frames"
    classes = ("background", "shaft", "wrist", "claspers")
    title = "EndoVis 2017 robotic instruments, parts"


def is_taken(mask: re.Match[str]) -> bool:
    """Whether a file says where a robotic instrument is, and is not what scripts make of all of them."""
    named = mask["inside"] or LABELS.fullmatch(mask["kind"])
    return bool(named and not APART.fullmatch(mask["kind"]))


def by_video(files: Iterable[re.Match[str]]) -> dict[str, list[re.Match[str]]]:
    """The files by the folder of their video; training and test have one each."""
    videos: dict[str, list[re.Match[str]]] = {}
    for file in files:
        videos.setdefault(file.string[: file.end("video")], []).append(file)
    return videos


def join_halves(frames: dict[str, list[re.Match[str]]], masks: dict[str, list[re.Match[str]]]) -> None:
    """Give masks the folder of their frames: the test set comes as an archive of frames and one of masks."""
    for video, half in list(frames.items()):
        number = half[0]["video"]
        alone = [other for other in frames if other not in masks and frames[other][0]["video"] == number]
        halves = [other for other in masks if other not in frames and masks[other][0]["video"] == number]
        if alone == [video] and len(halves) == 1:
            masks[video] = masks.pop(halves[0])


def each(paths: list[str], pattern: str) -> list[re.Match[str]]:
    """What a pattern finds, in order."""
    return [match for same in matches(paths, pattern).values() for match in same]


def read_parts(path: Path) -> np.ndarray:
    """The parts of instruments as class indices, (height, width); the sets number them differently."""
    mask = np.asarray(open_picture(path).convert("L"))
    mask = mask[CROP] if mask.shape == SIZE else mask
    values = TEST if path.parent.name == "PartsSegmentation" else TRAINING
    unknown = sorted(set(np.unique(mask).tolist()) - set(values))
    if unknown:
        listed, known = (", ".join(map(str, numbers)) for numbers in (unknown[:6], values))
        raise UserError(f"{path}: the mask holds {listed}, but the parts are {known}; replace it by the original.")
    table = np.zeros(256, np.uint8)
    table[list(values)] = list(values.values())
    return table[mask]
