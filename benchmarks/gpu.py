"""Tells what a GPU makes of the steps, in one go: times, kernels, waits of the host, variants, and a grid of a paper.

For each method it takes as many steps as a block of `speed.py` in every variant, in turns: as they are (`own`,
replayed if they can be), with every kernel launched anew, and so, too, in plain memory layout, with an optimizer that
is not fused, with the convolutions that cuDNN finds fastest when it tries all, with compiled networks, and with
compiled networks in CUDA graphs; what trying and compiling costs is paid before, and `after` says how many steps pay
it back. Below the table stand the hours of a grid of three label fractions and five folds. `throughput.py --device
cuda` counts the steps of several runs on one GPU. docs/speed.md has seconds of whole runs on a GPU; what this script
measured stands there, too. On a CPU everything runs, for a test.

    python benchmarks/gpu.py --size 256,256 --batch 12
"""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import typer
from torch.optim import SGD
from torch.profiler import ProfilerActivity, profile

from semiseg.errors import UserError
from semiseg.method import Progress
from semiseg.networks import EncoderDecoder
from semiseg.settings import load_benchmark
from semiseg.training.environment import environment, keep_freed_memory
from semiseg.training.trainer import Trainer
from speed import BENCHMARKS, BLOCK, TOTAL, Bench, load_dataset
from waits import host_waits

PAPER = "mutual_exemplar,min_max_similarity,cps,mean_teacher,ua_mt,fixmatch,supervised"
FRACTIONS, FOLDS = 3, 5


def plain_layout(trainer: Trainer) -> None:
    """Weights, and with them everything that convolutions return, in PyTorch's own order."""
    trainer.method.to(memory_format=torch.contiguous_format)
    trainer.enter([*trainer.plan.stages][-1])


def launched(trainer: Trainer) -> None:
    """No step is recorded: every kernel is launched anew."""
    trainer.replay = None
    trainer.enter([*trainer.plan.stages][-1])


def unfused(trainer: Trainer) -> None:
    """The benchmark's SGD as PyTorch carries it out without being asked."""
    for optimizer in trainer.optimization.own:
        if isinstance(optimizer, SGD):
            for group in optimizer.param_groups:
                group["fused"] = None
            optimizer._step_supports_amp_scaling = False


def compiled(trainer: Trainer, mode: str | None = None) -> None:
    """Every network compiled on its own; losses, views and updates stay as they are."""
    for module in trainer.method.modules():
        if isinstance(module, EncoderDecoder):
            module.compile(mode=mode)


VARIANTS: dict[str, Callable[[Trainer], None]] = {
    "own": lambda trainer: None,
    "launched": lambda trainer: None,
    "plain layout": plain_layout,
    "unfused": unfused,
    "tried": lambda trainer: None,
    "compiled": compiled,
    "graphs": lambda trainer: compiled(trainer, "reduce-overhead"),
}


def measure(bench: Bench, method: str, variants: list[str], trace: Path | None) -> dict[str, float]:
    """Milliseconds of a step in every variant; prints them, and what the steps consist of."""
    blocks, costs = {}, {}
    for variant in variants:
        trainer, _ = bench.trainer(method, f"{method}, {variant}")
        if variant != "own":
            launched(trainer)
        VARIANTS[variant](trainer)
        blocks[variant] = take_block(trainer, tries=variant == "tried")
        began = time.perf_counter()
        for _ in range(3):  # compiles, and records
            blocks[variant]()
        bench.wait()
        costs[variant] = time.perf_counter() - began
    seconds = bench.in_turns(blocks)
    steps = {name: 1000 * statistics.median(values) / BLOCK for name, values in seconds.items()}
    launched_block = blocks["launched" if "launched" in blocks else variants[0]]
    with host_waits(bench.device) as places:
        launched_block()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (bench.device.type == "cuda")
    with profile(activities=activities) as profiled:
        launched_block()
        bench.wait()
    kernels = sum(event.device_type.name == "CUDA" for event in profiled.events())
    print(f"\n{method}: {kernels / BLOCK:.0f} kernels and {sum(places.values()) / BLOCK:.1f} waits a step")
    for place, count in places.items():
        print(f"  waits {count} times in {BLOCK} steps: {place}")
    for name, value in steps.items():
        gain = steps[variants[0]] - value
        after = f", after {1000 * costs[name] / gain:.0f} steps" if gain > 0 else ""
        print(f"  {name}: {value:.2f} ms a step, {steps[variants[0]] / value:.2f} times as fast{after}")
    if trace:
        profiled.export_chrome_trace(str(trace / f"{method}.json"))
    return steps


def take_block(trainer: Trainer, tries: bool) -> Callable[[], None]:
    """A block of steps in the middle of a training."""
    numbers, stage = itertools.count(TOTAL // 2 - 1), [*trainer.plan.stages][-1]

    def block() -> None:
        torch.backends.cudnn.benchmark = tries
        for _ in range(BLOCK):
            trainer.step(Progress(next(numbers), TOTAL, stage))

    return block


def main(
    device: str = "cuda" if torch.cuda.is_available() else "cpu",
    methods: str = PAPER,
    size: str = "256,256",
    batch: int = 12,
    network: str = "unet",
    variants: str = ",".join(VARIANTS),
    rounds: int = 5,
    steps: int = 30_000,
    trace: Path | None = None,
    data_dir: Path = Path("data"),
) -> None:
    """Print everything about every method, and the hours of a grid."""
    keep_freed_memory()
    changes: dict[str, Any] = {
        "network": network, "training.size": size.split(","), "training.labeled_batch": batch,
        "training.unlabeled_batch": batch,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        try:
            settings = load_benchmark(BENCHMARKS[2], changes)
            dataset = load_dataset(settings.dataset, data_dir, Path(folder))
            bench = Bench(settings, dataset, torch.device(device), rounds, 0, Path(folder))
            print(environment(bench.device))
            found = [measure(bench, name, variants.split(","), trace) for name in methods.split(",")]
        except UserError as error:
            raise SystemExit(str(error)) from error
    runs = steps * FRACTIONS * FOLDS
    first, best = (sum(choose([*row.values()]) for row in found) * runs / 3_600_000 for choose in (lambda v: v[0], min))
    print(f"\n{len(found)} methods × {FRACTIONS} fractions × {FOLDS} folds × {steps} steps: {first:.1f} hours, one run")
    print(f"after the other as they are, and {best:.1f} hours in the best variants; evaluation comes on top")


if __name__ == "__main__":
    typer.run(main)
