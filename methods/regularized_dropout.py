"""R-Drop: two predictions of the same image under different dropout should be one distribution."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from semiseg.errors import UserError
from semiseg.losses import supervised_loss, symmetric_kl
from semiseg.method import Batch, Method, Paper, Progress, jointly


class RegularizedDropout(Method):
    """The symmetric KL divergence between two stochastic predictions is minimized; gradients reach both.

    Both passes of the one network are a single pass over the images twice, as in the authors' translation code.
    Batch norm then uses the same statistics for both, so that nothing but dropout tells them apart, and takes
    them in once.

    The SSL4MIS code compares two networks (`two_networks`, the first of which is reported) and forms the softmax
    along the last axis of space; here it runs over the classes. That code's weight of 4.0 belongs to a divergence
    divided by the image width; the default of 0.1 is this suite's choice. The paper regularizes labelled data,
    which `divergence_on: all` includes.
    """

    title = "R-Drop"
    paper = Paper(
        "R-Drop: Regularized Dropout for Neural Networks",
        "Liang, Wu, Li, Wang, Meng, Qin, Chen, Zhang and Liu",
        "NeurIPS 2021",
    )

    class Config(Method.Config):
        variant: Literal["single_network", "two_networks"] = "single_network"
        divergence: float = Field(0.1, ge=0)  # weight at full ramp
        ramp_up: float = Field(1.0, gt=0, le=1)  # fraction of the training after which the weight is full
        divergence_on: Literal["unlabeled", "all"] = "unlabeled"  # images whose divergence counts

    space: ClassVar = {"divergence": (0.1, 0.5, 2.0), "ramp_up": (0.3, 1.0)}

    def build(self) -> None:
        self.networks = 1 if self.config.variant == "single_network" else 2
        self.passes = 2 // self.networks  # of each network
        self.members = nn.ModuleList(self.network() for _ in range(self.networks))
        if self.passes > 1 and not any(isinstance(m, _DropoutNd) and m.p > 0 for m in self.modules()):
            raise UserError(
                f"network {self.task.network!r}: has no dropout, so two passes of R-Drop are equal; "
                "choose another network, or set variant to two_networks."
            )

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        images = torch.cat([batch.images()] * self.passes)
        first, second = (z for member in self.members for z in member(images).logits.chunk(self.passes))
        (labeled_1, unlabeled_1), (labeled_2, unlabeled_2) = batch.split(first), batch.split(second)
        everywhere = self.config.divergence_on == "all"
        divergence = symmetric_kl(first, second) if everywhere else symmetric_kl(unlabeled_1, unlabeled_2)
        self.note("disagreement", (unlabeled_1.argmax(1) != unlabeled_2.argmax(1)).float().mean())
        return {
            "supervised_1": supervised_loss(labeled_1, batch.labels) / self.passes,
            "supervised_2": supervised_loss(labeled_2, batch.labels) / self.passes,
            "divergence": self.config.divergence * progress.ramp_up(self.config.ramp_up) * divergence,
        }

    def predictors(self) -> dict[str, nn.Module]:
        return jointly(list(self.members))
