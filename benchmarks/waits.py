"""Finds what makes the host wait for a GPU: reading a tensor's values, sizes that they decide, or copying to it."""

import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

HERE = Path(__file__).resolve().parent.parent
READING = {"item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__", "__array__"}
SIZING = {"nonzero", "argwhere", "masked_select", "unique", "bincount"}
CHECKING = {"inverse", "linalg_inv"}  # whether a matrix has an inverse; `inv_ex` does not ask


class HostWaits(TorchFunctionMode):
    """Counts, on any device, the calls in this project's code that would wait on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[str] = Counter()

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name, kwargs = func.__name__, kwargs or {}
        masks = args[1] if isinstance(args[1:2], tuple) and name in ("__getitem__", "__setitem__") else ()
        chosen = masks if isinstance(masks, tuple) else (masks,)
        masked = any(isinstance(mask, Tensor) and mask.dtype == torch.bool for mask in chosen)
        waits = name in READING | SIZING | CHECKING or (name == "__getitem__" and masked) or copies(name, args, kwargs)
        if waits and (where := place()):
            self.places[f"{name} at {where}"] += 1
        return func(*args, **kwargs)


def copies(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call would wait until numbers of the host are on a device that the caller names, as a GPU may be."""
    if name in ("tensor", "as_tensor"):
        return isinstance(kwargs.get("device"), torch.device) and not isinstance(args[0], Tensor)
    named = any(isinstance(value, torch.device) for value in (*args, *kwargs.values()))
    return name == "to" and named and not kwargs.get("non_blocking")


def place() -> str:
    """The innermost line of this project's code that is being carried out; none for the counters of optimizers.

    These lie on the host.
    """
    for frame in reversed(traceback.extract_stack()):
        file = Path(frame.filename).resolve()
        if file.parts[-3:-1] == ("torch", "optim"):
            return ""
        if file.is_relative_to(HERE) and file != Path(__file__).resolve() and ".venv" not in file.parts:
            return f"{file.relative_to(HERE)}:{frame.lineno}"
    return "elsewhere"


@contextmanager
def host_waits(device: torch.device) -> Iterator[Counter[str]]:
    """Where the host waits: as the driver reports it on a GPU, or what would wait on one."""
    if device.type != "cuda":
        with HostWaits() as found:
            yield found.places
        return
    places: Counter[str] = Counter()

    def note(message: Any, *_: Any, **__: Any) -> None:
        if "prototype feature" in str(message):  # what PyTorch says of looking for waits
            return
        places[f"{str(message).splitlines()[0][:60]} at {place()}"] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        shown, warnings.showwarning = warnings.showwarning, note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            torch.cuda.set_sync_debug_mode("default")
            warnings.showwarning = shown
