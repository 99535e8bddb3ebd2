"""What `semiseg status` prints."""

from collections import Counter

from semiseg.benchmarks.expansion import Selection, expand
from semiseg.benchmarks.order import time_left
from semiseg.benchmarks.state import STATUSES, Standing, Status, strays, survey
from semiseg.console.terminal import console, duration
from semiseg.data.splits import Splits
from semiseg.data.store import Dataset
from semiseg.errors import UserError
from semiseg.registry import Methods, find_methods
from semiseg.settings import BenchmarkSettings
from semiseg.training.places import Places


def print_standings(settings: BenchmarkSettings, places: Places, selection: Selection) -> None:
    """Count the runs of a benchmark by how they stand, give reasons, and say how long the rest will take."""
    found = find_methods(places.methods_dir)
    settings = _known(settings, found)
    specs = expand(settings, found, selection)
    frozen = places.splits_file(settings.dataset)
    data: tuple[Dataset, Splits] | None = None
    if (places.data / f"{settings.dataset}.h5").exists():
        dataset = places.dataset(settings.dataset)
        splits = places.known_splits(dataset, settings.protocol)
        data = (dataset, splits) if splits else None
    if data and not settings.protocol and data[1].repeats < settings.repeats:  # looking freezes nothing
        data = None
        few = f"{frozen} holds fewer repeats than are asked for"
        console.print(f"Data and split are not compared: {few}.", highlight=False, soft_wrap=True)
    elif not data:
        where = f"{places.data / settings.dataset}.h5 and {frozen} are not both there (--data-dir, --splits)"
        console.print(f"Data and split are not compared: {where}.", highlight=False, soft_wrap=True)
    with console.status("Looking at the runs"):
        runs = survey(specs, places, found, data)
    counts = Counter(run.status for run in runs)
    for status in STATUSES:
        console.print(f"{status:9} {counts[status]}", highlight=False)
    work = [run for run in runs if run.status in ("running", "failed", "left")]
    if work and (left := time_left(work, runs, found)):
        seconds, workers = left
        who = f"{workers} at a time, as now" if workers else "if one runs at a time"
        console.print(f"{'time left':9} {duration(seconds)}, {who}", highlight=False)
    if counts["left"] and selection == Selection():
        console.print("All that benchmark.yaml asks for is counted; --methods, --labels, --folds, --seeds narrow it.")
    reasons: dict[tuple[Status, str], list[Standing]] = {}
    for run in [*runs, *strays(settings, expand(settings, found), places, found, data)]:
        if run.reason:
            reason = f"{run.reason}, {run.otherwise}" if run.otherwise else run.reason
            reasons.setdefault((run.status, reason), []).append(run)
    for (kind, reason), alike in reasons.items():
        more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        part = f" ({len(alike)} of {counts[kind]})" if len(alike) < counts[kind] else ""
        line = f"{kind}{part}: {alike[0].folder.relative_to(places.results)}{more}: {reason}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _known(settings: BenchmarkSettings, found: Methods) -> BenchmarkSettings:
    """The settings without methods that are gone, which are named."""
    variants = settings.variants()
    gone = [name for name, variant in variants.items() if variant.implementation not in found]
    if not gone:
        return settings
    if len(gone) == len(variants):
        raise UserError(f"benchmark {settings.name}: {found.problem(variants[gone[0]].implementation)}")
    line = f"Not counted: {', '.join(gone)}, not found (--methods-dir); finished runs stay, and reports show them."
    console.print(line, highlight=False, soft_wrap=True)
    return settings.model_copy(update={"methods": tuple(v.entry(n) for n, v in variants.items() if n not in gone)})
