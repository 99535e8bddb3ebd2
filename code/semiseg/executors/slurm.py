"""Carries out runs as an array of jobs on a Slurm cluster, submitted with submitit."""

import math
import shutil
import sys
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import redirect_stderr
from io import StringIO
from itertools import repeat
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from semiseg.errors import UserError
from semiseg.executors.executor import Ended, Executor
from semiseg.executors.slurm_job import Job, Notes, carry_out_list
from semiseg.executors.slurm_queue import ADVICE, final_state, job_states, lives
from semiseg.settings import RunSpec
from semiseg.training.places import Places
from semiseg.training.run import record_failure

TOO_MANY = ("MaxSubmitJob", "Invalid job array specification")  # of jobs, in sbatch's words
LOOKS = 4  # as often in a row must a job be gone: network file systems show its last notes up to a minute late


class Slurm(Executor):
    """Several runs per job, one after the other. Jobs outlive this command, and the next one watches them again.

    A job whose hours are over, or that Slurm puts back into the queue, writes a checkpoint and later goes on from it.
    When a job dies, the run that it was at has failed, and another job gets the rest of its list.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    hours: float = Field(4, gt=0, le=744)  # of a job, not of its runs
    notice: int = Field(
        120, ge=1, le=65535
    )  # seconds before the end of its hours at which a job stops: a step, an evaluation
    runs_per_job: int = Field(4, ge=1)
    cpus_per_job: int = Field(4, ge=1)
    gpus_per_job: int = Field(0, ge=0, le=1)  # a run trains on one device
    memory: str | None = None  # such as 16G; by default what the cluster gives
    extra: dict[str, Any] = Field({})  # further options of sbatch: {constraint: a100}
    poll: float = Field(15, gt=0)  # seconds between two looks at the queue and at the notes of the jobs

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.device not in ("auto", self.device_type):
            raise ValueError(f"device {self.device} does not go with gpus_per_job={self.gpus_per_job}")
        if 3600 * self.hours < 2 * self.notice:
            raise ValueError(f"a job of {self.hours:g} hours would hardly begin before its notice of {self.notice} s")
        return self

    @property
    def device_type(self) -> Literal["cpu", "cuda"]:
        """Jobs with a GPU train on it."""
        return "cuda" if self.gpus_per_job else "cpu"

    def carry_out(self, runs: Sequence[RunSpec], places: Places) -> Generator[Ended, None, None]:
        """Submit what no job has on its list yet, and watch. Leaving the loop early leaves the jobs to Slurm."""
        folder, states = places.results / "slurm", job_states()
        if states is None and shutil.which("squeue") and any(folder.glob("*_list.json")):
            raise UserError(
                "--executor slurm: squeue does not answer, and earlier jobs may have these runs; try again."
            )
        jobs = Job.queued(folder, states or {}, runs)
        fresh = [spec for spec in runs if not any(spec in job.runs for job in jobs)]
        if self.dry_run:
            self._explain(fresh, jobs, folder)
            return
        jobs += self._submit(fresh, places)
        gone = Counter[str]()
        try:
            while jobs:
                states = job_states()  # asked first: what a job noted before it left the queue is then seen
                for job in list(jobs):
                    yield from job.ended()
                    gone[job.number] = 0 if states is None or lives(states, job.number) else gone[job.number] + 1
                    if not job.runs:
                        jobs.remove(job)
                    elif gone[job.number] == LOOKS:
                        jobs.remove(job)
                        rest = yield from _bury(job, final_state(states or {}, job.number), places)
                        jobs += self._submit(rest, places)
                if jobs:
                    time.sleep(self.poll)
        finally:
            if jobs:
                numbers = " ".join(sorted({job.number.partition("_")[0] for job in jobs}))
                print(
                    "semiseg: the jobs go on without this command; the same command watches them again, "
                    f"`scancel {numbers}` cancels them.",
                    file=sys.stderr,
                )

    def _submit(self, runs: Sequence[RunSpec], places: Places) -> list[Job]:
        if not runs:
            return []
        folder, lists = places.results / "slurm", deal(runs, self.runs_per_job)
        executor = self._sbatch(folder)
        if shutil.which("sbatch") is None:
            raise UserError("--executor slurm: there is no sbatch on this machine; log in to one that submits jobs.")
        try:
            with redirect_stderr(StringIO()):  # submitit prints the problem, too
                submitted = executor.map_array(
                    carry_out_list, lists, repeat(places), repeat(self.device_type), repeat(self.cpus_per_job)
                )
        except RuntimeError as error:
            problem = "; ".join(line.removeprefix("sbatch: error: ") for line in str(error).strip().splitlines())
            remedy = "does it take these --executor-set options?"
            if len(lists) > 1 and any(limit in problem for limit in TOO_MANY):
                remedy = (
                    f"{len(lists)} jobs are too many at once; try --executor-set runs_per_job={2 * self.runs_per_job} "
                    f"and hours={2 * self.hours:g}, or ask for fewer runs."
                )
            raise UserError(f"--executor slurm: {problem}; {remedy}") from error
        jobs = [Job(folder, job.job_id, own) for job, own in zip(submitted, lists, strict=True)]
        for job in jobs:
            job.write_list()
        return jobs

    def _sbatch(self, folder: Path) -> Any:
        """Submitit's executor with our options."""
        try:
            import submitit
        except ImportError as error:
            raise UserError("--executor slurm needs submitit; pip install 'semiseg[slurm]'.") from error

        class WithOrWithoutSlurm(submitit.SlurmExecutor):
            affinity = classmethod(lambda cls: 1)  # a dry run needs none

        executor = WithOrWithoutSlurm(folder)
        options = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "mem": self.memory,
            "gpus_per_node": self.gpus_per_job or None,
        }
        executor.update_parameters(
            **{key: value for key, value in options.items() if value is not None},
            job_name="semiseg",
            time=math.ceil(60 * self.hours),
            signal_delay_s=self.notice,
            cpus_per_task=self.cpus_per_job,
            srun_args=[f"--cpus-per-task={self.cpus_per_job}"],  # since Slurm 22.05 a step does not inherit them
            array_parallelism=self.jobs or 256,
            stderr_to_stdout=True,
            additional_parameters={"requeue": True, **self.extra},
        )
        return executor

    def _explain(self, runs: Sequence[RunSpec], jobs: list[Job], folder: Path) -> None:
        """Print what would be submitted, and what is queued already."""
        for job in jobs:
            print(f"job {job.number}, queued already: {', '.join(str(spec.folder) for spec in job.runs)}")
        if not runs:
            return
        executor, lists = self._sbatch(folder), deal(runs, self.runs_per_job)
        if len(lists) > 1:
            executor.parameters["map_count"] = len(lists)  # as submitit does for an array
        print(executor._make_submission_file_text(executor._submitit_command_str, ""))
        for number, own in enumerate(lists):
            print(f"job {number}: {', '.join(str(spec.folder) for spec in own)}")


def _bury(job: Job, state: str, places: Places) -> Generator[Ended, None, list[RunSpec]]:
    """Yield the failures of a job that is no more, and return what another one can carry out."""
    reason = f"Slurm job {job.number} ended as {state}{ADVICE.get(state, '')}; {job.last_words()}"
    noted = Notes(job.folder, job.number).records
    begun = [spec for spec in job.runs if str(spec.folder) in noted]
    for spec in begun:
        yield spec, record_failure(spec, places, reason)
    rest = [spec for spec in job.runs if spec not in begun]
    if noted and state != "CANCELLED":  # a job that dies before its first run would only die again
        return rest
    for spec in rest:  # without a file, which would say that they began
        yield spec, {"status": "failed", "reason": reason}
    return []


def deal(runs: Sequence[RunSpec], size: int) -> list[list[RunSpec]]:
    """Deal runs out to jobs, to and fro: those of longest-first or alternating runs take about equally long."""
    count = math.ceil(len(runs) / size)
    lists: list[list[RunSpec]] = [[] for _ in range(count)]
    for turn, start in enumerate(range(0, len(runs), count)):
        for own, spec in zip(lists[:: -1 if turn % 2 else 1], runs[start : start + count], strict=False):
            own.append(spec)
    return lists
