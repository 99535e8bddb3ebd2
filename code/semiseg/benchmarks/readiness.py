"""Whether the runs of a benchmark can start, found out before any does."""

from collections.abc import Sequence

from semiseg.data.splits import Splits
from semiseg.data.store import Dataset
from semiseg.errors import UserError
from semiseg.method import Method
from semiseg.settings import RunSpec
from semiseg.training.assembly import build_method, partition_for
from semiseg.training.places import Places


def check(
    specs: Sequence[RunSpec], found: dict[str, type[Method]], places: Places, repeats: int = 1
) -> tuple[Dataset, Splits]:
    """Refuse what could not be trained, before splits are frozen or anything is written; returns the data."""
    dataset = places.dataset(specs[0].dataset)
    for spec in {s.method: s for s in specs}.values():
        build_method(found[spec.implementation], spec, dataset)
    splits = places.frozen_splits(dataset, repeats)
    for spec in specs:
        method = found[spec.implementation]
        partition = partition_for(method, splits, spec, dataset)
        if method.uses_unlabeled and not partition.unlabeled:
            raise UserError(
                f"benchmark {spec.benchmark}: with {100 * spec.labels:g} % labels nothing is left "
                f"unlabeled for {spec.method}; choose a smaller fraction."
            )
    return dataset, splits
