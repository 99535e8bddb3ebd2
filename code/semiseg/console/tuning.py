"""`semiseg tune`: equal trials for every method, carried out like any benchmark, and the file of chosen settings."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from semiseg.benchmarks.expansion import Selection, expand, resolve
from semiseg.benchmarks.state import survey
from semiseg.benchmarks.tuning import FACTORS, Outcome, Trial, benchmark_of, choose, draw_all, outcomes, record
from semiseg.console.running import End, Stale, finish
from semiseg.console.terminal import console, print_lines
from semiseg.errors import UserError
from semiseg.executors import Executor
from semiseg.method import Method
from semiseg.registry import find_methods
from semiseg.settings import BenchmarkSettings, tuned_methods
from semiseg.training.places import Places
from semiseg.training.run import earlier_record

INNER_FOLDS = (0, 1)  # where neither the file nor the command names others


def tune(
    settings: BenchmarkSettings,
    places: Places,
    number: int,
    methods: tuple[str, ...],
    executor: Executor,
    stale: Stale,
    file: Path,
    command: str,
) -> int:
    """Carry out what is left of the trials, write what was chosen, and return how many methods lack a choice.

    Args:
        methods: whose trials are carried out now; those of all others count, too, as far as they are there.
        command: for the file, so that its readers can repeat it.
    """
    if settings.tuned:
        raise UserError(f"benchmark {settings.name}: has tuned settings already; tune one without the key `tuned`.")
    _chosen_before(file)  # a damaged one is refused while nothing is trained yet
    found = find_methods(places.methods_dir)
    settings = resolve(settings, found, methods)
    settings = settings.model_copy(update={"inner_folds": settings.inner_folds or INNER_FOLDS})
    trials = draw_all(settings, found, number)
    _say_what_is_tried(settings, trials, found, number)
    everything = benchmark_of(settings, [trial for tried in trials.values() for trial in tried])
    selection = Selection(methods=tuple(trial.name for name in methods for trial in trials[name]))
    end = finish(everything, places, selection, executor, stale, failed="unless diverged")
    if end is None:
        return 0
    standings = survey(expand(end.settings, found), places, found, end.data)
    results = {name: outcomes(tried, standings) for name, tried in trials.items()}
    written = {name: tried for name, tried in results.items() if choose(tried)}
    forgotten = [name for name in _chosen_before(file) if name not in written]
    if written and not forgotten:
        trained = {one.trial.name for tried in written.values() for one in tried}
        records = [earlier_record(run.folder) for run in standings if run.spec.method in trained]
        commits = sorted({commit for one in records if (commit := one.get("git_commit"))})
        _write(file, {"command": command, "commits": commits}, end, written)
    asked = {name: tried for name, tried in results.items() if not methods or name in methods}
    for tried in asked.values():
        _show(tried)
    if forgotten:
        lost = ", ".join(forgotten)
        line = f"{file}: left as it is, or {lost} would be lost, whose {number} trials are not done."
        console.print(line, style="red", highlight=False, soft_wrap=True)
    elif written:
        console.print(f"Chosen: {file} ({len(written)} of {len(results)} methods)", highlight=False, soft_wrap=True)
    missing = [name for name in asked if name not in written]
    for name in missing:
        _say_what_is_missing(name, results[name], places)
    return len({*missing, *forgotten})


def _chosen_before(file: Path) -> list[str]:
    """The methods that a file has settings for."""
    return tuned_methods(file) if file.exists() else []


def _say_what_is_tried(
    settings: BenchmarkSettings, trials: Mapping[str, Sequence[Trial]], found: Mapping[str, type[Method]], number: int
) -> None:
    rates = " and ".join(key.replace("_", " ") for key in FACTORS)
    for name, variant in settings.variants().items():
        lines = []
        if not found[variant.implementation].space:
            lines.append(f"{name}: no search space of its own; {rates} alone are tuned.")
        if len(trials[name]) < number:
            lines.append(f"{name}: its space holds {len(trials[name])} settings; all of them are tried.")
        for line in lines:
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def _say_what_is_missing(name: str, results: Sequence[Outcome], places: Places) -> None:
    left = sum(bool(result.missing) for result in results)
    what = f"{left} of {len(results)} trials are not done" if left else "all trials have failed"
    line = f"{name}: {what}; `semiseg status {places.results}` says why."
    console.print(line, style="red", highlight=False, soft_wrap=True)


def _show(results: Sequence[Outcome]) -> None:
    """A line for every trial of a method."""
    best = choose(results)
    rows = [
        {
            "trial": one.trial.name,
            **{key: str(value) for key, value in one.trial.settings.items()},
            "Dice on inner folds": " ".join(f"{100 * dice:.2f}" for dice in one.dice.values()),
            "mean": "" if one.mean is None else f"{100 * one.mean:.2f}",
            "outcome": "chosen" if one is best else "; ".join({**one.failed, **one.missing}.values()),
        }
        for one in results
    ]
    print_lines(rows, tuple(rows[0]))


def _write(file: Path, origin: dict[str, Any], end: End, results: Mapping[str, Sequence[Outcome]]) -> None:
    """Write the settings that were chosen, with all trials, in an order that does not change."""
    dataset, splits = end.data
    content = origin | {
        "dataset": dataset.info.name,
        "data_hash": dataset.hash,
        "split_hashes": sorted({splits.hash(fold) for fold in end.settings.folds}),
        "network": end.settings.network,
        "weights": end.settings.weights,
        "training": end.settings.training.model_dump(mode="json"),
        **record(results),
    }
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, allow_unicode=True, width=120)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    partial.write_text(HEADER.format(name=file.stem) + text, encoding="utf-8")
    partial.replace(file)


HEADER = """\
# Written by `semiseg tune`: the same number of trials for every method, on inner folds of training cases.
# `tuned: {name}` in a benchmark file of the folder above gives its methods what stands here under `methods`.
# Trial 0 has the published settings; the best mean Dice was chosen, and the first one of equals.
"""
