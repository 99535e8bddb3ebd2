"""Progress of a benchmark: all of it, every current run, and the time that is left."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Column

from semiseg.benchmarks.order import time_left
from semiseg.benchmarks.state import Standing, seconds_taken
from semiseg.console.terminal import duration
from semiseg.labels import count_of, in_words
from semiseg.method import Method
from semiseg.settings import RunSpec
from semiseg.tasks import DEFAULT, task_kind
from semiseg.training.lease import Holder, holder

LOOK = 1.0  # seconds between two looks at the leases
QUIET = (10.0, 60.0)  # seconds between two lines where nothing can move: at first, and at most
MEASURED = 15.0  # seconds after which the pace of a training can be told
LONG = 600.0  # seconds of work that are announced

Held = Mapping[Path, tuple[RunSpec, Holder]]  # what goes on, by folder


class Watch:
    """A display of all runs that somebody holds; one line stays behind for every run that ends.

    It reads the leases in the runs' folders: it shows alike what goes on here, on other nodes, or for another command.

    Args:
        runs: all of the benchmark, whose times tell how long the rest will take.
        left: those that are carried out now.
    """

    def __init__(
        self,
        console: Console,
        results: Path,
        runs: Sequence[Standing],
        left: Sequence[RunSpec],
        found: Mapping[str, type[Method]],
    ) -> None:
        self.display = Bars(console) if console.is_terminal else Lines(console)
        self.results, self.found = results, dict(found)
        self.runs = {run.spec.folder: run for run in runs}
        self.left = {spec.folder for spec in left}
        self.over = sum(run.status == "finished" and run.spec.folder not in self.left for run in runs)
        self.announced = False
        self.lock, self.done = Lock(), Event()
        self.thread = Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self.display.start()
        self._show()
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.done.set()
        self.thread.join()
        self.display.stop()

    def _look(self) -> None:
        while not self.done.wait(LOOK):
            for folder in list(self.left):
                with suppress(OSError):  # a file system that is out of reach for a moment
                    now, start = holder(self.results / folder), self.runs[folder].spec.start
                    if now and start:  # its start may be what goes on at the moment
                        now = holder(self.results / start.folder) or now
                    with self.lock:
                        if folder in self.left:
                            self.runs[folder] = replace(self.runs[folder], holder=now)
            self._show()

    def _show(self) -> None:
        with self.lock:
            work = [self.runs[folder] for folder in self.left]
            held = {run.spec.folder: (run.spec, run.holder) for run in work if run.holder}
            left = time_left(work, self.runs.values(), self.found)
            self.display.show(self.over, len(self.runs), left[0] if left else None, held)
            measured = held and all(time.time() - now.since > MEASURED for _, now in held.values())
            if left and measured and not self.announced:
                self._announce(*left)

    def _announce(self, seconds: float, workers: int) -> None:
        """Say once how long it will take, as soon as that is known."""
        self.announced = True
        if seconds > LONG:
            self.display.say(
                f"About {duration(seconds)} from here, judging by the first steps, with {workers} at a time. "
                "Ctrl-C keeps what is done, and the same command goes on from there."
            )

    def wait_for(self, spec: RunSpec, reason: str) -> None:
        """Say who else carries out a run."""
        self.display.say(f"[yellow]…[/] {label(spec)}: {escape(reason)}")

    def end(self, spec: RunSpec, record: dict[str, Any]) -> None:
        """Leave one line of a run."""
        with self.lock:
            self.left.discard(spec.folder)
            self.over += 1
            seconds = seconds_taken(record) if record["status"] == "finished" else None
            self.runs[spec.folder] = replace(self.runs[spec.folder], holder=None, seconds=seconds)
        if record["status"] == "finished":
            primary = task_kind(record["data"].get("task", DEFAULT)).primary
            score = f"{primary.title} {record['metrics'][primary.name]:.3f}"
            line = f"[green]✓[/] {label(spec)}: {score}, {record['seconds']:.0f} s"
        else:
            line = f"[red]✗[/] {label(spec)}: {escape(record['reason'])}"
        self.display.say(line)
        for warning in record.get("warnings", []):
            self.display.say(f"  [yellow]{escape(warning)}[/]")
        self._show()


class Bars:
    """On a terminal: a bar for all runs, and one below it for each that goes on."""

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(max_width=40)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[detail]}", table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
        )
        self.overall = self.progress.add_task("All runs", total=None, detail="")
        self.bars: dict[Path, TaskID] = {}

    def start(self) -> None:
        self.progress.start()

    def stop(self) -> None:
        self.progress.stop()

    def say(self, line: str) -> None:
        self.progress.console.print(line, highlight=False, soft_wrap=True)

    def show(self, done: int, total: int, left: float | None, held: Held) -> None:
        detail = rest(left, held)
        self.progress.update(self.overall, completed=done, total=total, detail=detail)
        for folder in self.bars.keys() - held.keys():
            self.progress.remove_task(self.bars.pop(folder))
        for folder, (spec, now) in held.items():
            if folder not in self.bars:
                self.bars[folder] = self.progress.add_task(short_label(spec), total=spec.training.steps, detail="")
            self.progress.update(self.bars[folder], completed=now.step, detail=", ".join(pace(now)))


class Lines:
    """Where nothing can move, as in a log: now and then a line for each run that goes on, with the time of day."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.quiet, self.next = QUIET[0], 0.0  # seconds between lines, and when it is time for one

    def start(self) -> None:
        """Nothing to prepare."""

    def stop(self) -> None:
        """Nothing to clear away."""

    def say(self, line: str) -> None:
        self.console.print(f"{time.strftime('%H:%M:%S')} {line}", highlight=False, soft_wrap=True)

    def show(self, done: int, total: int, left: float | None, held: Held) -> None:
        if time.monotonic() < self.next:
            return
        self.next = time.monotonic() + self.quiet
        self.quiet = min(2 * self.quiet, QUIET[1])
        self.say(", ".join(filter(None, [f"{done} of {total} runs are done", rest(left, held)])))
        for spec, now in held.values():
            self.say(f"  {label(spec)}: {', '.join([f'step {now.step} of {spec.training.steps}', *pace(now)])}")


def rest(left: float | None, held: Held) -> str:
    """What is known of the time until all is done."""
    if left is None:
        return "" if held else "starting"
    return f"{duration(left)} left" if left >= 1 else "nearly done"


def pace(now: Holder) -> list[str]:
    """How a training goes on."""
    if not now.step:
        return ["starting"]
    loss = [] if now.loss is None else [f"loss {now.loss:.3f}"]
    if now.step == now.steps:
        return [*loss, "evaluation"]
    speed = [] if now.images_per_second is None else [f"{now.images_per_second:.0f} img/s"]
    return loss + speed + ([] if now.seconds_left is None else [f"{duration(now.seconds_left)} left"])


def label(spec: RunSpec) -> str:
    """A run in a few words."""
    inner = "" if spec.inner is None else f", inner fold {spec.inner}"
    labels = f"labels of {spec.labels}" if count_of(spec.labels) else f"{in_words(spec.labels)} labels"
    return f"{spec.method}, {labels}, fold {spec.fold}{inner}, seed {spec.seed}"


def short_label(spec: RunSpec) -> str:
    """The same where there is little room."""
    inner = "" if spec.inner is None else f".{spec.inner}"
    seed = f" seed {spec.seed}" if spec.seed else ""
    return f"{spec.method} {in_words(spec.labels)} fold {spec.fold}{inner}{seed}"
