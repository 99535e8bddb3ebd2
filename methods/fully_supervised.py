"""The upper bound: the same network with the labels of all training images."""

from .supervised import Supervised


class FullySupervised(Supervised):
    """Supervised training on every training case; semi-supervised methods should stay below it."""

    title = "Fully supervised"
    uses_all_labels = True
