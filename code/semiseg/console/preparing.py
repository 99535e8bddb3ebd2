"""Preparing data, with its progress on the terminal."""

import shlex
from functools import partial
from pathlib import Path

from rich.progress import Progress, TaskID

from semiseg.console.missing import missing, no_recipe
from semiseg.console.terminal import console
from semiseg.data.discovery import recipe, recipes
from semiseg.data.masks import parse_thresholds
from semiseg.data.prepare import prepare
from semiseg.data.source import open_recipe
from semiseg.data.store import Dataset
from semiseg.embedded import embedded_benchmarks
from semiseg.errors import UserError
from semiseg.settings import load_benchmark

TOLD = 5  # images under several names that there is room for


def prepare_dataset(
    name: str, source: Path | None, out: Path, jobs: int | None = None, raw: Path | None = None, threshold: str = ""
) -> Path:
    """Prepare a data set by its recipe's name, from files that are downloaded and unpacked first if need be."""
    if error := no_recipe(name, source, out):
        raise error
    bars: dict[str, TaskID] = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:

        def show(what: str, done: int, total: int | None) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=total)
            progress.update(bars[what], completed=done, total=total)

        chosen = open_recipe(recipe(name), source, raw or out / "raw", show)
        if threshold:
            chosen.divide_masks(parse_thresholds(threshold))
        path, written = prepare(chosen, out, partial(show, f"Preparing {name}"), jobs)
    console.print(f"{path}: {'written' if written else 'up to date'}", highlight=False, soft_wrap=True)
    if twins := Dataset(path).twins:
        told = "; ".join(" = ".join(cases) for cases in twins[:TOLD]) + "; ..." * (len(twins) > TOLD)
        line = f"One image under several names, none of which is tested where another trains: {told}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return path


def next_command(name: str, path: Path) -> str:
    """What comes after preparing: the benchmark that is called like the recipe, or one yet to be written."""
    data, elsewhere = path.stem, [] if path.parent == Path("data") else ["--data-dir", str(path.parent)]
    if name not in embedded_benchmarks():
        return shlex.join(["semiseg", "new-benchmark", data, "--data", data, *elsewhere])
    usual = load_benchmark(embedded_benchmarks()[name], {}).dataset
    renamed = ["--set", f"dataset={data}", "--out", f"results/{data}"] if data != usual else []
    return shlex.join(["semiseg", "run", name, *renamed, *elsewhere])


def ensure_dataset(name: str, out: Path, why: str = "", make: bool = True) -> bool:
    """Prepare a data set that needs no files, so that a benchmark on it just runs; of others say how to make them.

    Args:
        why: what it is for, which is said first.
        make: otherwise one that could be prepared is said to be, and false is returned.
    """
    if (out / f"{name}.h5").exists():
        return True  # looking for the recipe would import every reader of medical formats
    known = recipes()
    if name not in known or known[name].layout:
        raise UserError(f"{why}{missing(name, out)}")
    if not make:
        console.print(f"{why}{out / name}.h5 would be prepared first.", highlight=False, soft_wrap=True)
        return False
    prepare_dataset(name, None, out)
    return True
