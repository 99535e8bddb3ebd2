"""What `semiseg status` prints."""

from collections import Counter
from pathlib import Path

from semiseg.benchmarks.expansion import expand
from semiseg.benchmarks.order import expected_seconds
from semiseg.benchmarks.state import STATUSES, Standing, strays, survey
from semiseg.console.terminal import console
from semiseg.data.splits import Splits
from semiseg.data.store import Dataset
from semiseg.registry import find_methods
from semiseg.settings import BenchmarkSettings
from semiseg.training.places import Places


def print_standings(settings: BenchmarkSettings, places: Places) -> None:
    """Count the runs of a benchmark by how they stand, give reasons, and say how long the rest will take."""
    found = find_methods(places.methods_dir)
    specs = expand(settings, found)
    frozen = places.splits_file(settings.dataset)
    data: tuple[Dataset, Splits] | None = None
    if (places.data / f"{settings.dataset}.h5").exists():
        dataset = places.dataset(settings.dataset)
        splits = places.known_splits(dataset)
        data = (dataset, splits) if splits else None
    if data and data[1].repeats < settings.repeats:  # looking freezes nothing
        data = None
        few = f"{frozen} holds fewer repeats than are asked for"
        console.print(f"Data and split are not compared: {few}.", highlight=False, soft_wrap=True)
    elif not data:
        where = f"{places.data / settings.dataset}.h5 and {frozen} are not both there (--data-dir, --splits)"
        console.print(f"Data and split are not compared: {where}.", highlight=False, soft_wrap=True)
    runs = survey(specs, places, found, data)
    counts = Counter(run.status for run in runs)
    for status in STATUSES:
        console.print(f"{status:9} {counts[status]}", highlight=False)
    if left := _time_left(runs, expected_seconds(specs, runs, found)):
        console.print(f"{'time left':9} {left}", highlight=False)
    reasons: dict[tuple[str, str], list[Standing]] = {}
    for run in [*runs, *strays(settings, specs, places, found, data)]:
        if run.reason:
            reasons.setdefault((run.status, run.reason), []).append(run)
    for (kind, reason), alike in reasons.items():
        more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        line = f"{kind}: {alike[0].folder.relative_to(places.results)}{more}: {reason}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _time_left(runs: list[Standing], seconds: dict[Path, float] | None) -> str:
    """How long what is not finished will take those that work on it now, or one if nobody does."""
    work = [run for run in runs if run.status in ("running", "failed", "left")]
    if not work or (seconds is None and not all(run.holder and run.holder.seconds_left for run in work)):
        return ""
    total, workers = 0.0, 0
    for run in work:
        known = run.holder.seconds_left if run.holder else None
        total += known if known is not None else (seconds or {}).get(run.spec.folder, 0.0)
        workers += run.holder is not None
    who = f"{workers} at a time, as now" if workers else "one at a time"
    return f"{duration(total / max(workers, 1))}, {who}"


def duration(seconds: float) -> str:
    """A time in the two units that matter."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
