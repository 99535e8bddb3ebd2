"""Progress of a benchmark on the terminal: all of it, every current run, and the time that is left."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from semiseg.labels import count_of, in_words
from semiseg.settings import RunSpec
from semiseg.training.lease import Holder, holder

LOOK = 1.0  # seconds between two looks at the leases


class Watch:
    """A live display of all runs that somebody holds; one line stays behind for every run that ends.

    It reads the leases in the runs' folders: it shows alike what goes on here, on other nodes, or for another command.
    """

    def __init__(self, console: Console, results: Path, left: Sequence[RunSpec], total: int) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[detail]}"),
            console=console,
            transient=True,
        )
        self.results = results
        self.overall = self.progress.add_task("All runs", total=total, completed=total - len(left), detail="")
        self.left = {str(spec.folder): spec for spec in left}
        self.bars: dict[str, TaskID] = {}
        self.lock, self.done = Lock(), Event()
        self.thread = Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self.progress.start()
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.done.set()
        self.thread.join()
        self.progress.stop()

    def _look(self) -> None:
        while not self.done.wait(LOOK):
            for spec in list(self.left.values()):
                with suppress(OSError):  # a file system that is out of reach for a moment
                    if now := holder(self.results / spec.folder):
                        self._show(spec, now)

    def _show(self, spec: RunSpec, now: Holder) -> None:
        key = str(spec.folder)
        with self.lock:
            if key not in self.left:
                return
            if key not in self.bars:
                self.bars[key] = self.progress.add_task(label(spec), total=spec.training.steps, detail="")
            detail = "" if now.loss is None else f"loss {now.loss:.3f}"
            self.progress.update(self.bars[key], completed=now.step, detail=detail)

    def wait_for(self, spec: RunSpec, reason: str) -> None:
        """Say who else carries out a run."""
        line = f"[yellow]…[/] {label(spec)}: {escape(reason)}"
        self.progress.console.print(line, highlight=False, soft_wrap=True)

    def end(self, spec: RunSpec, record: dict[str, Any]) -> None:
        """Replace a run's bar by one line."""
        with self.lock:
            self.left.pop(str(spec.folder), None)
            bar = self.bars.pop(str(spec.folder), None)
            if bar is not None:
                self.progress.remove_task(bar)
        if record["status"] == "finished":
            line = f"[green]✓[/] {label(spec)}: Dice {record['metrics']['dice']:.3f}, {record['seconds']:.0f} s"
        else:
            line = f"[red]✗[/] {label(spec)}: {escape(record['reason'])}"
        self.progress.console.print(line, highlight=False, soft_wrap=True)
        for warning in record.get("warnings", []):
            self.progress.console.print(f"  [yellow]{escape(warning)}[/]", highlight=False, soft_wrap=True)
        self.progress.advance(self.overall)


def label(spec: RunSpec) -> str:
    """A run in a few words."""
    inner = "" if spec.inner is None else f", inner fold {spec.inner}"
    labels = f"labels of {spec.labels}" if count_of(spec.labels) else f"{in_words(spec.labels)} labels"
    return f"{spec.method}, {labels}, fold {spec.fold}{inner}, seed {spec.seed}"
