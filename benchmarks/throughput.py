"""Counts the Mean Teacher steps that a whole machine takes: as `semiseg run` uses it, and in the customary loop.

`semiseg run` trains as many runs at a time as there are cores, each with one thread. The customary loop is a command
for a single run, with a thread for each core and four loading processes, as SSL4MIS has them. It is also started as
often as there are cores, with one thread and no loading process each, which nobody does but is the best that can be
had of it. On a GPU one, two and four runs share it. All take turns, so that whatever else the machine does weighs on
all alike.

    python benchmarks/throughput.py --size 256,256
"""

import multiprocessing
import os
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch
import typer

from customary import CustomaryLoop
from semiseg.method import Progress
from semiseg.settings import load_benchmark
from semiseg.training.environment import keep_freed_memory
from speed import BENCHMARKS, CUSTOMARY, TOTAL, Bench, load_dataset

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Way(NamedTuple):
    """How a machine is used."""

    processes: int
    threads: int
    customary: bool
    workers: int = 0  # that load the images of a process


CUSTOMARY_WAY = Way(1, CORES, customary=True, workers=4)
WAYS = {  # the first is what others are compared with
    "cpu": {
        "semiseg run": Way(CORES, 1, customary=False),
        "customary": CUSTOMARY_WAY,
        "customary, a process on each core": Way(CORES, 1, customary=True),
    },
    "cuda": {
        "a run": Way(1, 1, customary=False),
        "two runs": Way(2, 1, customary=False),
        "four runs": Way(4, 1, customary=False),
        "customary": CUSTOMARY_WAY,
    },
}


def serve(pipe: Connection, way: Way, device: str, overrides: dict[str, object], data_dir: Path) -> None:
    """Take steps for as many seconds as asked, and answer how many steps a second they were."""
    torch.set_num_threads(way.threads)
    if not way.customary:
        keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        settings = load_benchmark(BENCHMARKS[2], overrides)
        dataset = load_dataset(settings.dataset, data_dir, Path(folder))
        bench = Bench(settings, dataset, torch.device(device), 0, way.workers, Path(folder))
        trainer, partition = bench.trainer(CUSTOMARY)
        loop = CustomaryLoop(trainer, dataset, partition, way.workers, Path(folder)) if way.customary else None
        step, stage = TOTAL // 2, [*trainer.plan.stages][-1]
        pipe.send(0.0)  # it is ready
        while seconds := pipe.recv():
            began, steps = time.perf_counter(), 0
            while time.perf_counter() - began < seconds:
                if loop:
                    loop.step()
                else:
                    trainer.step(Progress(step + steps, TOTAL, stage))
                steps += 1
            bench.wait()
            step += steps
            pipe.send(steps / (time.perf_counter() - began))


def start(way: Way, device: str, overrides: dict[str, object], data_dir: Path) -> list[Connection]:
    """The processes of a way, ready to be asked."""
    context, pipes = multiprocessing.get_context("spawn"), []
    for _ in range(way.processes):
        pipe, other = context.Pipe()
        context.Process(target=serve, args=(other, way, device, overrides, data_dir), daemon=True).start()
        other.close()  # so that the end of the process is the end of the pipe
        answer(pipe)
        pipes.append(pipe)
    return pipes


def ask(pipes: list[Connection], seconds: float) -> float:
    """Steps a second of all processes of a way together."""
    for pipe in pipes:
        pipe.send(seconds)
    return sum(map(answer, pipes))


def answer(pipe: Connection) -> float:
    """What a process says, or that it is no more."""
    try:
        return float(pipe.recv())
    except EOFError:
        raise SystemExit("a process ended; see its error above.") from None


def main(
    device: str = "cpu", size: str = "64,64", seconds: float = 5.0, rounds: int = 7, data_dir: Path = Path("data")
) -> None:
    """Print the steps a second of every way, and how many times as many the first one takes, round by round."""
    if device not in WAYS:
        raise SystemExit(f"--device {device}: choose one of {', '.join(WAYS)}.")
    overrides: dict[str, object] = {"training.size": size.split(",")}
    running = {name: start(way, device, overrides, data_dir) for name, way in WAYS[device].items()}
    rates: dict[str, list[float]] = {name: [] for name in running}
    for number in range(1 + rounds):
        for name, pipes in running.items():
            rate = ask(pipes, seconds)
            if number:  # the first round only warms up
                rates[name].append(rate)
    for pipes in running.values():
        for pipe in pipes:
            pipe.send(0.0)
    first = next(iter(rates))
    for name, values in rates.items():
        times = [a / b for a, b in zip(rates[first], values, strict=True)]
        spread = f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})"
        print(f"{name}: {statistics.median(values):.2f} steps a second; {first} takes {spread} times as many")


if __name__ == "__main__":
    typer.run(main)
