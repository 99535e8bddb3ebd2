"""Deep adversarial network: segmentations of unlabelled images must look like those of labelled ones."""

from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, leaky_relu
from torch.optim import Adam

from semiseg.losses import supervised_loss
from semiseg.method import Batch, Method, Paper, Progress, Task, predict
from semiseg.networks.layers import CHANNEL_DROPOUT, CONVOLUTION

UNLABELED, LABELED = 0, 1  # the classes of the discriminator
POOL = {2: nn.AdaptiveAvgPool2d(2), 3: nn.AdaptiveAvgPool3d(1)}


class DeepAdversarial(Method):
    """A discriminator tells the two origins of a segmentation apart, and the segmenter learns to deceive it.

    The discriminator learns from the probabilities that the segmenter has just computed in its own step; SSL4MIS
    computes them anew in evaluation mode (`maps: evaluation`), so that it is trained on other maps than it is shown
    in the adversarial loss. It has an activation after its first layer in 2D, too, and pools adaptively, so
    that it reads images of any size and batches with any number of labelled and unlabelled images.

    With a dozen labelled images the discriminator soon knows them by heart, with or without seeing the images. The
    adversarial loss then outweighs that of the labels and does harm; at a tenth of the weight it does neither. The
    weight, its ramp and the discriminator's Adam are those of SSL4MIS.
    """

    title = "Deep Adversarial"
    paper = Paper(
        "Deep Adversarial Networks for Biomedical Image Segmentation Utilizing Unannotated Images",
        "Zhang, Yang, Chen, Fredericksen, Hughes and Chen",
        "MICCAI 2017",
    )

    class Config(Method.Config):
        adversarial: float = Field(0.1, ge=0)  # weight at full ramp
        ramp_up: float = Field(1.0, gt=0, le=1)  # fraction of the training after which the weight is full
        learning_rate: float = Field(1e-4, gt=0)  # of the discriminator, constant
        maps: Literal["training", "evaluation"] = "training"  # the mode in which the segmenter makes its maps

    space: ClassVar = {"adversarial": (0.003, 0.01, 0.03, 0.1), "ramp_up": (0.3, 1.0), "learning_rate": (1e-5, 1e-4)}

    def build(self) -> None:
        self.segmenter = self.network()
        adam = partial(Adam, lr=self.config.learning_rate, betas=(0.9, 0.99))
        self.discriminator = self.adversary(Discriminator(self.task), adam)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        logits = self.segmenter(batch.images()).logits
        labeled, unlabeled = batch.split(logits)
        self.maps = logits.detach().softmax(1)
        verdict = self.discriminator(unlabeled.softmax(1), batch.unlabeled()).float()
        weight = self.config.adversarial * progress.ramp_up(self.config.ramp_up)
        deceive = cross_entropy(verdict, torch.full_like(verdict[:, 0], LABELED, dtype=torch.long))
        return {"supervised": supervised_loss(labeled, batch.labels), "adversarial": weight * deceive}

    def adversary_losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        images, maps = batch.images(), self.maps
        if self.config.maps == "evaluation":
            maps = predict(self.segmenter, images).logits.softmax(1)
        verdict = self.discriminator(maps, images).float()
        origin = torch.full_like(verdict[:, 0], UNLABELED, dtype=torch.long)
        origin[: len(batch.labels)] = LABELED
        right = batch.split((verdict.argmax(1) == origin).float())
        for name, values in zip(("labeled", "unlabeled"), right, strict=True):
            self.note(f"discriminator_accuracy_{name}", values.mean())
        return {"discriminator": cross_entropy(verdict, origin)}

    def predictors(self) -> dict[str, nn.Module]:
        return {"network": self.segmenter}


class Discriminator(nn.Module):
    """Reads probabilities and the image they are for; two logits, the second for labelled origin."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        convolution: Any = CONVOLUTION[task.dims]
        dropout, pool = CHANNEL_DROPOUT[task.dims], POOL[task.dims]
        features = 2048 if task.dims == 2 else 512
        size = task.size

        def halving(inputs: int, outputs: int) -> nn.Module:
            layout = [(4, 2, 1) if length > 1 else (1, 1, 0) for length in size]
            kernel, stride, padding = zip(*layout, strict=True)
            return convolution(inputs, outputs, kernel, stride, padding)

        self.read_maps, self.read_images = halving(task.classes, 64), halving(task.channels, 64)
        layers: list[nn.Module] = [dropout()] if task.dims == 3 else []
        for inputs, drop in ((64, True), (128, True), (256, False)):
            size = tuple(max(1, length // 2) for length in size)
            layers += [halving(inputs, 2 * inputs), nn.LeakyReLU(0.2), dropout() if drop else nn.Identity()]
        self.judge = nn.Sequential(*layers, pool, nn.Flatten(), nn.Linear(features, 2))

    def forward(self, maps: Tensor, images: Tensor) -> Tensor:
        return self.judge(leaky_relu(self.read_maps(maps) + self.read_images(images), 0.2))
