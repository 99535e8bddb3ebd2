"""Deep co-training: two networks agree on unlabelled images without becoming the same network."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from semiseg.losses import in_full_precision, jensen_shannon, kl_consistency, mse_consistency, supervised_loss
from semiseg.method import Batch, Method, Paper, Progress, jointly


class DeepCoTraining(Method):
    """Each network resists the images that fool the other one, which keeps their views different.

    The images that fool a network are found with the gradients of the pass that it learns from. The other
    network meets them with the statistics of that batch, but leaves them out of its running statistics, which
    belong to true images. Kullback-Leibler takes the place of cross-entropy there; the gradient is the same.
    The first network is reported; the second and their mean stand beside it. The weights are this suite's choice.

    The SSL4MIS script of this name trains one network whose predictions should turn with the image (`rotation`).
    It turns a whole batch by one number of quarter turns, none included, in a second pass; here every unlabelled
    image draws its own, in one pass with the upright ones. Its gradient, half that of the squared
    distance, is kept. Volumes turn in plane; where the plane is not square, by half a turn only. Images turn also with
    `turns: false`: where only direction tells classes apart, this variant teaches what is wrong.
    """

    title = "Deep Co-Training"
    paper = Paper(
        "Deep co-training for semi-supervised image segmentation",
        "Peng, Estrada, Pedersoli and Desrosiers",
        "Pattern Recognition 2020",
    )
    networks = 2

    class Config(Method.Config):
        variant: Literal["two_networks", "rotation"] = "two_networks"
        agreement: float = Field(0.1, ge=0)  # weight at full ramp
        ramp_up: float = Field(1.0, gt=0, le=1)  # fraction of the training after which the weight is full
        difference: float = Field(0.5, ge=0)  # weight of the view difference relative to the agreement
        epsilon: float = Field(0.02, gt=0, le=1)  # largest adversarial change of a pixel, image range is 1
        identity: bool = False  # whether a rotation may leave an image as it is

    space: ClassVar = {"agreement": (0.1, 0.5, 2.0), "ramp_up": (0.3, 1.0), "difference": (0.1, 0.5, 1.0)}

    def build(self) -> None:
        self.networks = 2 if self.config.variant == "two_networks" else 1
        self.learners = nn.ModuleList(self.network() for _ in range(self.networks))

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        losses = self.co_training if self.config.variant == "two_networks" else self.rotation
        return losses(batch, self.config.agreement * progress.ramp_up(self.config.ramp_up))

    def co_training(self, batch: Batch, weight: float) -> dict[str, Tensor]:
        """Supervision of both networks, their agreement, and their resistance to each other's weaknesses."""
        images = batch.images().detach().requires_grad_()
        first, second = logits = [learner(images).logits for learner in self.learners]
        (labeled_1, unlabeled_1), (labeled_2, unlabeled_2) = map(batch.split, logits)
        fooling_1, fooling_2 = (self.fooling(images, own, batch.labels) for own in logits)
        resistance = self.resistance(1, fooling_1, first) + self.resistance(0, fooling_2, second)
        self.note("disagreement", (unlabeled_1.argmax(1) != unlabeled_2.argmax(1)).float().mean())
        return {
            "supervised_1": supervised_loss(labeled_1, batch.labels),
            "supervised_2": supervised_loss(labeled_2, batch.labels),
            "agreement": weight * jensen_shannon(unlabeled_1, unlabeled_2),
            "difference": weight * self.config.difference * resistance,
        }

    def fooling(self, images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Images that move a network away from the labels, or else from its own opinion."""
        target = torch.cat([labels, logits[len(labels) :].argmax(1)])
        return adversarial(images, logits, target, self.config.epsilon)

    def resistance(self, learner: int, images: Tensor, others: Tensor) -> Tensor:
        """How far a network is, on the images that fool the other one, from that one's opinion of the true images."""
        with running_statistics_kept(self.learners[learner]):
            logits = self.learners[learner](images).logits
        return kl_consistency(logits, others.detach().softmax(1))

    def rotation(self, batch: Batch, weight: float) -> dict[str, Tensor]:
        """Supervision of one network, and agreement of the turned prediction with that for the turned image."""
        unlabeled = batch.unlabeled()
        turns = draw_turns(unlabeled, self.config.identity)
        logits = self.learners[0](torch.cat([batch.images(), rotate(unlabeled, turns)])).logits
        upright, of_turned = logits.tensor_split([len(batch.images())])
        labeled, upright = batch.split(upright)
        turned = rotate(upright, turns)
        distance = [mse_consistency(a, b.detach().softmax(1)) for a, b in ((turned, of_turned), (of_turned, turned))]
        return {
            "supervised": supervised_loss(labeled, batch.labels),
            "agreement": weight * torch.stack(distance).mean(),
        }

    def predictors(self) -> dict[str, nn.Module]:
        return jointly(list(self.learners))


@in_full_precision
def adversarial(images: Tensor, logits: Tensor, target: Tensor, epsilon: float) -> Tensor:
    """clip(x + ε sign ∇ₓ CE(logits(x), target), 0, 1), without gradient; the graph of the logits survives.

    Args:
        images: x, (batch, channels, *space), requires a gradient.
        logits: (batch, C, *space), computed from these images.
        target: (batch, *space) class indices.
        epsilon: largest change of a pixel.
    """
    (gradient,) = torch.autograd.grad(cross_entropy(logits, target, reduction="sum"), images, retain_graph=True)
    return (images.detach() + epsilon * gradient.sign()).clamp(0, 1)


@contextmanager
def running_statistics_kept(network: nn.Module) -> Iterator[None]:
    """Passes in training mode use the statistics of their batch, but do not record them."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def draw_turns(images: Tensor, identity: bool) -> Tensor:
    """A number of quarter turns for every image that keeps its shape; 0 only if the identity is allowed."""
    step = 1 if images.shape[-1] == images.shape[-2] else 2
    return step * torch.randint(0 if identity else 1, 4 // step, (len(images),), device=images.device)


def rotate(maps: Tensor, turns: Tensor) -> Tensor:
    """Turn (batch, channels, *space) in its last two axes by (batch,) quarter turns, in the sense of torch.rot90."""
    turns = turns.view(-1, *[1] * (maps.ndim - 1))
    maps = torch.where((turns == 1) | (turns == 2), maps.flip(-1), maps)
    maps = torch.where(turns >= 2, maps.flip(-2), maps)
    if maps.shape[-1] != maps.shape[-2]:  # no odd number of turns fits
        return maps
    return torch.where(turns % 2 == 1, maps.transpose(-2, -1), maps)
