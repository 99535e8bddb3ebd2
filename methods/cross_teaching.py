"""Cross teaching: a convolutional network and a Transformer learn from each other's hard labels."""

from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW

from semiseg.errors import UserError
from semiseg.losses import dice_loss, one_hot
from semiseg.method import Ensemble, Paper
from semiseg.networks import scaled_like

from .cps import CrossPseudoSupervision


class CrossTeaching(CrossPseudoSupervision):
    """CPS between two architectures: their difference takes the place of different initial weights.

    Both networks see the benchmark's images, at the benchmark's size; the published comparison gives this method
    other sizes, other batches and ImageNet weights. The convolutional network is reported, the Transformer
    beside it. SGD at the benchmark's rate suits a pre-trained Transformer; one that starts from random weights is
    trained by AdamW. A class that no pseudo-label names is pushed towards zero by the Dice loss, as published. A short
    training leaves the Transformer behind the other network, which then learns little from it. Weight and ramp are
    those of SSL4MIS, whose author is the paper's.
    """

    title = "Cross Teaching"
    paper = Paper(
        "Semi-Supervised Medical Image Segmentation via Cross Teaching between CNN and Transformer",
        "Luo, Hu, Song, Wang and Zhang",
        "MIDL 2022",
    )

    class Config(CrossPseudoSupervision.Config):
        transformer: str = "swin_unet"  # its small variant beside a small network
        pretrained: Path | None = None  # a file of ImageNet weights for the Transformer
        learning_rate: float = Field(1e-4, gt=0)  # of AdamW, without pre-trained weights
        distance: Literal["dice", "cross_entropy", "both"] = "dice"

    space: ClassVar = {"cross": (0.1, 0.5, 1.5), "ramp_up": (0.3, 1.0), "learning_rate": (1e-4, 3e-4, 1e-3)}

    def build(self) -> None:
        config, backbone = self.config, self.task.network
        transformer = scaled_like(config.transformer, backbone)
        if transformer == backbone:
            raise UserError(f"network {backbone!r} would teach itself; choose another network or transformer.")
        self.first = self.network()
        self.second = self.network(name=transformer, weights=config.pretrained)
        if config.pretrained is None:
            self.optimize(self.second, partial(AdamW, lr=config.learning_rate))

    def cross_loss(self, logits: Tensor, pseudo: Tensor) -> Tensor:
        target = one_hot(pseudo, self.task.classes)
        losses = []
        if self.config.distance != "cross_entropy":
            losses.append(dice_loss(logits.softmax(1), target))
        if self.config.distance != "dice":
            losses.append(cross_entropy(logits, pseudo))
        return torch.stack(losses).mean()

    def predictors(self) -> dict[str, nn.Module]:
        return {"cnn": self.first, "transformer": self.second, "ensemble": Ensemble([self.first, self.second])}
