"""Where and how precisely networks are calculated, the same for training and prediction."""

from typing import Literal

import torch
from torch import nn

from semiseg.errors import UserError
from semiseg.settings import TrainingSettings


def place(module: nn.Module, dims: int, device: torch.device) -> nn.Module:
    """Move a module to a device, in the memory layout in which convolutions are fastest.

    From then on float32 means float32 on a GPU as on a CPU, and not what cuDNN puts in its place: TensorFloat-32, with
    the mantissa of float16.
    """
    torch.backends.cudnn.allow_tf32 = False
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    return module.to(device).to(memory_format=layout)  # type: ignore[call-overload]


def choose_device(wanted: str) -> Literal["cpu", "cuda"]:
    """The kind of device that `--device` asks of this machine."""
    if wanted not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {wanted}: choose auto, cpu or cuda.")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine offers no CUDA device; use --device cpu.")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def effective_precision(precision: str, device_type: str, dims: int) -> str:
    """What `auto` means: bfloat16 where the processor has instructions for it.

    Never in 3D on a CPU: the weight gradients of torch 2.13's bfloat16 Conv3d change from call to call there,
    and now and then they are not finite.
    """
    if device_type == "cpu" and dims == 3:
        if precision == "bfloat16":
            raise UserError("training.precision bfloat16 is unreliable in 3D on a CPU; use auto or float32.")
        return "float32"
    if precision != "auto":
        return precision
    if device_type == "cpu":
        native = torch.cpu._is_avx512_bf16_supported()
    else:  # a machine without an accelerator may send runs to others; all that are customary have the instructions
        native = not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if native else "float32"


def with_precision(training: TrainingSettings, device_type: str) -> TrainingSettings:
    """The settings with the precision that is in effect in place of `auto`."""
    effective = effective_precision(training.precision, device_type, len(training.size))
    return training.model_copy(update={"precision": effective})


def autocast(precision: str, device: torch.device, dims: int) -> torch.autocast:
    """Calculate in the effective precision."""
    effective = effective_precision(precision, device.type, dims)
    return torch.autocast(device.type, torch.bfloat16, effective == "bfloat16")
