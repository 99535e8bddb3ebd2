"""Preparing data, with its progress on the terminal."""

from functools import partial
from pathlib import Path

from rich.progress import Progress, TaskID

from semiseg.console.missing import missing
from semiseg.console.terminal import console
from semiseg.data.discovery import recipe, recipes
from semiseg.data.masks import parse_thresholds
from semiseg.data.prepare import prepare
from semiseg.data.source import open_recipe


def prepare_dataset(
    name: str, source: Path | None, out: Path, jobs: int | None = None, raw: Path | None = None, threshold: str = ""
) -> None:
    """Prepare a data set by its recipe's name, from files that are downloaded and unpacked first if need be."""
    bars: dict[str, TaskID] = {}
    with Progress(console=console, transient=True) as progress:

        def show(what: str, done: int, total: int | None) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=total)
            progress.update(bars[what], completed=done, total=total)

        chosen = open_recipe(recipe(name), source, raw or out / "raw", show)
        if threshold:
            chosen.divide_masks(parse_thresholds(threshold))
        path, written = prepare(chosen, out, partial(show, f"Preparing {name}"), jobs)
    console.print(f"{path}: {'written' if written else 'up to date'}", highlight=False, soft_wrap=True)


def ensure_dataset(name: str, out: Path) -> None:
    """Prepare a data set that needs no files, so that a benchmark on it just runs; of others say how to make them."""
    if (out / f"{name}.h5").exists():
        return  # looking for the recipe would import every reader of medical formats
    known = recipes()
    if name not in known or known[name].layout:
        raise missing(name, out)
    prepare_dataset(name, None, out)
