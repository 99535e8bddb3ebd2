"""What changed between two folders of results: the same runs then and now."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from semiseg.labels import Labels, in_words
from semiseg.report.comparison import interval, probability
from semiseg.report.formats import ABSENT, Cell, Number, Table
from semiseg.report.reading import read_results
from semiseg.report.results import Results, Run
from semiseg.report.significance import ENOUGH, corrected_t_test
from semiseg.report.summary import run_scores
from semiseg.report.wording import kept_because, notes, share_of

COLUMNS = (
    "Labels", "Method", "Differs in", "Before", "Now", "Difference", "95 % interval", "p", "Runs compared", "The same",
    "New", "Gone",
)  # fmt: skip
PARTS: dict[str, Callable[[dict[str, Any]], Any]] = {  # of run.json, beside its settings
    "data": lambda record: record["data"].get("hash"),
    "split": lambda record: record["data"].get("split_hash"),
    "code": lambda record: (record.get("identity") or {}).get("code"),
    "commit": lambda record: record.get("git_commit"),
}


def earlier_results(results: Results, against: str | None) -> Results | None:
    """The results in the folder `against`, unless that is the name of a method (a folder of that name is ./NAME)."""
    if against is None or against in {entry.name for entry in results.entries} or not Path(against).is_dir():
        return None
    return read_results(Path(against))


def changes_table(earlier: Results, results: Results) -> Table:
    """Dice of every method then and now, over the runs (fold and seed) that both folders have finished.

    With enough folds also whether other trainings would show the difference, by the test that compares methods.
    """
    titles = {entry.name: entry.title for content in (earlier, results) for entry in content.entries}
    dice = [run_scores(content.cases)[content.primary.name] for content in (earlier, results)]
    rows: list[list[Cell]] = []
    rules: set[int] = set()
    for labels in [*results.amounts, *(amount for amount in earlier.amounts if amount not in results.amounts)]:
        rules |= {len(rows)} - {0}
        rows += [
            [in_words(labels), title, *_compared(earlier, results, dice, method, labels)]
            for method, title in titles.items()
            if (method, labels) in earlier.cells or (method, labels) in results.cells
        ]
    return Table(
        "changes",
        f"What changed since {earlier.path.name}",
        [*COLUMNS],
        rows,
        [
            f"{results.primary.percent} of the same folds and seeds in {earlier.path.name} (before) and "
            f"{results.path.name} (now): means over the runs that both have. The same: runs with the same "
            f"{results.primary.title} to six digits. New and gone: runs that only one of them has; they are in no "
            "mean.",
            f"p and the interval: the corrected t of tables/differences, over the folds; none below {ENOUGH}.",
            "Differs in: what some of the compared runs record differently; older runs do not record all of it.",
            *notes(results, results.entries, spread=False),
        ],
        rules,
        text_columns=3,
        heading=0,
    )


def _compared(earlier: Results, results: Results, dice: list[Any], method: str, labels: Labels) -> list[Cell]:
    before, now = (
        {(run.fold, run.seed): run for run in content.cells.get((method, labels), [])} for content in (earlier, results)
    )
    both = sorted(before.keys() & now.keys())
    counts: list[Cell] = [len(now.keys() - before.keys()), len(before.keys() - now.keys())]
    if not both:
        return [*[ABSENT] * 6, 0, 0, *counts]
    then, today = ([float(scores[method, labels, *key]) for key in both] for scores in dice)
    mean_then, mean_now = sum(then) / len(both), sum(today) / len(both)
    marks = f"{'†' * bool(share_of(results, method, labels))}{'‡' * bool(kept_because(results, method, labels))}"
    folds = pd.Series([b - a for a, b in zip(then, today, strict=True)]).groupby([fold for fold, _ in both]).mean()
    evidence = corrected_t_test(folds.to_numpy(dtype=float))
    differing = dict.fromkeys(what for key in both for what in _differing(before[key], now[key]))
    return [
        ", ".join(differing) or "nothing recorded",
        Number(f"{100 * mean_then:.2f}", {"": 100 * mean_then}),
        Number(f"{100 * mean_now:.2f}{marks}", {"": 100 * mean_now}),
        Number(f"{100 * (mean_now - mean_then):+.2f}", {"": 100 * (mean_now - mean_then)}),
        interval(evidence),
        probability(evidence.p),
        len(both),
        sum(round(a, 6) == round(b, 6) for a, b in zip(then, today, strict=True)),
        *counts,
    ]


def _differing(before: Run, now: Run) -> list[str]:
    """What both runs record, and record differently."""
    then, today = before.record, now.record
    found = [what for what, of in PARTS.items() if of(then) and of(today) and of(then) != of(today)]
    flat_then, flat_today = _settings(then), _settings(today)
    known = flat_then.keys() & flat_today.keys()
    return [*found, *sorted(key for key in known if flat_then[key] != flat_today[key])]


def _settings(record: dict[str, Any]) -> dict[str, Any]:
    """What a run was asked, one level deep."""
    spec = record["spec"]
    flat = {key: spec[key] for key in ("network", "weights", "implementation") if key in spec}
    return flat | (spec.get("config") or {}) | (spec.get("training") or {})
