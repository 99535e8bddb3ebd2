"""A job of Slurm: the runs on its list, its notes in the shared folder, and what it does on its node."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from semiseg.executors.executor import Ended
from semiseg.executors.slurm_queue import lives
from semiseg.settings import RunSpec
from semiseg.training.files import write_json
from semiseg.training.places import Places
from semiseg.training.run import execute
from semiseg.training.stopping import stop_on_signals

BEGUN = {"status": "running"}


@dataclass
class Job:
    """A job, and those of its runs that are still waited for.

    It has two files, each with one writer: its list, by the command that submitted it, and its notes, by itself.
    """

    folder: Path
    number: str  # 17, or 17_3 in an array
    runs: list[RunSpec]

    def write_list(self) -> None:
        """Let later commands know what is on the list."""
        Notes(self.folder, self.number).path.unlink(missing_ok=True)  # of another cluster's job of the same number
        write_json(self.folder / f"{self.number}_list.json", [spec.model_dump(mode="json") for spec in self.runs])

    @classmethod
    def queued(cls, folder: Path, states: dict[str, str], runs: Sequence[RunSpec]) -> list[Self]:
        """The jobs of earlier commands that still wait or run, each with those of the runs that it will carry out."""
        jobs = []
        for path in sorted(folder.glob("*_list.json")):
            number = path.name.removesuffix("_list.json")
            if lives(states, number):
                content, notes = json.loads(path.read_text(encoding="utf-8")), Notes(folder, number)
                listed = [{key: value for key, value in one.items() if key != "tuned"} for one in content]
                asked = [spec for spec in runs if spec.model_dump(mode="json", exclude={"tuned"}) in listed]
                own = [spec for spec in asked if not notes.ended(spec)]
                jobs.append(cls(folder, number, own))
        return [job for job in jobs if job.runs]

    def ended(self) -> Iterator[Ended]:
        """Yield the runs that have ended, and wait for them no longer."""
        notes = Notes(self.folder, self.number)
        for spec in list(self.runs):
            if notes.ended(spec):
                self.runs.remove(spec)
                yield spec, notes.records[str(spec.folder)]

    def last_words(self) -> str:
        """The last line of its log, and where to read the others."""
        log = self.folder / f"{self.number}_0_log.out"
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
        last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
        return f"its last words were: {last} (see {log})"


class Notes:
    """The records of the runs that a job began, by their folders."""

    def __init__(self, folder: Path, number: str) -> None:
        self.path = folder / f"{number}_notes.json"
        content = self.path.read_text(encoding="utf-8") if self.path.exists() else "{}"
        self.records: dict[str, dict[str, Any]] = json.loads(content)

    def note(self, spec: RunSpec, record: dict[str, Any]) -> None:
        """Write down how far a run is."""
        self.records[str(spec.folder)] = record
        write_json(self.path, self.records)

    def ended(self, spec: RunSpec) -> bool:
        """Whether there is nothing left that this job would do for a run."""
        return self.records.get(str(spec.folder), BEGUN) != BEGUN


def carry_out_list(runs: list[RunSpec], places: Places, device: str, threads: int) -> None:
    """Carry out one run after the other, from where an earlier start of the same job left off."""
    import submitit

    here = submitit.JobEnvironment()
    notes = Notes(here.paths.folder, here.job_id)
    # In place of submitit's handlers, which would leave a run in the middle of a step. Slurm says USR2 before the job's
    # hours are over, and TERM when it cancels the job or has put it back into the queue by itself.
    hours_are_over, told_to_go = stop_on_signals([signal.SIGUSR2]), stop_on_signals([signal.SIGTERM])
    torch.set_num_threads(threads)
    for spec in runs:
        if hours_are_over() or told_to_go():
            break
        if not notes.ended(spec):
            notes.note(spec, BEGUN)
            record = execute(spec, places, torch.device(device), lambda: hours_are_over() or told_to_go())
            if record["status"] != "left":
                notes.note(spec, record)
    if all(notes.ended(spec) for spec in runs):
        return
    if hours_are_over():
        # Not by SLURM_JOB_ID: in one job of an array it is the number of all of them.
        subprocess.run(["scontrol", "requeue", here.job_id], check=True)
    sys.exit("stopped with a checkpoint")
