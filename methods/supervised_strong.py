"""The strong lower bound: nnU-Net's recipe, the labelled images only."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from semiseg.losses import supervised_loss
from semiseg.method import Batch, Method, Paper, Progress, predict
from semiseg.networks.auxiliary import AuxiliaryHeads, coarser_levels


class SupervisedStrong(Method):
    """Supervised with nnU-Net's augmentation and deep supervision: what one may have without unlabelled images.

    Heads on the coarser decoder levels but the coarsest predict at training time, too. The k-th level from the finest
    weighs 2^−k of ½ (cross-entropy + Dice), weights sum to 1. Augmentation is `training.augmentation: strong`, which
    any other method may be given; this one has it whatever the benchmark says.

    nnU-Net (MIC-DKFZ/nnUNet, 0e49508) compares a coarse level with coarse labels, here its logits are resized to the
    image's. Its loss is the sum of both parts, Dice without the background and without squares. It has a momentum of
    0.99 with Nesterov's look ahead, a weight decay of 3e−5, 250,000 steps, and shows foreground in every third patch
    at least; network, optimizer, steps and batches are the benchmark's here, as for all methods (the schedule is
    the same). `network: nnunet` is its network; it mirrors in testing, too, which is done for none here.
    """

    title = "Strong supervised"
    paper = Paper(
        "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation",
        "Isensee, Jaeger, Kohl, Petersen and Maier-Hein",
        "Nature Methods 2021",
    )
    published_as: ClassVar = ("Supervised (nnU-Net)",)
    uses_unlabeled = False
    augmentation: ClassVar = "strong"
    divisible = True

    def build(self) -> None:
        task = self.task
        self.model = self.network()
        levels = self.levels(predict(self.model, torch.zeros(1, task.channels, *task.size)).decoder)
        self.heads = AuxiliaryHeads([m.shape[1] for m in levels], task.classes, task.dims)

    def levels(self, decoder: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The maps that carry an auxiliary head; none in a network that decodes in one step."""
        return coarser_levels(decoder)[:-1]

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        output = self.model(batch.labeled())
        logits = (output.logits, *self.heads(self.levels(output.decoder), batch.labels.shape[1:]))
        values = torch.stack([supervised_loss(x, batch.labels) for x in logits])
        weights = 0.5 ** torch.arange(len(values), device=values.device)
        return {"supervised": (weights * values).sum() / weights.sum()}

    def predictors(self) -> dict[str, nn.Module]:
        return {"network": self.model}
