"""Mean Teacher: a student agrees with its own moving average."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from semiseg.losses import kl_consistency, mse_consistency, supervised_loss
from semiseg.method import Batch, Method, Paper, Progress


class MeanTeacher(Method):
    """The student learns from labels and stays consistent with a teacher that sees noisier images.

    The teacher predicts, as in the paper; the student is reported beside it. For the first thirtieth of the
    training there is no consistency, as in SSL4MIS in 2D, here in 3D, too; the ramp is below 1 % of its height then,
    unless it is shortened.

    The weight, its ramp and the decay are those of SSL4MIS, for 30,000 steps. The authors' for classification
    (CuriousAI/mean-teacher) are a weight of 100, full after the first 40,000 of 150,000 steps, and a decay of 0.99
    until then, 0.999 from then on.
    """

    title = "Mean Teacher"
    paper = Paper(
        "Mean teachers are better role models: Weight-averaged consistency targets improve semi-supervised "
        "deep learning results",
        "Tarvainen and Valpola",
        "NeurIPS 2017",
    )
    divisible = True
    space: ClassVar = {"consistency": (0.1, 1.0, 5.0, 10.0, 100.0), "ramp_up": (0.2, 0.4, 1.0)}

    class Config(Method.Config):
        ema_decay: float = Field(0.99, ge=0, lt=1)
        consistency: float = Field(0.1, ge=0)  # weight at full ramp
        ramp_up: float = Field(1.0, gt=0, le=1)  # fraction of the training after which the weight is full
        starts_at: float = Field(1 / 30, ge=0, le=1)  # fraction of the training without consistency
        noise: float = Field(0.1, ge=0)  # standard deviation of the teacher's input noise, image range is 1
        distance: Literal["mse", "kl"] = "mse"

    def build(self) -> None:
        self.student = self.network()
        self.teacher = self.moving_average(self.student, self.config.ema_decay)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        labeled, unlabeled = batch.split(self.student(batch.images()).logits)
        consistency = self.weight(progress) * self.consistency(unlabeled, batch.unlabeled(), progress)
        return {"supervised": supervised_loss(labeled, batch.labels), "consistency": consistency}

    def weight(self, progress: Progress) -> float:
        """Of the consistency: nothing before its start, then the ramp."""
        started = progress.fraction >= self.config.starts_at
        return float(self.config.consistency * progress.ramp_up(self.config.ramp_up) * started)

    def consistency(self, logits: Tensor, images: Tensor, progress: Progress) -> Tensor:
        """Distance between the student's and the teacher's opinion of the unlabelled images."""
        return self.distance(logits, self.target(images))

    def distance(self, logits: Tensor, target: Tensor) -> Tensor:
        """Between a prediction and a target distribution."""
        distance = {"mse": mse_consistency, "kl": kl_consistency}[self.config.distance]
        return distance(logits, target)

    @torch.no_grad()
    def target(self, images: Tensor) -> Tensor:
        """The teacher's probabilities for noisy images; the noise is clipped at two standard deviations."""
        if std := self.config.noise:
            images = images + (std * torch.randn_like(images)).clamp(-2 * std, 2 * std)
        return self.teacher(images).logits.softmax(1)

    def predictors(self) -> dict[str, nn.Module]:
        return {"teacher": self.teacher, "student": self.student}
