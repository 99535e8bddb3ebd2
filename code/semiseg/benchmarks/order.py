"""In which order runs begin, and how long they take."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean

from semiseg.benchmarks.state import Standing
from semiseg.method import Method
from semiseg.settings import RunSpec


def expected_seconds(
    specs: Sequence[RunSpec], runs: Iterable[Standing], found: dict[str, type[Method]]
) -> dict[Path, float] | None:
    """How long each run will take, from those that are done or under way; None if nothing is known of any.

    A method without a measurement takes as long for each network as the others do.
    """
    seconds: dict[str, list[float]] = {}
    implementations: dict[str, str] = {}
    for run in runs:
        if known := run.holder.seconds if run.holder else run.seconds:
            seconds.setdefault(run.spec.method, []).append(known)
            implementations[run.spec.method] = run.spec.implementation
    if not seconds:
        return None
    measured = {method: mean(values) for method, values in seconds.items()}
    pace = mean(measured[m] / found[implementations[m]].networks for m in measured)
    return {spec.folder: measured.get(spec.method, pace * found[spec.implementation].networks) for spec in specs}


def time_left(
    work: Sequence[Standing], runs: Iterable[Standing], found: dict[str, type[Method]]
) -> tuple[float, int] | None:
    """Seconds that work will take those who are at it now, or one if nobody is, and their number; None if unknown.

    Args:
        runs: whose times are known, or will be.
    """
    seconds = expected_seconds([run.spec for run in work], runs, found)
    if seconds is None:
        return None
    known = {run.spec.folder: run.holder.seconds_left for run in work if run.holder}
    total = sum(seconds[folder] if known.get(folder) is None else known[folder] or 0.0 for folder in seconds)
    return total / max(len(known), 1), len(known)


def longest_first(
    specs: Sequence[RunSpec], seconds: dict[Path, float] | None, found: dict[str, type[Method]]
) -> list[RunSpec]:
    """Fold after fold, so that complete columns of the table come first; within one, long runs before short ones.

    So the last runs to begin are short, and workers end at about the same time.
    """
    rank = {key: place for place, key in enumerate(dict.fromkeys((s.seed, s.fold, s.inner) for s in specs))}

    def cost(spec: RunSpec) -> float:
        return seconds[spec.folder] if seconds else found[spec.implementation].networks

    return sorted(specs, key=lambda spec: (rank[spec.seed, spec.fold, spec.inner], -cost(spec)))
