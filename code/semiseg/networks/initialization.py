"""Fresh random weights, for methods whose networks must not start alike."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

Scheme = Literal["kaiming", "xavier"]
SCHEMES: dict[Scheme, Callable[[Tensor], Tensor]] = {
    "kaiming": nn.init.kaiming_normal_,
    "xavier": nn.init.xavier_normal_,
}


def initialize(network: nn.Module, scheme: Scheme) -> None:
    """Redraw every convolution from a normal distribution; norm layers start as the identity.

    This also discards pre-trained weights, so they are loaded afterwards.
    """
    for module in network.modules():
        if isinstance(module, _ConvNd):
            SCHEMES[scheme](module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, _NormBase):
            module.reset_parameters()  # weight 1, bias 0, and fresh running statistics
