"""Carries out runs in processes of this machine."""

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

import torch
from pydantic import Field

from semiseg.errors import UserError
from semiseg.executors.executor import Ended, Executor
from semiseg.settings import RunSpec
from semiseg.training.places import Places
from semiseg.training.precision import choose_device
from semiseg.training.run import execute, record_failure
from semiseg.training.stopping import stop_on_signals

MOST_JOBS = 8
MOST_PER_GPU = 4  # more processes hardly make a GPU busier
CONTEXT_MB = 600  # of GPU memory that every process needs besides its tensors
RETRY = 5.0  # seconds until a run that is held is tried again
PATIENCE = 60.0  # seconds for a process to write its checkpoint
DIED = "its process died, probably for lack of memory; use fewer --jobs or a smaller batch"


class Local(Executor):
    """Processes of this machine that live as long as the benchmark, so that each imports once."""

    threads: int | None = Field(None, ge=1)  # of each process; by default the cores are shared out

    @property
    def device_type(self) -> Literal["cpu", "cuda"]:
        return choose_device(self.device)

    def carry_out(self, runs: Sequence[RunSpec], places: Places) -> Generator[Ended, None, None]:
        pool = Pool(self, places)
        if self.dry_run:
            processes = min(len(runs), pool.wanted)
            many = f"{processes} process{'' if processes == 1 else 'es'}"
            print(f"{many}, {pool.threads} thread{'' if pool.threads == 1 else 's'} each, on {self.device_type}")
            return
        yield from pool.carry_out(runs)


class Pool:
    """Worker processes, each with one run at a time, and one device."""

    def __init__(self, options: Local, places: Places) -> None:
        self.places = places
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.gpus = torch.cuda.device_count() if options.device_type == "cuda" else 0
        self.grows = bool(self.gpus) and options.jobs is None
        self.wanted = options.jobs or self.gpus or min(cores, MOST_JOBS)
        self.threads = options.threads or max(1, cores // self.wanted)
        self.workers: list[Worker] = []

    def carry_out(self, runs: Sequence[RunSpec]) -> Generator[Ended, None, None]:
        """Yield every run with its record as it ends.

        One that is held, as those are whose start somebody trains now, is tried again while others are carried out.
        """
        waiting, resting = deque(runs), deque[tuple[float, RunSpec]]()
        try:
            while waiting or any(worker.run for worker in self.workers):
                self._staff(len(waiting))
                for worker in self.workers:
                    if waiting and worker.run is None:
                        worker.begin(waiting.popleft(), self.concurrency)
                ends = [end for worker in self.workers for end in (worker.pipe, worker.process.sentinel)]
                ready = wait(ends, max(0.0, resting[0][0] - time.monotonic()) if resting else None)
                for worker in [w for w in self.workers if w.pipe in ready or w.process.sentinel in ready]:
                    ended = worker.collect(self.places)
                    if worker.run is None and not worker.process.is_alive():
                        self.workers.remove(worker)
                    if ended:
                        self._learn(ended[1])
                        if worker.device != "cpu" and ended[1]["status"] == "failed":
                            self._dismiss(worker)  # an error may have spoilt the device for this process
                        if ended[1]["status"] == "held":
                            resting.append((time.monotonic() + RETRY, ended[0]))
                        yield ended
                while resting and resting[0][0] <= time.monotonic():
                    waiting.append(resting.popleft()[1])
        finally:
            self.stop()

    @property
    def concurrency(self) -> int:
        """How many runs share a device."""
        return -(-self.wanted // max(1, self.gpus))

    def _staff(self, waiting: int) -> None:
        """Start processes as long as there is work for them, each on the device with the fewest."""
        while len(self.workers) < self.wanted and sum(worker.run is None for worker in self.workers) < waiting:
            devices = [f"cuda:{i}" for i in range(self.gpus)] or ["cpu"]
            taken = [worker.device for worker in self.workers]
            self.workers.append(Worker(min(devices, key=taken.count), self.threads, self.places))

    def _dismiss(self, worker: "Worker") -> None:
        worker.pipe.close()  # at which the process ends
        if worker in self.workers:
            self.workers.remove(worker)

    def _learn(self, record: dict[str, Any]) -> None:
        """Let more processes share a GPU if what a run needed of its memory leaves room for them."""
        if self.grows and record.get("peak_memory_mb"):
            total = torch.cuda.get_device_properties(0).total_memory / 2**20
            self.wanted = max(self.wanted, self.gpus * fitting(total, record["peak_memory_mb"]))

    def stop(self) -> None:
        """End all processes; those with a run write its checkpoint first."""
        for worker in self.workers:
            worker.pipe.close()
            if worker.run is not None:
                worker.process.terminate()
        try:
            for worker in self.workers:
                worker.process.join(PATIENCE)
        finally:
            for worker in self.workers:
                worker.process.kill()


def fitting(total_mb: float, peak_mb: float) -> int:
    """How many runs of a measured peak fit on a GPU, a tenth of which stays free."""
    return max(1, min(MOST_PER_GPU, int(0.9 * total_mb / (peak_mb + CONTEXT_MB))))


class Worker:
    """A process that carries out one run after the other."""

    any_started = False  # of all processes so far

    def __init__(self, device: str, threads: int, places: Places) -> None:
        context = multiprocessing.get_context("spawn")  # forking a process that runs threads can deadlock the child
        self.device = device
        self.run: RunSpec | None = None
        self.started = False
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, device, threads, places, os.getpid()), daemon=True)
        self.process.start()
        other.close()

    def begin(self, run: RunSpec, concurrency: int) -> None:
        """Hand the process its next run."""
        self.run = run
        with suppress(OSError):  # a process that just died is found out like any other
            self.pipe.send((run, concurrency))

    def collect(self, places: Places) -> Ended | None:
        """Take what the process has to say: that it started, or how its run ended; or find that it died."""
        record: dict[str, Any] | None = None
        try:
            if self.pipe.poll():
                record = self.pipe.recv()
                if not self.started:  # its first word
                    self.started = Worker.any_started = True
                    return None
        except (EOFError, OSError):
            self.process.join(PATIENCE)
        if record is None and self.process.is_alive():
            return None
        if not self.started and not Worker.any_started:
            raise UserError("the worker processes cannot start; see the first error above.")
        run, self.run = self.run, None
        if run is None:
            return None
        return run, record or record_failure(run, places, DIED)


def _serve(pipe: Connection, device: str, threads: int, places: Places, parent: int) -> None:
    """What a worker process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches all; the command tells its processes to stop
    asked = stop_on_signals([signal.SIGTERM])
    torch.set_num_threads(threads)
    pipe.send({})  # it started
    while not asked():
        try:
            run, concurrency = pipe.recv()
        except (EOFError, OSError):
            return
        record = execute(run, places, torch.device(device), lambda: asked() or os.getppid() != parent, concurrency)
        try:
            pipe.send(record)
        except OSError:
            return
