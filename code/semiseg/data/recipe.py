"""What a file in `data_prep/` provides: how one data set, as its owner publishes it, becomes cases."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from semiseg.data.files import visible_files
from semiseg.data.formats import PICTURES, VOLUMES, read_image, read_nifti
from semiseg.data.masks import Thresholds, describe
from semiseg.data.original import Original, Scan, Still
from semiseg.data.store import Case, DatasetInfo
from semiseg.errors import UserError


@dataclass(frozen=True)
class Download:
    """A file that the owner lets anyone download."""

    url: str
    file: str  # the name to save it as; an archive is unpacked into the source folder
    size: int | None = None  # in bytes, exact, where it is known
    sha256: str = ""  # one checksum as the owner publishes it, or none
    md5: str = ""


class MadeOnRequest(Download):
    """An archive that the server makes anew at every request, with other time stamps: no two are equal."""


class Recipe(ABC):
    """Lists the cases of a source and loads them one by one, and reads new images in the same way.

    Loading runs in several processes, so items must be picklable and `load` must depend on nothing else.
    Whatever is wrong with an item is a `UserError` that names the file and the remedy; preparation
    goes on with the other items and reports all errors together.
    The source may come from an archive that wraps one folder around everything: `items` is then asked about
    the outer folder first, and where that raises a `UserError`, about the inner one.
    """

    name: ClassVar[str]
    summary: ClassVar[str]  # what the files are, in a phrase
    task: ClassVar[str] = ""  # what is segmented, in a phrase: "polyps in colonoscopy frames"
    learns: ClassVar[str] = "segmentation"  # what there is to learn, see semiseg.tasks
    layout: ClassVar[str] = ""  # what the source folder must look like; empty when the data are generated
    folder: ClassVar[str] = ""  # the name under which such a folder is handed out, which its data set then has
    classes: tuple[str, ...] = ()  # background first; empty where each source has its own
    licence: ClassVar[str] = ""  # empty where each source has its own
    title: ClassVar[str] = ""  # as people know the data set; this and the next are for `info`
    modality: ClassVar[str] = ""
    grouping: ClassVar[str] = ""  # what a group of cases is, as in `DatasetInfo`; likewise the next
    unit: ClassVar[str] = ""
    page: ClassVar[str] = ""  # where the owner describes the data
    citation: ClassVar[str] = ""  # of the paper to cite with them
    downloads: ClassVar[tuple[Download, ...]] = ()  # from the owner, without an account
    registration: ClassVar[str] = ""  # the page where the owner hands out the files, if only to people who sign up
    endings: ClassVar[tuple[str, ...]] = (*VOLUMES, *PICTURES)  # of the files that `read_image` can read
    file: ClassVar[str] = ""  # what every image is called, where each lies in a folder named after its case
    thresholds: Thresholds | None = None  # that tell greys of masks apart; () where users may ask for some

    def __init__(self, source: Path | None = None) -> None:
        if self.layout and source is None:
            raise UserError(f"{self.name}: name the folder of the files with --source DIR. {self.expected()}")
        if source is not None and not source.is_dir():
            raise UserError(f"{source}: there is no such folder, or archive. {self.expected()}")
        self.source = source or Path()

    @classmethod
    def expected(cls) -> str:
        """Where to get the files and how to lay them out, in one line."""
        page = f"The owner gives them to those who sign up at {cls.registration}. " if cls.registration else ""
        return f"{page}Expected: {cls.layout}"

    @classmethod
    def access(cls) -> str:
        """How to come by the files, in a phrase."""
        if cls.downloads:
            return "can be downloaded"
        if cls.registration:
            return "needs registration"
        return "your own files" if cls.is_for_any_folder() else "generated"

    @classmethod
    def is_for_any_folder(cls) -> bool:
        """Whether it reads a layout that many data sets have, rather than one data set."""
        return bool(cls.layout) and not (cls.downloads or cls.registration)

    @classmethod
    def takes_thresholds(cls) -> bool:
        """Whether the masks are the user's own, whose classes may have to be told apart by grey values."""
        return cls.thresholds is not None

    def info(self) -> DatasetInfo:
        """What the recipe's attributes say; a source that tells more, such as its name, overrides this."""
        return DatasetInfo(
            name=self.name,
            title=self.title,
            modality=self.modality,
            classes=self.classes,
            licence=self.licence,
            source=self.page or self.registration,
            citation=self.citation,
            grouping=self.grouping,
            unit=self.unit,
            task=self.learns,
        )

    def divide_masks(self, thresholds: Thresholds) -> None:
        """Tell the classes of masks apart by grey values, as the user of the files asks for."""
        if not self.takes_thresholds():
            raise UserError(f"--threshold: {self.name} reads masks as their owner publishes them; leave it out.")
        if len(thresholds) != len(self.classes) - 1:
            raise UserError(
                f"--threshold: the classes are {', '.join(self.classes)}; write {len(self.classes) - 1} numbers with "
                f"commas, the least grey value of each but {self.classes[0]}, or name the classes in classes.txt."
            )
        self.thresholds = thresholds

    def masks_are(self) -> str:
        """What was done to tell the classes of masks apart, for `info`."""
        return describe(self.thresholds, self.classes) if self.thresholds else ""

    @abstractmethod
    def items(self) -> list[Any]:
        """One item per case, in a fixed order."""

    @abstractmethod
    def load(self, item: Any) -> Case:
        """The case of one item, with the image that `read_image` makes of its file."""

    def lists(self) -> dict[str, list[str]]:
        """Lists in the source that say how others use its cases, such as an official split; kept beside the cases."""
        return {}

    @classmethod
    def read_image(cls, path: Path) -> Original:
        """An image without a mask, as networks trained on these data expect it; it knows nothing but its file."""
        if path.name.lower().endswith(VOLUMES):
            return Scan.of(read_nifti(path), path)
        return Still(read_image(path))

    @classmethod
    def find_images(cls, place: Path) -> list[Path]:
        """What `read_image` can be asked for: a file, or those in a folder."""
        files = {place} if place.is_file() else {*place.iterdir()} if place.is_dir() else set()
        if cls.file and place.is_dir():
            files |= {place / path for path in visible_files(place) if Path(path).match(cls.file)}
        return [
            file for file in sorted(files) if file.name.lower().endswith(cls.endings) and not file.name.startswith(".")
        ]
