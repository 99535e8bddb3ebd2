"""The contract of a start: a pre-training without labels, from whose network any method can start."""

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from semiseg.method import Method


class Start(Method):
    """Base class of all starts: methods that see all training images and no label, and hand on what they learned.

    `{method: mean_teacher, start: NAME}` in a benchmark file lets every network of a method begin with the handed
    weights. The pre-training is a run of its own, one for each fold and seed, shared by all that start from it.
    A start that says what task it `learns` is a method of that task besides.
    """

    learns: ClassVar[str] = ""  # images of any task will do
    uses_labels: ClassVar[bool] = False

    @abstractmethod
    def handed_on(self) -> dict[str, Tensor]:
        """The weights that others start from, by the names that they have in a network of the task's kind.

        `{f"encoder.{name}": value for name, value in self.model.encoder.state_dict().items()}` hands on an encoder;
        what is left out begins at random.
        """

    def predictors(self) -> dict[str, nn.Module]:
        """None: a start says nothing of what it has no labels for."""
        return {}
