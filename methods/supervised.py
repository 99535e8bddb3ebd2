"""The lower bound: one network, the labelled images only."""

from torch import Tensor, nn

from semiseg.losses import supervised_loss
from semiseg.method import Batch, Method, Paper, Progress


class Supervised(Method):
    """A network that never sees an unlabelled image: what every semi-supervised method must beat."""

    title = "Supervised"
    paper = Paper(
        "U-Net: Convolutional Networks for Biomedical Image Segmentation",
        "Ronneberger, Fischer and Brox",
        "MICCAI 2015",
    )
    uses_unlabeled = False
    divisible = True

    def build(self) -> None:
        self.model = self.network()

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        return {"supervised": supervised_loss(self.model(batch.labeled()).logits, batch.labels)}

    def predictors(self) -> dict[str, nn.Module]:
        return {"network": self.model}
