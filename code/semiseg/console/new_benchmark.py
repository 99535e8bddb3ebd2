"""Writes a benchmark for a prepared data set: shows what the data are, chooses settings, and says why in the file."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
import yaml
from rich.progress import track

from semiseg.benchmarks.expansion import expand
from semiseg.benchmarks.proposal import METHODS, Pace, Setup, budget, fractions, seconds, set_up
from semiseg.console.preparing import ensure_dataset
from semiseg.console.terminal import console
from semiseg.data.census import ClassCount, Outline, count_classes
from semiseg.data.splits import FOLDS, Splits, make_splits
from semiseg.data.store import Dataset
from semiseg.errors import UserError, UserErrors
from semiseg.executors.local import Local, Pool
from semiseg.registry import find_methods
from semiseg.report.sheet import draw_sheet
from semiseg.settings import BenchmarkSettings, folder_name
from semiseg.tasks import DEFAULT
from semiseg.training.assembly import build_method, partition_for
from semiseg.training.places import Places
from semiseg.training.timing import time_run
from semiseg.validation import validate

HOURS = {"cpu": 2.0, "cuda": 12.0}  # that a benchmark may take
FEW_FOLDS = ([0, 1], [0])  # where all five take much longer
SLACK = 1.25  # of the hours, which a measured step does not tell to the minute
TINY = 64  # pixels of an object that a network sees, below which it sees little of it


def new_benchmark(name: str, data: str, out: Path, data_dir: Path, device: str, hours: float | None) -> None:
    """Show the data, measure the machine, write the file."""
    try:
        folder_name(name)
    except ValueError as error:
        raise UserError(f"{error}.") from error
    refused = [f"{out} exists already; choose another name, or another file with --out."] * out.exists()
    try:
        ensure_dataset(data, data_dir)
    except UserError as error:
        refused.append(str(error))
    if refused:
        raise UserErrors(refused)
    dataset = Dataset(data_dir / f"{data}.h5")
    if dataset.info.task != DEFAULT:
        raise UserError(
            f"{data}: is for {dataset.info.task}; begin with a copy of a benchmark of that, see docs/tasks.md."
        )
    outline, splits = Outline.of(dataset), make_splits(dataset)
    quiet = not console.is_terminal
    cases = track(dataset.annotated, "Counting classes", console=console, transient=True, disable=quiet)
    counts = count_classes(dataset, cases)
    sheet = data_dir / f"{data}.png"
    draw_sheet(dataset, sheet)
    for line in [*describe(dataset, outline, counts), f"Pictures with outlines: {sheet}", ""]:
        print(line)
    draft = Draft(name, dataset, outline, splits, Local(device=device))
    hours = hours or HOURS[draft.local.device_type]
    draft.fit(hours)
    for line in warnings(draft, counts, hours):
        print(f"Note: {line}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(draft.text(), encoding="utf-8")
    elsewhere = ["--data-dir", str(data_dir)] if data_dir != Path("data") else []
    print(f"{out}: written. It takes {draft.duration}.")
    print(f"Next: {shlex.join(['semiseg', 'run', str(out), *elsewhere])}")


def describe(dataset: Dataset, outline: Outline, counts: list[ClassCount]) -> Iterator[str]:
    """What the data are, in lines."""
    color = {1: "grey", 3: "RGB"}.get(outline.channels, f"{outline.channels} channels")
    grouping = dataset.info.grouping
    groups = f"of {outline.groups} groups ({grouping})" if grouping else "groups unknown"
    without = f", {outline.bare} of them without a mask" if outline.bare else ""
    yield f"{dataset.info.name}: {outline.cases} {outline.kind}{without}, {groups}; {color}"
    extent = " × ".join(str(least) if least == most else f"{least}-{most}" for least, most in outline.sizes)
    spacing = " × ".join(f"{length:.3g}" for length in outline.spacing) + " mm" if outline.spacing else "unknown"
    yield f"Size: {extent} pixels, usually {' × '.join(map(str, outline.size))}; spacing: {spacing}"
    if dataset.info.masks:
        yield f"Masks: {dataset.info.masks}"
    width = max(len(count.name) for count in counts)
    for count in counts:
        share = f"{100 * count.share:.2g} % of all pixels"
        yield f"Class {count.name:<{width}}  {share}, in {count.cases} of {outline.masked} {outline.kind}"


@dataclass
class Draft:
    """A benchmark on its way into a file."""

    name: str
    dataset: Dataset
    outline: Outline
    splits: Splits
    local: Local
    steps: int = 1
    folds: tuple[int, ...] = tuple(range(FOLDS))
    hours: float = 0.0  # that it takes; measured by `fit`
    duration: str = "a time that was not measured yet"

    def __post_init__(self) -> None:
        self.groups = {record.id: record.group for record in self.dataset.records.values()}
        self.setup: Setup = set_up(self.outline, self.local.device_type == "cuda")
        self.labeled = fractions(self.splits, self.groups)
        self.training_cases = len(self.splits.folds[0].train)

    def settings(self) -> BenchmarkSettings:
        """What the file says."""
        settings: BenchmarkSettings = validate(BenchmarkSettings, yaml.safe_load(self.text()), self.name)
        return settings

    def fit(self, hours: float) -> None:
        """Measure a step on this machine, and choose as many steps, and so many folds, as the hours allow."""
        found = find_methods()
        runs = expand(self.settings(), found)
        for run in {run.method: run for run in runs}.values():
            build_method(found[run.implementation], run, self.dataset)  # refuses what could not be trained
        first = found[METHODS[0]]
        pool = Pool(self.local, Places(Path(), Path(), Path()))
        print(f"Measuring a few steps of {first.title} ...")
        partition = partition_for(first, self.splits, runs[0], self.dataset)
        device = torch.device(self.local.device_type)
        step, test = time_run(first, runs[0], self.dataset, partition, device, pool.threads)
        pace = Pace(step, test, pool.wanted)
        for folds in (self.folds, *map(tuple, FEW_FOLDS)):
            self.folds = folds
            runs = expand(self.settings(), found)
            per_step, beside = seconds(self.settings(), runs, found, pace, len(self.splits.folds[0].test))
            self.steps = budget(hours, per_step, beside, len(self.setup.size))
            self.hours = (self.steps * per_step + beside) / 3600
            if self.hours <= SLACK * hours:
                break
        at_once = f", {pool.wanted} at a time" if pool.wanted > 1 else ""
        self.duration = (
            f"about {_hours(self.hours)} on this machine, as busy as it was: {len(runs)} trainings{at_once}, "
            f"{1000 * step:.0f} ms for a step of {first.title}"
        )

    def text(self) -> str:
        """The file, with the reasons."""
        outline, setup = self.outline, self.setup
        counts = ", ".join(f"{100 * fraction:g} % are {len(cases)}" for fraction, cases in self.labeled.items())
        lines = [
            f"# {outline.cases} {outline.kind}, by `semiseg new-benchmark`. Settings follow from their number, their",
            "# sizes and the speed of the machine, not from any label. Change what does not suit before the first run.",
            f"# It takes {self.duration}.",
            f"name: {_quoted(self.name)}",
            f"dataset: {_quoted(self.dataset.info.name)}",
            "methods:  # two bounds and others between them; `semiseg methods` lists all",
            *(f"  - {method}" for method in METHODS),
            f"# Of {self.training_cases} training cases of a fold, in whole groups: {counts}.",
            *[f"# Beside them methods learn from up to {outline.bare} {outline.kind} without a mask."]
            * bool(outline.bare),
            f"labels: [{', '.join(f'{100 * fraction:g}%' for fraction in self.labeled)}]",
            f"folds: {list(self.folds)}  # of 0 to 4" + "; all take too long here" * (len(self.folds) < FOLDS),
            "# repeats: 3  # several partitions into folds show smaller differences; then leave out `folds`",
            f"network: {setup.network}  # {setup.why_network}",
            "training:",
            f"  steps: {self.steps}  # what the time allows; 30000 are customary",
            f"  size: {list(setup.size)}  # {setup.why_size}",
            f"  labeled_batch: {setup.batch}  # {setup.why_batch}",
            f"  unlabeled_batch: {setup.batch}",
            "  learning_rate: 0.03  # 0.01 is for 30000 steps, fewer need larger ones",
            "  # turns: false  # if only direction tells classes apart (left from right)",
        ]
        if outline.channels == 3:
            lines.append("  # imaging: scan  # if the three channels are not the colours of a camera")
        shape, size = outline.size[-2:], setup.size[-2:]
        if len(setup.size) == 2 and prod(shape) >= 4 * prod(size):
            window = [max(have // 2, want) for have, want in zip(shape, size, strict=True)]
            lines += [
                f"  # crop: {{window: {window}, at: centre}}  # if what is looked for is always near the middle, or",
                "  # `at: anywhere` if it is small; this must be known of images without masks, as of new ones.",
            ]
        return "\n".join(lines) + "\n"


def warnings(draft: Draft, counts: list[ClassCount], hours: float) -> Iterator[str]:
    """What may make the benchmark say less than hoped, or take longer."""
    outline, size = draft.outline, draft.setup.size
    if draft.hours > SLACK * hours:
        yield (
            f"it does not fit {_hours(hours)}: even one fold with {draft.steps} steps, below which little is learned, "
            f"takes {_hours(draft.hours)}; take methods or labels out of the file, or give it more --hours."
        )
    if (least := 0.05 * draft.training_cases) < 1:
        kept = ", ".join(f"{100 * fraction:g} %" for fraction in draft.labeled)
        yield f"5 % of {draft.training_cases} training cases are {least:.1f} cases, less than one; the file has {kept}."
    if not draft.dataset.info.grouping:
        yield (
            "groups are unknown: if several cases are of one patient or video, name it in groups.csv and prepare the "
            "data again, or else test cases resemble training cases and scores are too good."
        )
    for count in counts:
        if not count.cases:
            yield f"no case shows {count.name}; should there be such a class?"
            continue
        if count.cases < outline.masked / 2:
            without = outline.masked - count.cases
            yield f"{count.name} is missing from {without} of {outline.masked} cases, so its scores rest on few."
        seen = count.share_where_shown * prod(size)
        if len(size) == 2 and seen < TINY:
            yield (
                f"{count.name} is tiny: where it is, it covers about {seen:.0f} of the {' × '.join(map(str, size))} "
                "pixels that a network sees; a larger `size` or a `crop` shows more of it."
            )


def _hours(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{max(1, round(60 * hours))} minutes"


def _quoted(name: str) -> str:
    """A name as YAML, which takes some for numbers."""
    return yaml.safe_dump(name, allow_unicode=True, width=1000).splitlines()[0]
