"""Carries out runs as tasks of a Ray cluster: of one that is there, or of one that is started for them here."""

import os
from collections import Counter, deque
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, PrivateAttr, model_validator

from semiseg.errors import UserError
from semiseg.executors.executor import Ended, Executor
from semiseg.executors.ray_cluster import Common, check_nodes, cluster, common, one_line, room
from semiseg.settings import RunSpec
from semiseg.training.places import Places
from semiseg.training.run import execute, record_failure
from semiseg.training.stopping import stop_on_signals

LOOK_AROUND = 5.0  # seconds between two looks at which nodes there are
GRACE = 60.0  # seconds for runs to write their checkpoints when all are asked to stop
CHANCES = {"process": 2, "node": 4}  # as often may a run lose what carries it out; then it is given up
REMEDY = {"process": ", probably for lack of memory; use fewer --jobs, a smaller batch, or memory_per_run"}


class Ray(Executor):
    """Every run is a task; Ray keeps the processes of tasks, so that torch is imported once and not for every run.

    On a GPU a run has a process of its own, which Ray ends to be sure that the memory of the GPU is free again.
    """

    address: str | None = Field(None, pattern=r"^(auto|[^/\s]+:\d+)$")  # of a cluster; without it, one is started here
    cpus_per_run: int = Field(1, ge=1)
    gpus_per_run: float | None = Field(None, ge=0, le=1)  # 0.5: two share one; without it, one if this machine has any
    memory_per_run: float | None = Field(None, gt=0)  # GB, which Ray shares out but does not enforce

    _lost: Counter[tuple[Path, str]] = PrivateAttr(default_factory=Counter)

    @model_validator(mode="after")
    def _device_and_gpus_agree(self) -> Self:
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"--device {self.device}: choose auto, cpu or cuda")
        if self.device != "auto" and (self.device == "cuda") != (self._gpus > 0):
            raise ValueError(f"gpus_per_run={self._gpus:g} does not go with --device {self.device}")
        return self

    @property
    def device_type(self) -> Literal["cpu", "cuda"]:
        """A GPU if runs are given one."""
        return "cuda" if self._gpus else "cpu"

    @property
    def _gpus(self) -> float:
        if self.gpus_per_run is not None:
            return self.gpus_per_run
        return float(self.device == "cuda" or (self.device == "auto" and torch.cuda.is_available()))

    @property
    def _needs(self) -> dict[str, float]:
        """What Ray sets aside for a run, by Ray's names."""
        return {"CPU": self.cpus_per_run, "GPU": self._gpus, "memory": round((self.memory_per_run or 0) * 1e9)}

    def __str__(self) -> str:
        where = f"the Ray cluster at {self.address}" if self.address else "a Ray cluster on this machine"
        memory = f", {self.memory_per_run:g} GB of memory" if self.memory_per_run else ""
        return f"{where}, with CPUs: {self.cpus_per_run}, GPUs: {self._gpus:g}{memory} for each run"

    def carry_out(self, runs: Sequence[RunSpec], places: Places) -> Generator[Ended, None, None]:
        """Yield every run with its record as it ends; one that lost its node is carried out elsewhere."""
        if self.dry_run:
            print(f"{len(runs)} runs on {self}")
            return
        with cluster(self.address) as ray, common(runs, places) as shared:
            check_nodes(ray, list(self._rooms(ray)), shared)
            # Only if GPUs are named here, and not in options(), does Ray end the process that used one.
            work = ray.remote(
                num_cpus=self.cpus_per_run, num_gpus=self._gpus, memory=self._needs["memory"] or None, max_retries=0
            )(_work)
            waiting, begun = deque(runs), dict[Any, RunSpec]()
            try:
                while waiting or begun:
                    # Not more tasks than there is room for, so that they begin in order, and the scheduler stays fast.
                    rooms = self._rooms(ray)
                    while waiting and len(begun) < self._at_most(sum(rooms.values())):
                        spec, run_as = waiting.popleft(), (self.device_type, self.cpus_per_run, self._sharing(rooms))
                        begun[work.remote(spec, places, shared, *run_as)] = spec
                    for ended in ray.wait(list(begun), timeout=LOOK_AROUND)[0]:
                        spec = begun.pop(ended)
                        record = self._record(ray, ended, spec, places)
                        if record is None:
                            waiting.appendleft(spec)
                        else:
                            yield spec, record
            finally:
                for running in begun:
                    ray.cancel(running)  # interrupts the task, which `stop_on_signals` takes for a request
                if begun:
                    ray.wait(list(begun), num_returns=len(begun), timeout=GRACE)

    def _rooms(self, ray: Any) -> dict[str, int]:
        """The nodes that can carry out runs, and how many at a time."""
        rooms = room(ray, self._needs)
        if not rooms:
            raise UserError(f"--executor ray: no node is large enough for {self}; ask for less, or start such a node.")
        return rooms

    def _at_most(self, runs: int) -> int:
        return min(runs, self.jobs or runs)

    def _sharing(self, rooms: dict[str, int]) -> int:
        """How many runs share a device: a GPU, or the processors of a node."""
        return self._at_most(int(1 / self._gpus) if self._gpus else max(rooms.values()))

    def _record(self, ray: Any, ended: Any, spec: RunSpec, places: Places) -> dict[str, Any] | None:
        """The record of a task that ended, or None if its run has to be begun again."""
        try:
            record: dict[str, Any] = ray.get(ended)
            if record["status"] != "left":
                return record
            lost, how = "node", "shut down"  # asked to stop, but not by us
        except ray.exceptions.NodeDiedError as error:
            lost, how = "node", type(error).__name__
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
            lost, how = "process", type(error).__name__
        except ray.exceptions.RayError as error:  # the run did not even begin
            return record_failure(spec, places, one_line(error))
        # Counted for as long as the command lasts: it comes back with a run whose lost node still seems to hold it.
        self._lost[spec.folder, lost] += 1
        if self._lost[spec.folder, lost] < CHANCES[lost]:
            return None
        return record_failure(spec, places, f"its {lost} died {CHANCES[lost]} times ({how}){REMEDY.get(lost, '')}")


def _work(spec: RunSpec, places: Places, shared: Common, device: str, threads: int, concurrency: int) -> dict[str, Any]:
    """One run, in a process of the node that Ray chose."""
    shared.demand()  # of a node that came later
    os.chdir(shared.folder)
    torch.set_num_threads(threads)
    return execute(spec, places, torch.device(device), stop_on_signals(), concurrency)
