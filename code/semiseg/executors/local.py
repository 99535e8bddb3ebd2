"""Carries out runs in processes of this machine."""

import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch

from semiseg.errors import UserError
from semiseg.settings import RunSpec
from semiseg.training.files import read_record, write_json
from semiseg.training.places import Places
from semiseg.training.run import execute

MOST_JOBS = 8
OnStep = Callable[[RunSpec, int, int, float], None]  # run, step, steps, loss

_worker: dict[str, Any] = {}  # what a worker process was told when it started


def choose_devices(device: str, jobs: int | None) -> tuple[list[str], int]:
    """One device per worker, and the number of threads of each."""
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {device}: choose auto, cpu or cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine offers no CUDA device; use --device cpu.")
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs {jobs}: at least one job is needed.")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if device != "cpu" and torch.cuda.is_available():
        gpus = torch.cuda.device_count()
        jobs = jobs or gpus
        return [f"cuda:{i % gpus}" for i in range(jobs)], max(1, cores // jobs)
    jobs = jobs or min(cores, MOST_JOBS)
    return ["cpu"] * jobs, max(1, cores // jobs)


def carry_out(
    specs: list[RunSpec], places: Places, devices: list[str], threads: int, on_step: OnStep
) -> Iterator[tuple[RunSpec, dict[str, Any]]]:
    """Yield every run with its record as it ends. A process that dies fails its run, not the others."""
    left = list(specs)
    while left:
        try:
            for spec, record in _in_pool(left, places, devices, threads, on_step):
                left.remove(spec)
                yield spec, record
        except BrokenProcessPool:
            # One process died and took the others with it. Each run that had begun goes on alone, to see which.
            begun = [s for s in left if read_record(places.results / s.folder).get("status") == "running"]
            if not begun:
                raise UserError("the worker processes cannot start; see the first error above.") from None
            for spec in begun:
                left.remove(spec)
                try:
                    yield from _in_pool([spec], places, devices[:1], threads, on_step)
                except BrokenProcessPool:
                    yield spec, _record_death(places.results / spec.folder)


def _in_pool(
    specs: list[RunSpec], places: Places, devices: list[str], threads: int, on_step: OnStep
) -> Iterator[tuple[RunSpec, dict[str, Any]]]:
    """Yield what worker processes finish, one per device, until all is done or a process dies."""
    context = multiprocessing.get_context("spawn")
    messages: Any = context.Queue()
    names: Any = context.Queue()
    for name in devices:
        names.put(name)
    done = threading.Event()
    listener = threading.Thread(target=_listen, args=(messages, on_step, done), daemon=True)
    listener.start()
    pool = ProcessPoolExecutor(len(devices), context, _start_worker, (names, messages, threads))
    futures: dict[Future[dict[str, Any]], RunSpec] = {pool.submit(_work, s, places): s for s in specs}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        if not all(future.done() for future in futures):  # interrupted: runs resume from their checkpoints
            for process in multiprocessing.active_children():
                process.terminate()
        pool.shutdown(cancel_futures=True)
        done.set()
        listener.join()


def _record_death(folder: Path) -> dict[str, Any]:
    reason = "its process died, probably for lack of memory; use fewer --jobs or a smaller batch"
    record = read_record(folder) | {"status": "failed", "reason": reason}
    write_json(folder / "run.json", record)
    return record


def _start_worker(names: Any, messages: Any, threads: int) -> None:
    torch.set_num_threads(threads)
    _worker.update(device=torch.device(names.get()), messages=messages)


def _work(spec: RunSpec, places: Places) -> dict[str, Any]:
    def report(step: int, steps: int, loss: float) -> None:
        _worker["messages"].put((spec, step, steps, loss))

    return execute(spec, places, _worker["device"], report)


def _listen(messages: Any, on_step: OnStep, done: threading.Event) -> None:
    while not done.is_set():
        try:
            on_step(*messages.get(timeout=0.2))
        except queue.Empty:
            continue
