"""What a file in `data_prep/` provides: how one data set, as its owner publishes it, becomes cases."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from semiseg.data.store import Case, DatasetInfo
from semiseg.errors import UserError


class Recipe(ABC):
    """Lists the cases of a source and loads them one by one.

    Loading runs in several processes, so items must be picklable and `load` must depend on nothing else.
    Whatever is wrong with an item is a `UserError` that names the file and the remedy; preparation
    goes on with the other items and reports all errors together.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    layout: ClassVar[str] = ""  # what the source folder must look like; empty when the data are generated

    def __init__(self, source: Path | None = None) -> None:
        if self.layout and source is None:
            raise UserError(f"{self.name}: say where the files are with --source DIR. Expected: {self.layout}")
        if source is not None and not source.is_dir():
            raise UserError(f"{source}: no such folder. {self.name} expects: {self.layout}")
        self.source = source or Path()

    @abstractmethod
    def info(self) -> DatasetInfo:
        """Name, classes, licence and origin of the data set."""

    @abstractmethod
    def items(self) -> list[Any]:
        """One item per case, in a fixed order."""

    @abstractmethod
    def load(self, item: Any) -> Case:
        """The case of one item."""
