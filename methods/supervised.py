"""The lower bound: one network, the labelled images only."""

from pydantic import Field
from torch import Tensor, nn

from semiseg.losses import supervised_loss
from semiseg.method import Batch, Ensemble, Method, Paper, Progress


class Supervised(Method):
    """A network that never sees an unlabelled image: what every semi-supervised method must beat.

    With `networks: 3` two more, with other initial weights, learn from the same images, each from the whole gradient
    of its own loss. The first one is reported and is, to the bit, the network without the others (unless memory is
    short: in the second half of a batch it draws its dropout after the others drew theirs in the first); the means of
    the first two and of all three stand beside it, for methods that offer a mean of as many.
    """

    title = "Supervised"
    paper = Paper(
        "U-Net: Convolutional Networks for Biomedical Image Segmentation",
        "Ronneberger, Fischer and Brox",
        "MICCAI 2015",
    )
    uses_unlabeled = False
    divisible = True

    class Config(Method.Config):
        networks: int = Field(1, ge=1)

    def build(self) -> None:
        self.networks = self.config.networks
        self.model = self.network()
        self.others = nn.ModuleList(self.network() for _ in range(self.networks - 1))

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        def loss(network: nn.Module) -> Tensor:
            return supervised_loss(network(batch.labeled()).logits, batch.labels)

        first = {"supervised": loss(self.model)}  # before the others, so that it draws its dropout as without them
        return first | {f"supervised_{n}": loss(network) for n, network in enumerate(self.others, start=2)}

    def predictors(self) -> dict[str, nn.Module]:
        networks = [self.model, *self.others]
        means = {f"ensemble_{n}": Ensemble(networks[:n]) for n in range(2, len(networks) + 1)}
        return {"network": self.model, **means}
