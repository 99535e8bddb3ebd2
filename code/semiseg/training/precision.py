"""Where and how precisely networks are calculated, the same for training and prediction."""

import torch
from torch import nn

from semiseg.errors import UserError


def place(module: nn.Module, dims: int, device: torch.device) -> nn.Module:
    """Move a module to a device, in the memory layout in which convolutions are fastest."""
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    return module.to(device).to(memory_format=layout)  # type: ignore[call-overload]


def autocast(precision: str, device: torch.device, dims: int) -> torch.autocast:
    """Choose bfloat16 where asked for, or where `auto` finds that the processor has instructions for it.

    Never in 3D on a CPU: the weight gradients of torch 2.13's bfloat16 Conv3d change from call to call there,
    and now and then they are not finite.
    """
    if device.type == "cpu" and dims == 3:
        if precision == "bfloat16":
            raise UserError("training.precision bfloat16 is unreliable in 3D on a CPU; use auto or float32.")
        return torch.autocast("cpu", enabled=False)
    native = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, precision == "bfloat16" or (precision == "auto" and native))
