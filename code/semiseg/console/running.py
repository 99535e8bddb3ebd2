"""Carrying out a benchmark: what is left of it is found out, handed to an executor, watched, and reported."""

import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import typer

from semiseg.benchmarks.expansion import Selection, expand, resolve, write_benchmark
from semiseg.benchmarks.order import expected_seconds, longest_first
from semiseg.benchmarks.readiness import check, drawn_from
from semiseg.benchmarks.state import Standing, give_up, keep, standing, strays, survey
from semiseg.console.preparing import ensure_dataset
from semiseg.console.terminal import console, show_left_out
from semiseg.console.watch import Watch
from semiseg.data.splits import Splits
from semiseg.data.store import Dataset
from semiseg.errors import UserError
from semiseg.executors import Executor
from semiseg.networks import require_network
from semiseg.registry import Methods, find_methods
from semiseg.settings import BenchmarkSettings, RunSpec
from semiseg.training.lease import holder
from semiseg.training.places import Places
from semiseg.training.precision import with_precision
from semiseg.training.run import earlier_record

Stale = Literal["refuse", "rerun", "keep"]
Failed = Literal["too", "only", "unless diverged"]  # which of the failed runs are carried out again
POLL = 2.0  # seconds between two looks at a run that another command holds
RETRY = 4.0  # seconds before such a run is handed out again, however free it looks


def carry_out(
    settings: BenchmarkSettings,
    places: Places,
    selection: Selection,
    executor: Executor,
    stale: Stale = "refuse",
    failed: Failed = "too",
) -> int:
    """Carry out what is left, report what there is, and return the number of runs that are missing."""
    end = finish(settings, places, selection, executor, stale, failed)
    if end is None:
        return 0
    if any(run.status == "finished" for run in end.standings) and (
        end.changed or not (places.results / "index.html").exists()
    ):
        with console.status("Writing tables, plots and page"):
            from semiseg.report import report  # draws with matplotlib, too slow for a command that need not

            report(places.results)
    return sum(run.status != "finished" for run in end.standings)


@dataclass(frozen=True)
class End:
    """How a benchmark stands once what was left of it has been carried out."""

    settings: BenchmarkSettings  # resolved, with the precision in effect
    data: tuple[Dataset, Splits]
    standings: list[Standing]  # of the runs that were asked for
    changed: bool  # something was carried out, or counts otherwise than before


def finish(
    settings: BenchmarkSettings,
    places: Places,
    selection: Selection,
    executor: Executor,
    stale: Stale = "refuse",
    failed: Failed = "too",
) -> End | None:
    """Carry out what is left; of a dry run, print it, make nothing, and return nothing."""
    if places.results.exists() and not places.results.is_dir():
        raise UserError(f"--out {places.results}: is a file; name a folder.")
    with console.status("Looking for methods"):
        found = find_methods(places.methods_dir)
    settings = resolve(settings, found, selection.methods)
    show_left_out(found)
    if settings.tuned and (untuned := settings.untuned()):
        line = f"tuned/{settings.tuned.name}.yaml has no settings for {', '.join(untuned)}: not tuned."
        console.print(line, highlight=False, soft_wrap=True)
    training = with_precision(settings.training, executor.device_type)
    settings = settings.model_copy(update={"training": training})
    runs, all_runs = expand(settings, found, selection), expand(settings, found)
    require_network(settings.network, len(training.size))
    needed = {settings.dataset: ""}
    for name, method in drawn_from(runs, found).items():
        needed.setdefault(name, f"{method} draws from {name}, too: ")
    there = [ensure_dataset(name, places.data, why, make=not executor.dry_run) for name, why in needed.items()]
    with console.status("Looking at data and earlier runs"):
        data = check(runs, found, places, settings.repeats, write=not executor.dry_run) if all(there) else None
        standings = survey(runs, places, found, data)
    asked = {spec.folder for spec in runs}
    others = [spec for spec in all_runs if spec.folder not in asked]
    beside = [
        *survey([s for s in others if (places.results / s.folder).exists()], places, found, data),
        *strays(settings, all_runs, places, found, data),
    ]
    if changed := _settle([*standings, *beside], asked, stale, executor.dry_run):
        standings = survey(runs, places, found, data)
    seconds = expected_seconds(runs, standings, found)
    wanted = {"failed"} if failed == "only" else {"left", "failed", "running"}
    if stale == "rerun":
        wanted.add("stale")
    hopeless = {run.spec.folder for run in standings if run.diverged and failed == "unless diverged"}
    by_folder = {run.spec.folder: run for run in standings}
    specs = [run.spec for run in standings if run.status in wanted and run.spec.folder not in hopeless]
    left = longest_first(specs, seconds, found)
    if executor.dry_run or data is None:
        for spec in left:
            print(spec.folder)
        print(f"{len(left)} of {len(runs)} runs", file=sys.stderr)
        for _ in executor.carry_out(left, places.absolute()):
            pass
        return None
    write_benchmark(settings, places.results)
    if left:
        with Watch(console, places.results, standings, left, found) as watch:
            try:
                _until_done([by_folder[spec.folder] for spec in left], executor, places, watch)
            except KeyboardInterrupt:
                print("semiseg: interrupted; the same command goes on from the last checkpoints.", file=sys.stderr)
                raise typer.Exit(130) from None
    now = _as_of_now(runs, places, found, data)
    for run in now:
        if run.status == "stale" and run.identity.code != by_folder[run.spec.folder].identity.code:
            console.print(
                f"{run.spec.folder}: its method was edited meanwhile; run the command again.", highlight=False
            )
    return End(settings, data, now, changed=bool(left) or changed)


def _as_of_now(runs: Sequence[RunSpec], places: Places, found: Methods, data: tuple[Dataset, Splits]) -> list[Standing]:
    """How runs stand by the methods as they are by now; if one takes no such settings any more, as they were."""
    try:
        return survey(runs, places, find_methods(places.methods_dir), data)
    except UserError as error:
        console.print(f"Edited meanwhile: {error}", highlight=False, markup=False, soft_wrap=True)
        return survey(runs, places, found, data)


def _until_done(left: Sequence[Standing], executor: Executor, places: Places, watch: Watch) -> None:
    """Hand out runs until all have ended, here or with whoever else holds them."""
    remaining = {run.spec.folder: run for run in left}
    waited_for: dict[Path, float] = {}  # since when

    def ended(spec: RunSpec, record: dict[str, Any]) -> None:
        watch.end(spec, record)
        del remaining[spec.folder]

    def wait(spec: RunSpec, reason: str) -> None:
        if spec.folder not in waited_for:
            watch.wait_for(spec, reason)
        waited_for[spec.folder] = time.monotonic()

    while remaining:
        free = []
        for run in list(remaining.values()):
            now = standing(run.spec, run.identity, run.folder)
            start = run.spec.start
            if now.status == "running":
                wait(run.spec, f"held by {now.reason}")
            elif start and (other := holder(places.results / start.folder)):
                wait(run.spec, f"its start is held by {other}")
            elif run.spec.folder in waited_for and now.status in ("finished", "failed"):
                ended(run.spec, earlier_record(run.folder))
            elif time.monotonic() - waited_for.get(run.spec.folder, -RETRY) >= RETRY:
                free.append(run.spec)
        if free:
            with closing(executor.carry_out(free, places.absolute())) as results:  # an interrupt ends it at once
                for spec, record in results:
                    if record["status"] == "held":
                        wait(spec, record["reason"])
                    else:
                        ended(spec, record)
        if remaining:
            time.sleep(POLL)


def _settle(standings: Sequence[Standing], asked: set[Path], stale: Stale, dry_run: bool) -> bool:
    """Stop before results are mixed that were not made alike, or do with them what the user says; whether it did."""
    if under_way := [run for run in standings if run.otherwise]:
        run = under_way[0]
        raise UserError(
            f"{run.folder}{_and_more(under_way)}: carried out by {run.holder} now, and {run.otherwise}; "
            "choose another --out, or end that command first."
        )
    found = [run for run in standings if run.status == "stale"]
    if stale == "keep":
        if not dry_run:
            keep(found)
        return bool(found)
    beyond = [run for run in found if run.spec.folder not in asked]
    if stale == "rerun" and not beyond:
        if not dry_run:
            give_up(found)
        return bool(found)
    if not found:
        return False
    if stale == "rerun":
        found, remedy = beyond, "ask for these runs, too, or choose another --out"
    elif found[0].spec.inner is not None:  # of `tune`, whose file would tell settings that kept trials did not have
        remedy = "choose another --out, or --rerun-stale to repeat them"
    else:
        remedy = (
            "choose another --out, --rerun-stale to repeat them, or --keep-stale to keep them, marked in every table"
        )
    raise UserError(f"{found[0].folder}{_and_more(found)}: {found[0].reason}; {remedy}.")


def _and_more(runs: Sequence[Standing]) -> str:
    return f" and {len(runs) - 1} more" if len(runs) > 1 else ""
