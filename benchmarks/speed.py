"""Times the optimizer step of every method against the least it could cost, and against the customary loop.

`over bare` is a step over nothing but the forward and backward passes that it makes, of networks, heads and
discriminators: 1.0 means that nothing is wasted. `over customary` is Mean Teacher's step over the same step as the
SSL4MIS family takes it: one HDF5 file per slice, SciPy transforms sample by sample in a data loader, float32, and a
look at the loss after every step. Both are timed in turns with the step itself, so that whatever else the machine does
weighs on all alike; on one thread of a CPU it is the time that the processor spent on them. On a GPU the kernels of a
step are launched one by one, as those of the passes are; `gpu.py` tells what replaying them gains.

    python benchmarks/speed.py --device cpu --methods mean_teacher,ua_mt --size 96,96 --json speed.json
"""

import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from customary import CustomaryLoop
from semiseg.benchmarks.expansion import ALL, resolve
from semiseg.data.discovery import recipe
from semiseg.data.splits import Partition, make_splits
from semiseg.data.store import Dataset, write_dataset
from semiseg.errors import UserError
from semiseg.method import Method, MovingAverage, Progress
from semiseg.networks import EncoderDecoder
from semiseg.registry import find_methods, get_method
from semiseg.settings import BenchmarkSettings, RunSpec, load_benchmark
from semiseg.training.assembly import build_method, partition_for
from semiseg.training.environment import environment, keep_freed_memory
from semiseg.training.precision import autocast
from semiseg.training.sampling import TrainingSet
from semiseg.training.trainer import Trainer

HERE = Path(__file__).parent
BENCHMARKS = {2: HERE / "quick.yaml", 3: HERE / "phantom_cardiac_3d.yaml"}
CUSTOMARY = "mean_teacher"  # the method that the customary loop trains
# Steps are timed in the middle of a long training, where every loss has its weight, and in blocks, so that
# what happens at every tenth step is counted, and a device is waited for only at the end of a block.
TOTAL, BLOCK = 30_000, 10


class Pass(NamedTuple):
    """One forward pass of a part of a method, to be repeated on its own."""

    part: nn.Module
    inputs: tuple[Any, ...]
    evaluating: bool
    learning: bool  # its own weights get a gradient
    trained: bool  # a backward pass follows
    images: int  # that the pass reads; 0 for features


def parts(module: nn.Module) -> Iterator[nn.Module]:
    """What learns and is called by itself: parts of networks, and heads and discriminators of a method."""
    composed = isinstance(module, Method | MovingAverage | nn.ModuleList | nn.ModuleDict)
    if composed or any(isinstance(inner, EncoderDecoder) for inner in module.modules()):
        for child in module.children():
            yield from parts(child)
    elif any(True for _ in module.parameters()):
        yield module


@contextmanager
def recorded_passes(method: Method) -> Iterator[list[Pass]]:
    """Every pass through a part, whichever method makes it."""
    passes: list[Pass] = []
    encoders = [m.encoder for m in method.modules() if isinstance(m, EncoderDecoder)]

    def record(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        trained = next(iter(tensors(output))).requires_grad
        # As in the step, gradients flow on to what came before; only the images need none.
        flows = trained and part not in encoders
        kept = tuple(detached(given, flows) for given in inputs)
        learning = next(part.parameters()).requires_grad
        images = len(inputs[0]) if part in encoders else 0
        passes.append(Pass(part, kept, not part.training, learning, trained, images))

    hooks = [part.register_forward_hook(record) for part in dict.fromkeys(parts(method))]
    yield passes
    for hook in hooks:
        hook.remove()


def tensors(value: Any) -> list[Tensor]:
    """The floating-point tensors among what a part takes or returns."""
    values = [value] if isinstance(value, Tensor) else value if isinstance(value, tuple | list) else []
    return [v for v in values if isinstance(v, Tensor) and v.is_floating_point()]


def detached(given: Any, needs_gradient: bool) -> Any:
    """An input as the beginning of a pass of its own."""
    if isinstance(given, tuple | list):
        return tuple(detached(one, needs_gradient) for one in given)
    if not isinstance(given, Tensor):
        return given
    return given.detach().requires_grad_(needs_gradient and given.is_floating_point() and given.requires_grad)


def repeat(passes: list[Pass], trainer: Trainer) -> None:
    """The bare cost: forward, and backward where there was one; no data, views, losses or updates."""
    dims = trainer.method.task.dims
    for part, inputs, evaluating, learning, trained, _ in passes:
        if part.training is evaluating:
            part.train(not evaluating)
        before = next(part.parameters()).requires_grad  # of a discriminator this changes within a step
        if before is not learning:
            part.requires_grad_(learning)
        with torch.set_grad_enabled(trained), autocast(trainer.settings.precision, trainer.device, dims):
            outputs = [output for output in tensors(part(*inputs)) if output.requires_grad or not trained]
        if trained and outputs:
            torch.autograd.backward(outputs, [torch.ones_like(o) for o in outputs])
            part.zero_grad()
        if before is not learning:
            part.requires_grad_(before)


@dataclass
class Bench:
    """What all methods share: data, settings and device."""

    settings: BenchmarkSettings
    dataset: Dataset
    device: torch.device
    rounds: int
    workers: int
    folder: Path

    def measure(self, name: str) -> dict[str, Any]:
        """One row of the table."""
        trainer, partition = self.trainer(name)
        trainer.replay = None  # steps are launched as the passes are that they are compared with; see gpu.py
        stage = [*trainer.plan.stages][-1]  # of several, what a method is known by
        steps = itertools.count(TOTAL // 2 - 1)  # begins with a step at which all that is periodic happens

        def block() -> None:
            for _ in range(BLOCK):
                trainer.step(Progress(next(steps), TOTAL, stage))

        block()
        with recorded_passes(trainer.method) as passes:
            block()
        works = {"step": block, "bare": lambda: repeat(passes, trainer)}
        if name == CUSTOMARY and trainer.method.task.dims == 2:
            loop = CustomaryLoop(trainer, self.dataset, partition, self.workers, self.folder)
            works["customary"] = lambda: loop.take(BLOCK)
        seconds = self.in_turns(works)
        step = statistics.median(seconds["step"])
        images = {kind: sum(p.images for p in passes if p.trained is kind) / BLOCK for kind in (True, False)}
        row = {
            "method": name,
            "milliseconds": 1000 * step / BLOCK,
            "images_per_second": trainer.data.batch_size * BLOCK / step,
            "images_with_gradient": images[True],
            "images_without_gradient": images[False],
        }
        for other in list(works)[1:]:
            pairs = zip(seconds["step"], seconds[other], strict=True)
            row[f"{other}_milliseconds"] = 1000 * statistics.median(seconds[other]) / BLOCK
            row[f"over_{other}"] = statistics.median(a / b for a, b in pairs)
        return row

    def trainer(self, name: str, folder_name: str = "") -> tuple[Trainer, Partition]:
        """A trainer with a few steps behind it, which set up all that the following ones need."""
        method, settings = get_method(name), self.settings.training
        common = self.settings.model_dump(include={"dataset", "network", "weights"})
        spec = RunSpec(
            benchmark="speed", method=name, implementation=name, config={}, labels=0.2, fold=0, seed=0,
            training=settings.model_copy(update={"steps": 8}), **common,
        )  # fmt: skip
        partition = partition_for(method, make_splits(self.dataset), spec, self.dataset)
        batches = settings.labeled_batch, settings.unlabeled_batch
        data = TrainingSet(
            self.dataset, partition, settings.size, self.device, 0, *batches, labeled_parts=method.labeled_parts
        )
        built = build_method(method, spec, self.dataset, data.unlabeled_steps)
        folder = self.folder / (folder_name or name)
        folder.mkdir()
        trainer = Trainer(built, data, spec.training, 0, self.device, folder)
        trainer.fit()
        return trainer, partition

    def in_turns(self, works: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
        """Seconds of every piece of work in every round; the first round only warms up."""
        seconds: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(1 + self.rounds):
            for name, work in works.items():
                self.wait()
                began = self.clock()
                work()
                self.wait()
                seconds[name].append(self.clock() - began)
        return {name: values[1:] for name, values in seconds.items()}

    def clock(self) -> float:
        alone = self.device.type == "cpu" and torch.get_num_threads() == 1 and not self.workers
        return time.process_time() if alone else time.perf_counter()

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def load_dataset(name: str, data_dir: Path, folder: Path) -> Dataset:
    """The prepared data set, or else its first cases, made for the occasion."""
    if (data_dir / f"{name}.h5").exists():
        return Dataset(data_dir / f"{name}.h5")
    source = recipe(name)()
    write_dataset(folder / f"{name}.h5", source.info(), (source.load(item) for item in source.items()[:40]))
    return Dataset(folder / f"{name}.h5")


COLUMNS = {  # per step: images that go through a network with a backward pass to follow, and without
    "milliseconds": ("ms /\nstep", ".1f"),
    "images_per_second": ("images\n/ s", ".0f"),
    "images_with_gradient": ("images\ntrained", ".0f"),
    "images_without_gradient": ("images\npredicted", ".1f"),
    "bare_milliseconds": ("bare\nms", ".1f"),
    "over_bare": ("over\nbare", ".2f"),
    "customary_milliseconds": ("customary\nms", ".1f"),
    "over_customary": ("over\ncustomary", ".2f"),
}


def main(
    device: str = "cuda" if torch.cuda.is_available() else "cpu",
    methods: Annotated[str, typer.Option(help="Comma-separated; all by default.")] = "",
    dims: Annotated[int, typer.Option(min=2, max=3)] = 2,
    size: Annotated[str, typer.Option(help="For instance 256,256; the benchmark's by default.")] = "",
    network: str = "",
    batch: Annotated[int, typer.Option(help="Labelled images, and as many unlabelled ones.")] = 0,
    rounds: int = 7,
    workers: Annotated[int, typer.Option(help="Processes of the customary loader; 0 on a CPU, else 4.")] = -1,
    threads: int = 1,
    data_dir: Path = Path("data"),
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
    augmentation: Annotated[str, typer.Option(help="Of all images: customary or strong.")] = "customary",
) -> None:
    """Time the optimizer step of every method."""
    torch.set_num_threads(threads)
    keep_freed_memory()  # as runs do; the customary loop, which does not, has the benefit here, too
    overrides: dict[str, Any] = {"training.augmentation": augmentation} | ({"network": network} if network else {})
    if size:
        overrides["training.size"] = size.split(",")
    if batch:
        overrides |= {"training.labeled_batch": batch, "training.unlabeled_batch": batch}
    if workers < 0:
        workers = 0 if device == "cpu" else 4
    console = Console(width=100)
    with tempfile.TemporaryDirectory() as folder:
        try:
            settings = load_benchmark(BENCHMARKS[dims], overrides)
            dataset = load_dataset(settings.dataset, data_dir, Path(folder))
            bench = Bench(settings, dataset, torch.device(device), rounds, workers, Path(folder))
            every = resolve(settings.model_copy(update={"methods": (ALL,)}), find_methods()).variants()
            names = methods.split(",") if methods else list(every)
            rows = [bench.measure(name) for name in track(names, "Timing", console=Console(stderr=True))]
        except UserError as error:
            raise SystemExit(str(error)) from error
    training = settings.training
    shape = "×".join(map(str, training.size))
    title = f"{settings.network}, {training.labeled_batch} + {training.unlabeled_batch} images of {shape}"
    table = Table(title=title, box=SIMPLE, padding=(0, 0, 0, 1))
    table.add_column("method", no_wrap=True)
    for heading, _ in COLUMNS.values():
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row["method"], *(f"{row[k]:{form}}" if k in row else "" for k, (_, form) in COLUMNS.items()))
    console.print(table)
    if json_file:
        content = {
            "environment": environment(torch.device(device)),
            "settings": settings.model_dump(mode="json"),
            "rows": rows,
        }
        json_file.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
