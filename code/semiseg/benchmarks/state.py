"""How far each run of a benchmark has come, and whether what is there was made as it would be made today."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from semiseg.data.splits import Splits
from semiseg.data.store import Dataset
from semiseg.errors import UserError
from semiseg.registry import Methods
from semiseg.settings import BenchmarkSettings, RunSpec
from semiseg.training.assembly import identity_of
from semiseg.training.checkpoint import NAME as CHECKPOINT
from semiseg.training.checkpoint import belongs_to, was_set_aside
from semiseg.training.checksums import damage
from semiseg.training.files import write_json
from semiseg.training.identity import Identity, made
from semiseg.training.lease import Held, Holder, claim, holder
from semiseg.training.places import Places
from semiseg.training.run import earlier_record

Status = Literal["finished", "stale", "running", "failed", "left"]
STATUSES: tuple[Status, ...] = ("finished", "stale", "running", "failed", "left")


@dataclass(frozen=True)
class Standing:
    """A run as its folder shows it."""

    spec: RunSpec
    folder: Path
    identity: Identity  # that it would have if it were carried out now
    status: Status
    reason: str = ""
    holder: Holder | None = None  # who carries it out
    seconds: float | None = None  # that its training took, and what compared its weights
    diverged: bool = False  # failed, and would fail again
    otherwise: str = ""  # in what the run that somebody carries out differs from this one


def survey(
    specs: Sequence[RunSpec], places: Places, found: Methods, data: tuple[Dataset, Splits] | None
) -> list[Standing]:
    """The standing of every run; without data, what depends on them is not compared."""
    return [standing(spec, identity_of(spec, found, data), places.results / spec.folder) for spec in specs]


def strays(
    settings: BenchmarkSettings,
    specs: Iterable[RunSpec],
    places: Places,
    found: Methods,
    data: tuple[Dataset, Splits] | None,
) -> list[Standing]:
    """Runs that lie in the same folder, and so stand in the same tables, but are none of these.

    They are finished, or somebody carries them out otherwise than this benchmark would.

    They are judged by what the benchmark now says of their method, or, if it does not name it, of all its runs: data,
    network, weights and training.
    """
    common = {key: getattr(settings, key) for key in ("dataset", "network", "weights", "protocol")}
    known = {places.results / spec.folder: spec for spec in specs}
    same_method = {spec.method: spec for spec in known.values()}

    def today(spec: RunSpec) -> RunSpec:
        if like := same_method.get(spec.method):
            own = {key: getattr(like, key) for key in ("implementation", "config", "training", "start")}
        else:  # its entry may have had a learning rate of its own, which tables tell
            rates = {key: getattr(spec.training, key) for key in settings.own_training}
            own = {"training": settings.training.model_copy(update=rates)}
        return spec.model_copy(update=common | own)

    result = []
    for path in sorted(places.results.glob("runs/*/*/*/*/run.json")):
        if path.parent in known:
            continue
        record = earlier_record(path.parent)
        if record.get("status") not in ("finished", "running"):
            continue
        try:
            spec = today(RunSpec.model_validate(record["spec"]))
            if path.parent != places.results / spec.folder:
                continue  # a copy, which no table reads
            run = standing(spec, identity_of(spec, found, data), path.parent)
        except (KeyError, ValueError):
            continue  # of an older kind; the report judges whether it can be read
        except UserError as error:  # its method has other settings today
            run = _unmakeable(spec, path.parent, record, f"cannot be made any more: {error}")
        if run.otherwise or record["status"] == "finished":
            result.append(run)
    return result


def _unmakeable(spec: RunSpec, folder: Path, record: dict[str, Any], reason: str) -> Standing:
    """The standing of a run whose identity of today nobody can tell."""
    held = holder(folder)
    if record["status"] == "running":
        return Standing(spec, folder, Identity({}), "running", str(held), held, otherwise=reason if held else "")
    if _kept_as(record, Identity({})):
        return Standing(spec, folder, Identity({}), "finished")
    return Standing(spec, folder, Identity({}), "stale", reason)


def seconds_taken(record: dict[str, Any]) -> float | None:
    """How long a finished run has kept others waiting, but for its test; None if it does not tell."""
    seconds = record.get("seconds")
    return None if seconds is None else float(seconds) + float(record.get("selection_seconds") or 0)


def standing(spec: RunSpec, identity: Identity, folder: Path) -> Standing:
    """The standing of a run in its folder."""

    def stands(status: Status, reason: str = "") -> Standing:
        return Standing(spec, folder, identity, status, reason, held, seconds_taken(record), diverged, otherwise)

    record = earlier_record(folder)
    diverged = bool(record.get("diverged")) and not identity.differences(record.get("identity", {}))
    held, otherwise = holder(folder) if folder.exists() else None, ""
    if held:
        if record.get("status") == "running" and (its := record.get("identity")):  # written as soon as it begins
            otherwise = made(identity.differences(its))
        return stands("running", str(held))
    match record.get("status"):
        case "finished":
            if what := damage(folder, record):
                return stands("left", f"will be carried out again, because {what}")
            reasons = identity.differences(record.get("identity", {}))
            if not reasons or _kept_as(record, identity):
                return stands("finished")
            return stands("stale", made(reasons))
        case "failed":
            return stands("failed", record.get("reason", ""))
        case None if not (folder / "run.json").exists():
            return stands("left")
        case None:
            return stands("left", "run.json is damaged; the run will be carried out again")
    if was_set_aside(folder, identity.hash):
        return stands("left", "interrupted, will resume")
    if not (folder / CHECKPOINT).exists():
        return stands("left", record.get("reason") or "interrupted, will begin anew")
    other = identity.differences(belonging) if (belonging := belongs_to(folder)) else []
    return stands("left", f"interrupted, will begin anew, {made(other)}" if other else "interrupted, will resume")


def _kept_as(record: dict[str, Any], identity: Identity) -> bool:
    """Whether somebody let a stale run count as one of this identity."""
    return "kept" in record and not identity.differences(record["kept"]["as"])


def keep(standings: Iterable[Standing]) -> None:
    """Let stale runs count as finished, as what they would be made as now; tables mark them."""
    for run in standings:
        _amend(run, {"kept": {"because": run.reason, "as": run.identity.record()}})


def give_up(standings: Iterable[Standing]) -> None:
    """Let stale runs count as left, so that whoever carries them out may replace them."""
    for run in standings:
        _amend(run, {"status": "left", "reason": f"to be repeated, since it was {run.reason}"})


def _amend(run: Standing, changes: dict[str, Any]) -> None:
    """Change the record of a stale run, unless somebody else has taken it up since."""
    with suppress(Held), claim(run.folder):
        record = earlier_record(run.folder)
        if record.get("status") == "finished" and run.identity.differences(record.get("identity", {})):
            write_json(run.folder / "run.json", record | changes)
