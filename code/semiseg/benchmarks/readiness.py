"""Whether the runs of a benchmark can start, found out before any does."""

from collections.abc import Sequence

from semiseg.data.splits import Splits
from semiseg.data.store import Dataset
from semiseg.errors import UserError
from semiseg.labels import Labels, count_of, counted, in_words
from semiseg.registry import Methods
from semiseg.settings import RunSpec
from semiseg.training.assembly import build_method, other_data, partition_for
from semiseg.training.places import Places


def check(
    specs: Sequence[RunSpec], found: Methods, places: Places, repeats: int = 1, write: bool = True
) -> tuple[Dataset, Splits]:
    """Refuse what could not be trained, before splits are frozen or anything is written; returns the data."""
    dataset = places.dataset(specs[0].dataset)
    starts = {s.start.method: s.start for s in specs if s.start}
    for spec in [*{s.method: s for s in specs}.values(), *starts.values()]:
        method = build_method(found.plugin(spec), spec, dataset)
        for stream in method.streams(method.config):
            if stream.data:
                other_data(stream.data, dataset)
    for labels in dict.fromkeys(spec.labels for spec in specs):
        _check_noun(labels, dataset)
    splits = places.splits_of(dataset, specs[0].protocol, repeats, write)
    for spec in specs:
        kind = found[spec.implementation]
        partition = partition_for(kind, splits, spec, dataset)
        if kind.uses_unlabeled and not partition.unlabeled:
            raise UserError(
                f"benchmark {spec.benchmark}: with {in_words(spec.labels)} labelled nothing is left "
                f"unlabelled for {spec.method} in fold {spec.fold}; choose fewer."
            )
    return dataset, splits


def drawn_from(specs: Sequence[RunSpec], found: Methods) -> dict[str, str]:
    """The data sets beside the benchmark's own from which the runs, or what they start from, draw, and who does."""
    return {
        stream.data: spec.method
        for spec in (s for run in specs for s in (run, run.start) if s)
        for stream in found.plugin(spec).streams(found.plugin(spec).Config.model_validate(spec.config))
        if stream.data
    }


def _check_noun(labels: Labels, dataset: Dataset) -> None:
    """Refuse a count of patients where groups are videos, or unknown: tables repeat the word."""
    number, noun = count_of(labels) or (0, "group")
    grouping = dataset.info.grouping
    if noun in ("group", "case", grouping) or grouping == "group":  # a table of the user's, who knows what they are
        return
    known = f"its groups are {grouping}s" if grouping else "what its groups are is unknown"
    remedy = f"write {counted(number, grouping or 'group')}, or {counted(number, 'case')}"
    raise UserError(f"{dataset.info.name}: labels of {labels}: {known}; {remedy}.")
