"""Long work that commands start, with its progress on the terminal."""

import sys
from functools import partial
from pathlib import Path

import typer
from rich.progress import Progress, TaskID

from semiseg.benchmarks.expansion import Selection, expand, resolve, write_benchmark
from semiseg.benchmarks.readiness import check
from semiseg.benchmarks.state import state
from semiseg.console.terminal import console
from semiseg.console.watch import Watch
from semiseg.data.discovery import recipe, recipes
from semiseg.data.prepare import prepare
from semiseg.data.source import open_recipe
from semiseg.errors import UserError
from semiseg.executors import local
from semiseg.report import report
from semiseg.settings import BenchmarkSettings
from semiseg.training.places import Places


def prepare_dataset(
    name: str, source: Path | None, out: Path, jobs: int | None = None, raw: Path | None = None
) -> None:
    """Prepare a data set by its recipe's name, from files that are downloaded and unpacked first if need be."""
    bars: dict[str, TaskID] = {}
    with Progress(console=console, transient=True) as progress:

        def show(what: str, done: int, total: int | None) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=total)
            progress.update(bars[what], completed=done, total=total)

        chosen = open_recipe(recipe(name), source, raw or out / "raw", show)
        path, written = prepare(chosen, out, partial(show, f"Preparing {name}"), jobs)
    console.print(f"{path}: {'written' if written else 'up to date'}", highlight=False, soft_wrap=True)


def generate_if_missing(name: str, out: Path) -> None:
    """Prepare a data set that needs no files, so that a benchmark on it just runs."""
    if (out / f"{name}.h5").exists():
        return  # looking for the recipe would import every reader of medical formats
    known = recipes()
    if name in known and not known[name].layout:
        prepare_dataset(name, None, out)


def carry_out(settings: BenchmarkSettings, places: Places, selection: Selection, device: str, jobs: int | None) -> int:
    """Carry out what is left, report what there is, and return the number of runs that did not finish."""
    if places.results.exists() and not places.results.is_dir():
        raise UserError(f"--out {places.results}: is a file; name a folder.")
    settings = resolve(settings, places, selection.methods)
    generate_if_missing(settings.dataset, places.data)
    runs = expand(settings, places, selection)
    devices, threads = local.choose_devices(device, jobs)
    check(settings, runs, places)
    states = [state(spec, places.results)[0] for spec in runs]
    left = [spec for spec, status in zip(runs, states, strict=True) if status not in ("finished", "running")]
    write_benchmark(settings, places.results)
    unfinished = states.count("running")
    if unfinished:
        console.print(
            f"{unfinished} runs are being carried out by another process and are left to it. "
            "If there is none, delete their run.json: they resume from their checkpoints."
        )
    if left:
        with Watch(console, len(runs), states.count("finished")) as watch:
            try:
                for spec, record in local.carry_out(left, places, devices[: len(left)], threads, watch.step):
                    watch.end(spec, record)
                    unfinished += record["status"] != "finished"
            except KeyboardInterrupt:
                print("semiseg: stopped; the same command goes on from the last checkpoints.", file=sys.stderr)
                raise typer.Exit(130) from None
    if unfinished < len(runs) and (left or not (places.results / "index.html").exists()):
        report(places.results)
    return unfinished
