"""What a method keeps on the host, which a recording of its steps neither sees nor changes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from semiseg.training.draws import Unrepeatable

PLAIN = bool, int, float, str, tuple, frozenset, type(None)
OWN = "_parameters", "_buffers"  # where modules keep tensors


class HostState:
    """Attributes of a method and its parts, what they save beside their weights, and where their tensors lie."""

    def __init__(self, method: nn.Module) -> None:
        self.tensors = [vars(module)[kind] for module in method.modules() for kind in OWN]
        # Layers of PyTorch's own keep nothing else that changes.
        self.parts = [vars(m) for m in method.modules() if not type(m).__module__.startswith("torch.nn.")]
        self.keepers = [m for m in method.modules() if type(m).get_extra_state is not nn.Module.get_extra_state]

    def now(self) -> list[Any]:
        """All of it that can be compared; steps that are to do the same begin with the same."""
        values = [value for part in self.parts for value in part.values()]
        plain = [value for value in values if isinstance(value, PLAIN)]
        lists = [(*value,) for value in values if isinstance(value, list) and all(isinstance(v, PLAIN) for v in value)]
        saved = [_leaf(leaf) for keeper in self.keepers for leaf in tree_leaves(keeper.get_extra_state())]
        return [*plain, *lists, *saved, *self._places()]

    def _places(self) -> list[int]:
        return [t.data_ptr() for kept in self.tensors for t in kept.values() if t is not None]

    @contextmanager
    def kept(self, *but: str) -> Iterator[None]:
        """Whatever happens to attributes meanwhile is undone, and refused unless it happens to some of these names."""
        before, known = [(part, dict(part)) for part in (*self.parts, *self.tensors)], self.now()
        try:
            yield
            moved = {key for part, old in before for key in {*part, *old} if _differ(part.get(key), old.get(key))}
            if wrong := sorted(moved - {*but}):
                raise Unrepeatable(f"it changes {', '.join(wrong)}, which no recording repeats")
        finally:
            for part, old in before:
                if any(part.get(key) is not old.get(key) for key in {*part, *old}):
                    part.clear()
                    part.update(old)
        if self.now() != known:
            raise Unrepeatable("it changes what it saves beside its weights")


def _differ(new: Any, old: Any) -> bool:
    return new is not old and not (isinstance(new, PLAIN) and type(new) is type(old) and new == old)


def _leaf(value: Any) -> Any:
    """What a module saves, comparable; what lies on a device is there for a recording, too."""
    if not isinstance(value, Tensor):
        return value
    return (tuple(value.shape), value.flatten().tolist()) if value.device.type == "cpu" else ()
