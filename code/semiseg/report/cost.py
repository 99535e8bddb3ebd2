"""The table of what a method costs: networks, time, throughput, memory, and how many runs shared the device."""

from collections.abc import Callable, Iterable
from statistics import fmean
from typing import Any

from semiseg.report.formats import ABSENT, Cell, Number, Table
from semiseg.report.results import Entry, Results
from semiseg.report.summary import on_one_processor, training_seconds
from semiseg.report.wording import notes

PARAMETERS = {"trained": "trained", "predicting": "at test time"}  # as run.json counts them, and in words


def cost_table(results: Results) -> Table:
    """One row for each method, over all its finished runs."""
    entries = [entry for entry in results.entries if entry.role != "theirs"]
    device, timed = on_one_processor(results.own)
    runs = {entry.name: [run.record for run in results.own if run.method == entry.name] for entry in entries}
    times = {entry.name: [run.record for run in timed if run.method == entry.name] for entry in entries}
    counted = any(_parameters(record) for records in runs.values() for record in records)
    unparted = sum("selection" in run.record and "selection_seconds" not in run.record for run in timed)
    begun = any(run.record.get("start") for run in results.own)
    metered = any(record.get("attempt_joules") is not None for of in runs.values() for record in of)
    columns = {key: f"Parameters {what} (million)" for key, what in PARAMETERS.items() if counted}
    return Table(
        "cost",
        "What a run costs",
        ["Method", "Networks", *columns.values(), "Runs", "Seconds", "Images a second", "Memory (MB)"]
        + ["Energy (kJ)"] * metered
        + ["At once"],
        [_row(entry, runs[entry.name], times[entry.name], list(columns), metered) for entry in entries],
        [
            *notes(results, entries, spread=False),
            "Means over a method's finished runs of all amounts of labels; in parentheses how many tell, where not "
            "all do. Seconds: of training, in all attempts"
            f"{', with those of the pre-training that a run starts from' * begun}; memory: the highest in a run.",
            *[f"Of runs on {device} alone, which made most: seconds of others do not compare."]
            * (len(timed) < len(results.own)),
            *[f"Seconds of {unparted} runs are with what the comparing of weights took, which they do not tell apart."]
            * bool(unparted),
            *["Energy: of all processors of the machine while the run's last attempt went on."] * metered,
            f"At once: how many runs shared the device, on which seconds depend; {ABSENT} where runs do not tell. "
            "Compare methods where it is the same for both, and the machine, too.",
        ],
    )


def _row(
    entry: Entry, records: list[dict[str, Any]], timed: list[dict[str, Any]], counts: list[str], metered: bool
) -> list[Cell]:
    environments = [record.get("environment") or {} for record in timed]
    return [
        entry.title,
        _counts({record["method"].get("networks") for record in records}, str),
        *(_millions(records, key) for key in counts),
        len(timed),
        _mean(map(training_seconds, timed)),
        _mean(record.get("images_per_second") for record in timed),
        _mean(record.get("peak_memory_mb") for record in timed),
        *[_mean((record.get("attempt_joules") for record in timed), 1e-3)] * metered,
        _counts({environment.get("concurrency") for environment in environments}, str),
    ]


def _parameters(record: dict[str, Any]) -> dict[str, int]:
    """How many a run has counted; older ones did not."""
    return record["method"].get("parameters") or {}


def _millions(records: list[dict[str, Any]], key: str) -> Cell:
    """How many parameters; those of one method differ where its runs differ in a setting."""
    counts = {_parameters(record)[key] / 1e6 for record in records if key in _parameters(record)}
    return _counts(counts or {None}, lambda count: f"{count:.2f}")


def _counts(found: set[Any], shown: Callable[[Any], str]) -> Cell:
    """Distinct numbers, None for runs that do not tell; a CSV has the largest, and the least where there is another."""
    known = sorted(number for number in found if number is not None)
    words = ", ".join([*map(shown, known), *[ABSENT] * (None in found)])
    if not known:
        return words
    return Number(words, {"": known[-1]} | ({" least": known[0]} if len(known) > 1 else {}))


def _mean(recorded: Iterable[float | None], unit: float = 1.0) -> Cell:
    """The mean of what runs recorded, and of how many where some did not."""
    values = list(recorded)
    known = [unit * float(value) for value in values if value is not None]
    share = f" ({len(known)} of {len(values)})" if len(known) < len(values) else ""
    return Number(f"{fmean(known):.1f}{share}", {"": fmean(known)}) if known else ABSENT
