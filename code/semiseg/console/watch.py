"""Progress of a benchmark on the terminal: all of it, every current run, and the time that is left."""

from threading import Lock
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from semiseg.settings import RunSpec


class Watch:
    """A live display; one line stays behind for every run that ends."""

    def __init__(self, console: Console, total: int, done: int) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[detail]}"),
            console=console,
            transient=True,
        )
        self.overall = self.progress.add_task("All runs", total=total, completed=done, detail="")
        self.bars: dict[str, TaskID] = {}
        self.ended: set[str] = set()
        self.lock = Lock()

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def step(self, spec: RunSpec, step: int, steps: int, loss: float) -> None:
        """Show how far a run is."""
        key = str(spec.folder)
        with self.lock:  # messages arrive in a thread of their own, and possibly late
            if key in self.ended:
                return
            if key not in self.bars:
                self.bars[key] = self.progress.add_task(label(spec), total=steps, detail="")
            self.progress.update(self.bars[key], completed=step, detail=f"loss {loss:.3f}")

    def end(self, spec: RunSpec, record: dict[str, Any]) -> None:
        """Replace a run's bar by one line."""
        with self.lock:
            self.ended.add(str(spec.folder))
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
    return f"{spec.method}, {100 * spec.labels:g} % labels, fold {spec.fold}, seed {spec.seed}"
