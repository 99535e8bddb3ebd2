"""What every executor is: options that a person can set, and one method that carries out runs."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from typing import Any, Literal

from pydantic import Field

from semiseg.settings import RunSpec, Settings
from semiseg.training.places import Places

Ended = tuple[RunSpec, dict[str, Any]]  # a run and its record


class Executor(Settings, ABC):
    """Carries out runs somewhere. Its fields are the options of `--executor-set`, checked before anything starts.

    Runs report their progress, and who carries them out, through the lease in their folder, which the command
    watches; an executor only has to call `execute` somewhere and to yield what it returns.
    """

    device: str = "auto"  # auto, cpu or cuda
    jobs: int | None = Field(None, ge=1)  # runs at the same time; by default as many as the machine is good for
    dry_run: bool = False  # print what would be done, and carry out nothing

    @property
    @abstractmethod
    def device_type(self) -> Literal["cpu", "cuda"]:
        """What runs will be carried out on; it decides what `training.precision: auto` means for all of them."""

    @abstractmethod
    def carry_out(self, runs: Sequence[RunSpec], places: Places) -> Generator[Ended, None, None]:
        """Yield every run with its record as it ends.

        A process, or a node, that dies costs its run at most, not the others. A run that somebody else holds, or
        that was stopped, comes back with the status "held" or "left". Leaving the loop early stops what runs,
        or says that a scheduler goes on with it.

        Args:
            runs: in the order in which they should begin.
            places: absolute paths, the same for all machines.
        """
