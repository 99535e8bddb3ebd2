"""In which order runs begin, and how long they take."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean

from semiseg.benchmarks.state import Standing
from semiseg.method import Method
from semiseg.settings import RunSpec


def expected_seconds(
    specs: Sequence[RunSpec], finished: Iterable[Standing], found: dict[str, type[Method]]
) -> dict[Path, float] | None:
    """How long each run will take, from those that were measured; None if none was.

    A method without a measurement takes as long for each network as the others do.
    """
    seconds: dict[str, list[float]] = {}
    for run in finished:
        if run.seconds:
            seconds.setdefault(run.spec.method, []).append(run.seconds)
    if not seconds:
        return None
    measured = {method: mean(values) for method, values in seconds.items()}
    implementations = {run.spec.method: run.spec.implementation for run in finished}
    pace = mean(measured[m] / found[implementations[m]].networks for m in measured)
    return {spec.folder: measured.get(spec.method, pace * found[spec.implementation].networks) for spec in specs}


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
