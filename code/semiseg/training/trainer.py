"""The one training loop: every method, 2D and 3D. It knows no method by name."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from semiseg.method import Batch, Ensemble, Method, MovingAverage, Progress, Stream
from semiseg.seeding import derive_seed
from semiseg.settings import TrainingSettings
from semiseg.tasks import task_kind
from semiseg.training.checkpoint import Checkpoint, load_checkpoint, set_aside, take_up, was_set_aside
from semiseg.training.curve import Curve
from semiseg.training.identity import Identity
from semiseg.training.optimization import Optimization, require_losses
from semiseg.training.plan import Plan
from semiseg.training.precision import autocast, place
from semiseg.training.replay import CudaGraph, Replay
from semiseg.training.sampling import TrainingSet
from semiseg.training.selection import Selection
from semiseg.training.showing import Showing
from semiseg.training.stopping import Stop, never

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Report = Callable[[int, int, float | None], None]  # step, steps, the last loss that was looked at
STATISTICS_BATCHES = 20  # over which a moving average's batch statistics are taken
CHECKPOINT_SECONDS = 120.0  # a checkpoint is never older than this and a step


class Stopped(Exception):
    """Somebody asked the training to stop; a checkpoint was written."""


TOLD = ("engine", "torch", "device")  # of the environment, where a run goes on in another


@dataclass
class Trainer:
    """Trains a method on a training set and leaves weights, curves and events in a folder.

    All randomness of step t follows from (seed, t) alone. So a run that is stopped and resumed from its last
    checkpoint ends with the weights of a run that was never stopped (to the bit on a CPU), and methods that learn
    from the same set of labels see the same labelled images, with the same geometry, at the same step.
    """

    method: Method
    data: TrainingSet
    settings: TrainingSettings
    seed: int
    device: torch.device
    folder: Path
    streams: dict[str, tuple[Stream, TrainingSet]] = field(default_factory=dict)  # of the method, with their images
    identity: Identity | None = None  # of the run; checkpoints of any other are not gone on with
    micro_batches: int = 1  # parts of a batch that are learned from one after the other, to save memory
    report: Report = lambda step, steps, loss: None
    stop: Stop = never
    selection: Selection | None = None  # rules that choose among the weights, and change nothing
    guard: Callable[[], None] = lambda: None  # raises if the folder is no longer this run's to write to
    notes: list[str] = field(default_factory=list)  # what a user should know, one line each
    environment: dict[str, Any] = field(default_factory=dict)  # in which this attempt is made

    def __post_init__(self) -> None:
        self.showing = Showing(self.method, self.data, self.settings, self.seed, self.device, self.streams)
        self.batch = self.showing.batch
        graphs = partial(CudaGraph, device=self.device, pool=[])
        self.replay = Replay(self._learn, self.showing, graphs) if self.device.type == "cuda" else None

    def fit(self) -> None:
        """Train to the end; `seconds`, without `selection_seconds`, and `images_per_second` say how fast it went."""
        settings, total = self.settings, self.settings.steps
        place(self.method, self.method.task.dims, self.device)
        self.plan = Plan(self.method.stages(), total, type(self.method).__name__)
        self.learning = [p for p in self.method.parameters() if p.requires_grad]  # in one stage or another
        self.averages = {m: self._since(m) for m in self.method.modules() if isinstance(m, MovingAverage)}
        self.seconds = self.selection_seconds = 0.0
        self.curve = Curve(self.folder)
        last_stage = self.plan.progress(total - 1).stage  # rules choose among its weights
        start = self._resume()
        if not start:
            self.curve.forget()
        from torch.utils.tensorboard import SummaryWriter  # takes 0.2 s, which who looks at runs need not wait for

        self.began = time.perf_counter() - self.seconds
        logged_at, logged_step, saved_at = time.perf_counter(), start, time.perf_counter()
        loss: float | None = None
        self.method.train()
        with SummaryWriter(str(self.folder), purge_step=start) as writer:
            for step in range(start, total):
                progress = self.plan.progress(step)
                if progress.step == 0:
                    self._begin(progress)
                losses = self.step(progress)
                number = step + 1  # counted through all stages
                if number % settings.log_every == 0 or number == total:
                    values = self._fetch(losses, step)  # besides a checkpoint, all that waits for the device
                    now, loss = time.perf_counter(), values["loss"]
                    speed = (number - logged_step) * self.data.batch_size / (now - logged_at)
                    logged_at, logged_step = now, number
                    rate = self.optimization.learning_rate
                    self.curve.add(writer, number, {"learning_rate": rate, "images_per_second": speed, **values})
                self.report(number, total, loss)
                if number % max(1, total // 4) == 0:
                    self._show(writer, step)
                every = self.selection.every if self.selection else 0
                if every and progress.stage == last_stage and (number % every == 0 or number == total):
                    took = self._consider(number)
                    logged_at += took
                stop, overdue = self.stop(), time.perf_counter() - saved_at > CHECKPOINT_SECONDS
                if stop or overdue or number % settings.checkpoint_every == 0 or number == total:
                    self._save_checkpoint(number)
                    saved_at = time.perf_counter()
                if stop and number < total:
                    raise Stopped(f"stopped after step {number}")
        predictors = self.method.predictors().values()
        self._settle([n for p in predictors for n in (p.networks if isinstance(p, Ensemble) else [p])], total)
        self.curve.save()
        self.seconds = time.perf_counter() - self.began
        self.images_per_second = total * self.data.batch_size / self.seconds

    def enter(self, stage: str) -> None:
        """Train what the stage trains, by optimizers without a memory."""
        chosen = self._trained_in(stage)
        for parameter in self.learning:
            parameter.requires_grad_(False)
        for parameter in chosen:
            parameter.requires_grad_(True)
        self.optimization = Optimization(self.method, self.settings, repeatable=self.replay is not None)
        if self.replay:
            self.replay.begin(self.optimization)

    @property
    def learned(self) -> set[nn.Parameter]:
        """What some stage that is not left out trains."""
        return {parameter for stage in self.plan.starts for parameter in self._trained_in(stage)}

    def _since(self, average: MovingAverage) -> int:
        """The step from which on what an average follows is trained."""
        followed = {*average.follow[0].parameters()}
        return next((start for stage, start in self.plan.starts.items() if followed & self._trained_in(stage)), 0)

    def _trained_in(self, stage: str) -> set[nn.Parameter]:
        trains = self.plan.stages[stage].trains
        every = {*self.learning}
        return every if trains is None else every & {p for module in trains for p in module.parameters()}

    def _begin(self, progress: Progress) -> None:
        """The first step of a stage is next."""
        stage = self.plan.stages[progress.stage]
        self.method.noted.clear()  # nobody notes what the last stage did any more
        torch.manual_seed(derive_seed(self.seed, "stage", stage.name))
        stage.begin()
        if progress.before:  # whoever follows begins where the stage begins
            for average in self.averages:
                average.restart()
        self.enter(stage.name)

    def step(self, progress: Progress) -> dict[str, Tensor]:
        """One optimiser step, and one of the adversaries if there are any; the losses, without gradient."""
        number = progress.before + progress.step
        shown: list[Batch] = []

        def launch() -> dict[str, Tensor]:
            self.showing.draws.begin(number)
            shown.append(self.batch(number))
            return self._learn(shown[0], progress)

        self.optimization.schedule(progress)
        losses = self.replay.step(number, progress, launch) if self.replay else launch()
        self.curve.keep(losses)
        for average, since in self.averages.items():
            if number >= since:
                average.update(number - since)
        if self.optimization.adversaries:
            with self.optimization.adversaries_turn():
                with self._autocast():
                    adversarial = self.method.adversary_losses(shown[0], progress)
                if adversarial:
                    self.optimization.adversarial_step(adversarial)
            for name, loss in adversarial.items():
                self.method.note(name, loss)
        self.method.after_step(progress)
        return losses

    def _consider(self, step: int) -> float:
        """Let the rules look at the reported network as it would be if the training ended here; returns the seconds.

        They are no seconds of the training.
        """
        assert self.selection is not None
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # what is still calculated is the training's
        began = time.perf_counter()
        network = next(iter(self.method.predictors().values()))
        kept = {key: value.clone() for key, value in network.state_dict().items()}
        self._settle([network], step)
        self.selection.consider(step, network)
        network.load_state_dict(kept)
        took = time.perf_counter() - began
        self.selection_seconds += took
        self.began += took
        return took

    def _settle(self, networks: Iterable[nn.Module], total: int) -> None:
        """Give every average that predicts the statistics of its own weights, on training images of the last steps.

        Other averages, of a projection head for instance, need not take images.
        """
        torch.manual_seed(derive_seed(self.seed, "statistics"))
        steps, name = range(max(0, total - STATISTICS_BATCHES), total), self.method.views[0]
        with self._autocast():
            for average in dict.fromkeys(n for n in networks if isinstance(n, MovingAverage)):
                average.take_statistics(self.batch(step).images(name) for step in steps)

    def _learn(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """One step of the optimizers; the losses, without gradient."""
        return self.optimization.step(self._losses(batch, progress), self.micro_batches)

    def losses(self, step: int, progress: Progress) -> dict[str, Tensor]:
        """What a step's batch would be learned from, with its graph."""
        return next(self._losses(self.batch(step), progress))

    def _losses(self, batch: Batch, progress: Progress) -> Iterator[dict[str, Tensor]]:
        """The losses of each part of a batch, calculated when they are asked for."""
        for number in range(self.micro_batches):
            part = batch if self.micro_batches == 1 else batch.part(number, self.micro_batches)
            with self._autocast():
                losses = self.plan.stages[progress.stage].losses(part, progress)
            require_losses(losses, type(self.method).__name__)
            yield losses

    def _autocast(self) -> AbstractContextManager[None]:
        return autocast(self.settings.precision, self.device, self.method.task.dims)

    def _fetch(self, losses: dict[str, Tensor], step: int) -> dict[str, float]:
        named: dict[str, Tensor | float] = {**losses, **self.method.noted}
        stacked = torch.stack([torch.as_tensor(v, dtype=torch.float32, device=self.device) for v in named.values()])
        values = dict(zip(named, stacked.tolist(), strict=True))
        self.curve.refuse_divergence(step)
        values["loss"] = sum(values[k] for k in losses)
        return values

    def _show(self, writer: "SummaryWriter", step: int) -> None:
        """A few training images with what the reported predictor makes of them, one above the other."""
        reported = next(iter(self.method.predictors().values()), None)
        if reported is None:
            return
        images = self.batch(step).images(self.method.views[0])[-4:]
        with self._autocast():
            picture = task_kind(self.method.learns or self.data.task).picture(reported, images)
        if picture is None:
            return
        if images.ndim == 5:
            images, picture = images[:, :, images.shape[2] // 2], picture[:, :, picture.shape[2] // 2]
        if images.shape[1] not in (1, 3):  # no colours
            images = images[:, :1]
        columns = torch.cat([images, picture.expand_as(images)], 2)
        writer.add_images("prediction", columns.float().cpu(), step + 1)

    def _save_checkpoint(self, step: int) -> None:
        self.curve.refuse_divergence(step - 1)  # what has gone astray is not gone on with
        self.guard()
        state = {f"method.{k}": v for k, v in self.method.state_dict().items()}
        state |= {f"optimizer.{k}": v for k, v in self.optimization.state_dict().items()}
        if self.selection:
            state |= {f"selected.{k}": v for k, v in self.selection.state_dict().items()}
        identity = self.identity.record() if self.identity else {}
        noted = {name: float(value) for name, value in self.method.noted.items()}
        seconds = time.perf_counter() - self.began
        Checkpoint(
            step, seconds, state, identity, self.curve.rows, noted, self.notes, self.micro_batches,
            self.selection.rows if self.selection else [], self.selection_seconds, self.environment,
        ).save(self.folder)  # fmt: skip
        self.curve.save()  # to look at meanwhile

    def _resume(self) -> int:
        """Load the last checkpoint if it belongs to this run, and return the step to go on with."""
        checkpoint = self._checkpoint()
        if checkpoint is None and self.identity and was_set_aside(self.folder, self.identity.hash):
            take_up(self.folder, self.identity.hash)
            self.notes.append("a checkpoint of this very run, which had been set aside, was gone on with")
            checkpoint = self._checkpoint()
        if checkpoint is None:
            return 0
        if not self._load(checkpoint.state, checkpoint.step):
            why = "the names or shapes of its weights no longer fit the method's"
            self.notes.append(set_aside(self.folder, "unfit", why))
            return 0
        if self.selection:
            selected = {
                k.removeprefix("selected."): v for k, v in checkpoint.state.items() if k.startswith("selected.")
            }
            self.selection.load(checkpoint.selection, selected)
        self.curve.rows, self.seconds = checkpoint.curve, checkpoint.seconds
        self.selection_seconds = checkpoint.selection_seconds
        self.method.noted |= checkpoint.noted
        self.micro_batches = max(self.micro_batches, checkpoint.micro_batches)
        self.notes += [note for note in checkpoint.notes if note not in self.notes]
        before, now = checkpoint.environment, self.environment
        if changed := [what for what in TOLD if {what} <= before.keys() & now.keys() and before[what] != now[what]]:
            told = ", ".join(f"{what} {str(before[what])[:12]}" for what in changed)
            self.notes.append(f"its first {checkpoint.step} steps were made with another {told}")
        return checkpoint.step

    def _checkpoint(self) -> Checkpoint | None:
        """The folder's checkpoint, if it is this run's; any other is set aside."""
        try:
            checkpoint = load_checkpoint(self.folder, self.device)
        except ValueError as error:
            self.notes.append(set_aside(self.folder, "damaged", f"it is damaged ({error})"))
            return None
        if checkpoint and self.identity and (reasons := self.identity.differences(checkpoint.identity)):
            kept_as = str(checkpoint.identity.get("hash", "unknown"))
            self.notes.append(set_aside(self.folder, kept_as, f"it was made with {', '.join(reasons)}"))
            return None
        return checkpoint

    def _load(self, state: dict[str, Tensor], step: int) -> bool:
        """Take over all weights and momenta, or none if they do not fit."""
        method, optimizer = (
            {k.removeprefix(part): v for k, v in state.items() if k.startswith(part)}
            for part in ("method.", "optimizer.")
        )
        own = self.method.state_dict()
        if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in method.items()}:
            return False
        progress = self.plan.progress(min(step, self.plan.total - 1))
        self.enter(progress.stage)
        try:
            if progress.step:  # a stage that is next begins without a memory
                self.optimization.load_state_dict(optimizer)
        except (IndexError, RuntimeError, ValueError):
            return False
        self.method.load_state_dict(method)
        return True
