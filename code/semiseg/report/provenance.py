"""What was compared and how; what is missing, and what the runs warned of."""

from collections.abc import Iterable
from typing import Any

from semiseg.labels import Labels, in_words, rank, same
from semiseg.report.differing import differing
from semiseg.report.formats import Table
from semiseg.report.results import Results
from semiseg.report.wording import budget, count_of_folds, data_title
from semiseg.settings import NONE


def facts(results: Results) -> list[tuple[str, str]]:
    """What was compared, how, and on what machine."""
    data = results.record["data"]
    _, seeds = results.grid
    records = [run.record for run in results.own]
    environments = [record.get("environment") or {} for record in records]
    hours = sum(record.get("seconds") or 0 for record in records) / 3600
    grouping = f"split by {data['grouping']}" if data.get("grouping") else "groups unknown"
    return [
        (
            "Data",
            f"{data_title(results)}; classes: {', '.join(results.classes)}; content hash "
            f"{str(data.get('hash', 'unknown'))[:12]}",
        ),
        (
            "Split",
            f"{count_of_folds(results)}, {grouping}; {_count(len(seeds), 'seed')}; "
            f"labels {', '.join(map(in_words, results.amounts))}",
        ),
        ("Training", f"{budget(results)}; {_count(len(records), 'finished run')}, {hours:.1f} hours in all"),
        *(
            (key.replace("_", " ").capitalize(), _distinct(e.get(key) for e in environments))
            for key in dict.fromkeys(key for e in environments for key in e if key not in ("load", "engine"))
        ),
        ("Code", _distinct(record.get("git_commit") for record in records)),
    ]


def not_started(results: Results) -> list[tuple[str, Labels, int, int]]:
    """The keys of runs that are missing among those of the same method and labels."""
    folds, seeds = results.grid
    runs = results.own + results.unfinished
    known = {run.key for run in runs}
    cells = dict.fromkeys((run.method, run.labels) for run in runs)
    return [(*cell, f, s) for cell in cells for f in folds for s in seeds if (*cell, f, s) not in known]


def not_begun(results: Results) -> str:
    """What benchmark.yaml asks for and no run was begun for, in words; empty if there is nothing of the kind."""
    settings = results.settings
    if settings is None:
        return ""
    runs = results.own + results.unfinished
    asked: dict[str, Iterable[Any]] = {"method": settings.variants(), "seed": settings.seeds}
    if not results.inner:
        asked["fold"] = settings.folds
    there: dict[str, set[Any]] = {noun: {getattr(run, noun) for run in runs} for noun in asked}
    missing = {noun: [str(v) for v in values if v not in there[noun]] for noun, values in asked.items()}
    words = [f"{noun}{'s' * (len(of) > 1)} {', '.join(of)}" for noun, of in missing.items() if of]
    begun = {(run.method, same(run.labels)) for run in runs}
    every = 1.0 not in settings.labels and 1.0  # that of an upper bound, which may have failed before it said so
    single = {
        run.method
        for run in runs
        if run.labels in (NONE, every) or (run.record.get("method") or {}).get("uses_all_labels")
    }
    several = [name for name in asked["method"] if name in there["method"] - single]
    for labels in settings.labels:
        if lacking := [name for name in several if (name, same(labels)) not in begun]:
            words.append(in_words(labels) + " labelled" + (f" for {', '.join(lacking)}" if lacking != several else ""))
    return f"benchmark.yaml also asks for {'; '.join(words)}, for which no run was begun." if words else ""


def left_out(results: Results) -> Table:
    """Runs without a number in any table: failed, unfinished, or never started."""
    titles = {entry.name: entry.title for entry in results.entries}
    groups: dict[tuple[str, Labels, str, str], list[tuple[int, int]]] = {}
    for run in results.unfinished:
        groups.setdefault((run.method, run.labels, run.status, run.reason), []).append((run.fold, run.seed))
    for method, labels, fold, seed in not_started(results):
        groups.setdefault((method, labels, "not started", ""), []).append((fold, seed))

    def order(group: tuple[tuple[str, Labels, str, str], list[tuple[int, int]]]) -> tuple[Any, ...]:
        method, labels, *others = group[0]
        return method, rank(labels), *others

    rows = [
        [
            titles.get(method, method),
            in_words(labels),
            ", ".join(map(results.fold_name, sorted({f for f, _ in places}))),
            ", ".join(map(str, sorted({s for _, s in places}))),
            status,
            reason,
        ]
        for (method, labels, status, reason), places in sorted(groups.items(), key=order)
    ]
    return Table(
        "left_out",
        "Not part of any number above",
        ["Method", "Labels", "Folds", "Seeds", "Status", "Reason"],
        [list(row) for row in rows],
        [],
        text_columns=6,
    )


def run_warnings(results: Results) -> Table:
    """What the runs warned of, and any sign that they are not comparable."""
    titles = {entry.name: entry.title for entry in results.entries}
    found: dict[str, dict[str, int]] = {}
    for run in results.finished:
        for warning in run.record.get("warnings") or []:
            methods = found.setdefault(str(warning), {})
            methods[titles[run.method]] = methods.get(titles[run.method], 0) + 1
    rows: list[list[Any]] = [
        [warning, ", ".join(f"{title} ({_count(runs, 'run')})" for title, runs in methods.items())]
        for warning, methods in found.items()
    ]
    rows += [
        [f"The runs differ in their {what}; their numbers are not comparable.", "all"] for what in differing(results)
    ]
    if results.misplaced:
        copies = ", ".join(f"{folder} (of {place})" for folder, place in results.misplaced.items())
        rows.append(["Not read, since the record is that of a run with another folder.", copies])
    return Table("warnings", "Warnings of finished runs", ["Warning", "Runs"], rows, [], text_columns=2)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _distinct(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value not in (None, ""))) or "unknown"
