"""One run, one folder: train, evaluate, and leave a record that says how."""

import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from semiseg.errors import UserError
from semiseg.registry import find_methods
from semiseg.settings import RunSpec, StartSpec
from semiseg.start import Start
from semiseg.tasks import task_kind
from semiseg.training import failures
from semiseg.training.assembly import build_trainer, identity_of, partition_for
from semiseg.training.checkpoint import discard
from semiseg.training.checksums import WEIGHTS, checksums, damage
from semiseg.training.curve import Diverged
from semiseg.training.energy import Meter
from semiseg.training.environment import (
    environment,
    forget_peak_memory,
    git_commit,
    keep_freed_memory,
    peak_memory,
    release_memory,
)
from semiseg.training.files import read_record, save_tensors, write_json, write_rows
from semiseg.training.identity import made
from semiseg.training.lease import Held, Lease, Lost, bury, claim, holder
from semiseg.training.places import Places
from semiseg.training.precision import with_precision
from semiseg.training.results import (
    SELECTION,
    count_parameters,
    describe_data,
    describe_method,
    forget_results,
    mean_metrics,
    write_results,
)
from semiseg.training.selection import evaluate_selected
from semiseg.training.stopping import Stop, never
from semiseg.training.trainer import Stopped, Trainer

Record = dict[str, Any]  # what run.json holds


def execute(spec: RunSpec, places: Places, device: torch.device, stop: Stop = never, concurrency: int = 1) -> Record:
    """Carry out a run, or resume it, and return its record. A failure is recorded with its reason, not raised.

    The status is "finished", "failed", "left" (stopped as asked, with a checkpoint), or "held" by somebody else.

    Args:
        stop: asked after every step.
        concurrency: how many runs share the device, on which its seconds depend.
    """
    folder = places.results / spec.folder
    record: Record = {"spec": spec.model_dump(mode="json"), "status": "running", "reason": ""}
    keep_freed_memory()
    try:
        spec = _in_effect(spec, device)
        record |= {
            "spec": spec.model_dump(mode="json"),
            "environment": environment(device) | {"concurrency": concurrency},
            "git_commit": git_commit(),
        }
        with claim(folder, str(device)) as lease:
            return _Attempt(spec, places, device, folder, lease, stop, record).carry_out()
    except (Held, Lost) as other:
        return record | {"status": "held", "reason": str(other)}
    except Exception as error:  # nothing can be written there, not even this reason
        return record | {"status": "failed", "reason": failures.reason(error)}


def _in_effect(spec: RunSpec, device: torch.device) -> RunSpec:
    """The specification with the precision that the device makes of `auto`."""
    start = spec.start and _in_effect(spec.start, device)
    return spec.model_copy(update={"training": with_precision(spec.training, device.type), "start": start})


def earlier_record(folder: Path) -> Record:
    """What an earlier attempt left; nothing if its record is damaged, since the run is carried out again then."""
    try:
        return read_record(folder)
    except UserError:
        return {}


def record_failure(spec: RunSpec, places: Places, reason: str) -> Record:
    """Keep with a run why whoever carried it out could not, unless it is done or somebody else goes on with it."""
    folder = places.results / spec.folder
    record: Record = {"spec": spec.model_dump(mode="json")}
    try:
        bury(folder)
        with claim(folder):
            record |= earlier_record(folder)
            if record.get("status") != "finished":
                record |= {"status": "failed", "reason": reason}
                write_json(folder / "run.json", record)
            return record
    except Held as held:
        return record | {"status": "held", "reason": str(held)}
    except OSError as error:
        return record | {"status": "failed", "reason": f"{reason} ({failures.reason(error)})"}


@dataclass
class _Attempt:
    """One attempt at a run by whoever holds its lease."""

    spec: RunSpec
    places: Places
    device: torch.device
    folder: Path
    lease: Lease
    stop: Stop
    record: Record
    notes: list[str] = field(default_factory=list)  # what the user should know, one line each
    began: float = field(default_factory=time.perf_counter)
    meter: Meter = field(default_factory=Meter)

    def carry_out(self) -> Record:
        """Do it, and keep the record of what came of it."""
        try:
            if earlier := self._prepare():
                return earlier
            self._train_and_evaluate()
        except Stopped as stopped:
            self.record |= {"status": "left", "reason": str(stopped)}
        except (Held, Lost):
            raise
        except Exception as error:
            self._fail(error)
        self.lease.demand()
        if "identity" in self.record or earlier_record(self.folder).get("status") != "finished":
            write_json(self.folder / "run.json", self.record)  # what failed before it began replaces no result
        if self.record["status"] == "finished":
            discard(self.folder)
        return self.record

    def _prepare(self) -> Record:
        """Find out what the run is, and begin its record; returns an earlier one that nothing may be added to."""
        spec, places = self.spec, self.places
        self.dataset = places.dataset(spec.dataset)
        splits = places.splits_of(self.dataset, spec.protocol, spec.repeat + 1)
        found = find_methods(places.methods_dir)
        self.method_class = found.plugin(spec)
        self.partition = partition_for(self.method_class, splits, spec, self.dataset)
        self.identity = identity_of(spec, found, (self.dataset, splits))
        earlier = earlier_record(self.folder)
        if earlier.get("status") == "finished":
            if what := damage(self.folder, earlier):
                self.notes.append(f"carried out again, because {what}")
            elif reasons := self.identity.differences(earlier.get("identity", {})):
                return self.record | {"status": "stale", "reason": made(reasons)}  # it was finished meanwhile
            else:
                return earlier
        forget_results(self.folder)
        self.record |= {
            "identity": self.identity.record(),
            "data": describe_data(self.dataset, splits.hash(spec.fold), self.partition),
            "method": describe_method(self.method_class),
        }
        write_json(self.folder / "run.json", self.record)
        return {}

    def _start(self) -> Path | None:
        """The weights that the run starts from, learned now unless somebody has."""
        spec = self.spec.start
        if spec is None:
            return None
        folder = self.places.results / spec.folder
        record = earlier_record(folder)
        finished = record.get("status") == "finished" and not damage(folder, record)
        if not finished or record["identity"]["hash"] != self.identity.start:
            if finished:  # of another identity, and so are all runs that started from it
                with claim(folder):
                    if earlier_record(folder) == record:  # nobody has repeated it meanwhile
                        write_json(folder / "run.json", record | {"status": "left"})
            concurrency = self.record["environment"]["concurrency"]
            record = execute(spec, self.places, self.device, self.stop, concurrency)
        match record["status"]:
            case "held":
                raise Held(holder(folder), "its start is held")
            case "left":
                raise Stopped(f"its start was {record['reason']}")
            case "failed":
                raise UserError(f"its start {spec.folder} failed: {record['reason']}")
        self.record["start"] = {key: record[key] for key in ("seconds", "git_commit")} | {"folder": str(spec.folder)}
        return folder / WEIGHTS

    def _train_and_evaluate(self) -> None:
        start = self._start()
        forget_peak_memory(self.device)
        trainer = self._train(start)
        method, replay = trainer.method, trainer.replay
        self.lease.demand()
        is_start = isinstance(self.spec, StartSpec)
        weights = cast(Start, method).handed_on() if is_start else method.state_dict()
        save_tensors(self.folder / WEIGHTS, weights, {"method": self.spec.implementation})
        metrics, began = {}, time.perf_counter()
        if not is_start:
            self.record["method"]["parameters"] = count_parameters(method, trainer.learned)
            where = self.dataset, self.partition.test, self.device, self.spec.training.precision
            kind = task_kind(self.dataset.info.task)
            result = kind.evaluate(method, *where)
            if selection := trainer.selection:
                result.predictors += evaluate_selected(method, selection.best, *where)
                self.record["selection"] = selection.chosen()
                self.record["selection_seconds"] = round(trainer.selection_seconds, 2)  # no part of `seconds`
            self.lease.demand()
            write_results(self.folder, result)
            if selection:
                write_rows(self.folder / SELECTION, selection.rows)
            metrics = mean_metrics(result.cases, kind)
        self.record |= {
            "status": "finished",
            "warnings": [*self.notes, *method.concerns()],
            "seconds": round(trainer.seconds, 2),  # of training, in all attempts
            "evaluation_seconds": round(time.perf_counter() - began, 2),
            "attempt_seconds": round(time.perf_counter() - self.began, 2),  # of this one, evaluation included
            "attempt_joules": self.meter.joules,  # of all processors, likewise; None where they cannot be read
            "images_per_second": round(trainer.images_per_second, 1),
            "replayed": replay and {"steps": replay.replayed, "refused": replay.refused},  # of this attempt, on a GPU
            "peak_memory_mb": peak_memory(self.device),
            "metrics": metrics,
            "checksums": checksums(self.folder),
        }

    def _train(self, start: Path | None) -> Trainer:
        """Train to the end; short of memory, a method that allows it goes on with half of the images at a time."""
        trainer = self._trainer(1, start)
        try:
            trainer.fit()
            return trainer
        except Exception as error:
            training = self.spec.training
            halves = training.labeled_batch % 2 == 0 and training.unlabeled_batch % 2 == 0
            if not (failures.out_of_memory(error) and self.method_class.divisible and halves):
                raise
        self.notes.append("out of memory: the images of a step were learned from in two halves")
        del trainer
        release_memory(self.device)
        trainer = self._trainer(2, start)
        trainer.fit()
        return trainer

    def _trainer(self, micro_batches: int, start: Path | None) -> Trainer:
        trainer = build_trainer(
            self.method_class, self.spec, self.dataset, self.partition, self.device, self.folder, start
        )
        self.notes += [note for note in trainer.data.notes if note not in self.notes]
        trainer.identity, trainer.micro_batches, trainer.notes = self.identity, micro_batches, self.notes
        trainer.environment = self.record["environment"]
        trainer.report, trainer.stop = _Pace(self.lease, trainer.data.batch_size, self.meter), self.stop
        trainer.guard = self.lease.demand
        self.record["method"]["networks"] = trainer.method.networks  # settings may change the number
        return trainer

    def _fail(self, error: Exception) -> None:
        reason = failures.reason(error)
        if not failures.is_understood(error):
            with suppress(OSError):
                (self.folder / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
                reason += f" (see {self.folder / 'traceback.txt'})"
        diverged = isinstance(error, Diverged)  # what else fails is no fault of the settings
        self.record |= {"status": "failed", "reason": reason, "diverged": diverged, "warnings": self.notes}


class _Pace:
    """Tells with every heartbeat how far a training is, how fast it goes, and how long it will take."""

    def __init__(self, lease: Lease, images: int, meter: Meter) -> None:
        self.lease, self.images, self.meter = lease, images, meter  # images of a step
        self.first, self.began = 0, 0.0

    def __call__(self, step: int, steps: int, loss: float | None) -> None:
        now = time.monotonic()
        if step % 100 == 0:
            self.meter.read()
        if not self.began:
            self.first, self.began = step, now
        self.lease.show(step=step, steps=steps, loss=loss)
        if step > self.first:
            pace = (now - self.began) / (step - self.first)
            self.lease.show(
                images_per_second=round(self.images / pace, 1), seconds_left=round(pace * (steps - step), 1)
            )
