"""The one training loop: every method, 2D and 3D. It knows no method by name."""

import csv
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Generator, Tensor
from torch.utils.tensorboard import SummaryWriter

from semiseg.data.sampling import TrainingSet
from semiseg.errors import UserError
from semiseg.method import Batch, Method, MovingAverage, Progress, predict
from semiseg.seeding import derive_seed
from semiseg.settings import TrainingSettings
from semiseg.training.files import save_tensors
from semiseg.training.optimization import Optimization
from semiseg.training.precision import autocast, place
from semiseg.views import view, warp

Report = Callable[[int, int, float], None]  # step, steps, loss


class Diverged(Exception):
    """The loss is no longer a number."""


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
    report: Report = lambda step, steps, loss: None

    def fit(self) -> None:
        """Train to the end; `seconds` and `images_per_second` then say how fast it went."""
        settings, total = self.settings, self.settings.steps
        place(self.method, self.method.task.dims, self.device)
        self.optimization = Optimization(self.method, settings)
        self.averages = [m for m in self.method.modules() if isinstance(m, MovingAverage)]
        self.generator = Generator(self.device)
        self.seconds = 0.0
        self.curve: list[dict[str, float]] = []
        start = self._resume()
        self.began = time.perf_counter() - self.seconds
        logged_at, logged_step = time.perf_counter(), start
        self.method.train()
        with SummaryWriter(str(self.folder), purge_step=start) as writer:
            for step in range(start, total):
                progress = Progress(step, total)
                losses, batch = self.step(progress)
                if progress.every(settings.log_every) or step + 1 == total:
                    values = self._fetch(losses, step)  # the only place that waits for the device
                    now = time.perf_counter()
                    speed = (step + 1 - logged_step) * self.batch_size / (now - logged_at)
                    logged_at, logged_step = now, step + 1
                    self._log(writer, step, {"images_per_second": speed, **values})
                    self.report(step + 1, total, values["loss"])
                if progress.every(max(1, total // 4)):
                    self._show(writer, step, batch)
                if progress.every(settings.checkpoint_every) and step + 1 < total:
                    self._save_checkpoint(step + 1)
        self._save_curve()
        self.seconds = time.perf_counter() - self.began
        self.images_per_second = total * self.batch_size / self.seconds

    def step(self, progress: Progress) -> tuple[dict[str, Tensor], Batch]:
        """One optimiser step, and one of the adversaries if there are any."""
        batch = self.batch(progress.step)
        self.optimization.schedule(progress)
        torch.manual_seed(derive_seed(self.seed, "step", progress.step))
        with self._autocast():
            losses = self.method.losses(batch, progress)
        self.optimization.step(losses)
        for average in self.averages:
            average.update(progress.step)
        if self.optimization.adversaries:
            with self.optimization.adversaries_turn():
                with self._autocast():
                    adversarial = self.method.adversary_losses(batch, progress)
                self.optimization.adversarial_step(adversarial)
            for name, loss in adversarial.items():
                self.method.note(name, loss)
        self.method.after_step(progress)
        return losses, batch

    def _autocast(self) -> AbstractContextManager[None]:
        return autocast(self.settings.precision, self.device, self.method.task.dims)

    def batch(self, step: int) -> Batch:
        """The images of a step in the views that the method declares.

        Labelled and unlabelled images have random numbers of their own, so that the labelled ones look the same
        whether unlabelled ones come with them or not.
        """
        raw, labels = self.data.batch(step)
        self.batch_size, count = len(raw), len(labels)
        images = raw.float() / 255 if raw.dtype == torch.uint8 else raw.float()
        labeled, labels = self._views("labeled", step, images[:count], labels)
        unlabeled, _ = self._views("unlabeled", step, images[count:], labels[:0])
        return Batch({name: torch.cat([labeled[name], unlabeled[name]]) for name in labeled}, labels)

    def _views(self, part: str, step: int, images: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Warp images once, with their labels, then show them in every view."""
        names = list(self.method.views)
        if not len(images):
            return dict.fromkeys(names, images), labels
        self.generator.manual_seed(derive_seed(self.seed, part, "geometry", step))
        images, labels = warp(images, labels, self.generator, self.settings.turns)
        views = {}
        for name in names:
            # In plain layout: convolutions follow their weights anyway, and drawing noise like a channels-last tensor
            # takes a CPU six times as long (2.5 against 0.4 ms for 4 × 3 × 64 × 64, one thread).
            self.generator.manual_seed(derive_seed(self.seed, part, name, step))
            views[name] = view(images, name, self.generator)
        return views, labels

    def _fetch(self, losses: dict[str, Tensor], step: int) -> dict[str, float]:
        named: dict[str, Tensor | float] = {**losses, **self.method.noted}
        stacked = torch.stack([torch.as_tensor(v, dtype=torch.float32, device=self.device) for v in named.values()])
        values = dict(zip(named, stacked.tolist(), strict=True))
        values["loss"] = sum(values[k] for k in losses)
        if not abs(values["loss"]) < float("inf"):
            bad = [k for k in losses if not abs(values[k]) < float("inf")]
            raise Diverged(f"the loss {', '.join(bad)} is no longer finite at step {step + 1}; lower the learning rate")
        return values

    def _log(self, writer: SummaryWriter, step: int, values: dict[str, float]) -> None:
        row = {"step": step + 1, "learning_rate": self.optimization.learning_rate, **values}
        self.curve.append(row)
        for name, value in list(row.items())[1:]:
            writer.add_scalar(name, value, step + 1)

    def _show(self, writer: SummaryWriter, step: int, batch: Batch) -> None:
        """A few training images with what the reported predictor makes of them, one above the other."""
        images = batch.images(self.method.views[0])[-4:]
        with self._autocast():
            logits = predict(next(iter(self.method.predictors().values())), images).logits
        mask = logits.argmax(1, keepdim=True).float() / (logits.shape[1] - 1)
        if images.ndim == 5:
            images, mask = images[:, :, images.shape[2] // 2], mask[:, :, mask.shape[2] // 2]
        columns = torch.cat([images, mask.expand_as(images)], 2)
        writer.add_images("prediction", columns.float().cpu(), step + 1)

    def _save_checkpoint(self, step: int) -> None:
        state = {f"method.{k}": v for k, v in self.method.state_dict().items()}
        state |= {f"optimizer.{k}": v for k, v in self.optimization.state_dict().items()}
        self._save_curve()
        save_tensors(
            self.folder / "checkpoint.safetensors",
            state,
            {"step": str(step), "seconds": str(time.perf_counter() - self.began)},
        )

    def _resume(self) -> int:
        """Load the last checkpoint if there is one, and return the step to go on with."""
        path = self.folder / "checkpoint.safetensors"
        if not path.exists():
            return 0
        try:
            with safe_open(str(path), "pt", device=str(self.device)) as file:
                step, self.seconds = int(file.metadata()["step"]), float(file.metadata()["seconds"])
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise UserError(f"{path}: damaged ({error}); delete it to begin the run anew.") from error
        for part, target in (("method.", self.method), ("optimizer.", self.optimization)):
            target.load_state_dict({k.removeprefix(part): v for k, v in state.items() if k.startswith(part)})
        with (self.folder / "curve.csv").open(encoding="utf-8") as rows:
            for row in csv.DictReader(rows):
                if int(row["step"]) <= step:
                    self.curve.append({k: float(v) if k != "step" else int(v) for k, v in row.items() if v})
        return step

    def _save_curve(self) -> None:
        columns = list(dict.fromkeys(key for row in self.curve for key in row))
        partial = self.folder / "curve.csv.partial"
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.curve)
        partial.replace(self.folder / "curve.csv")
