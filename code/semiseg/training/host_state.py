"""What a method keeps on the host, which a recording of its steps neither sees nor may change."""

import copy
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

from torch import Tensor, nn

from semiseg.training.draws import Unrepeatable

PLAIN = bool, int, float, complex, str, bytes, type(None)
EVERY_MODULE = {*vars(nn.Module())} - {"training"}  # where PyTorch keeps tensors, parts and hooks
SAID = "noted"  # where a method says what is to be logged, and keeps nothing
APART = EVERY_MODULE | {SAID}
OTHER = object()  # what is no number or word, nor made of them


class HostState:
    """Attributes of a method and its parts, what they save beside their weights, and where their tensors lie.

    Numbers and words count, alone and in lists, tuples, sets and dictionaries; what other objects hold is not known.
    """

    def __init__(self, method: nn.Module) -> None:
        modules = [*method.modules()]
        layers = [vars(m) for m in modules if type(m).__module__.startswith("torch.nn.")]
        self.layers = [(layer, itemgetter(*_numbers(layer))) for layer in layers]
        self.own = [vars(m) for m in modules if not type(m).__module__.startswith("torch.nn.")]
        self.parts = [vars(module)["_modules"] for module in modules]
        self.tensors = [vars(module)[kind] for module in modules for kind in ("_parameters", "_buffers")]
        self.parameters = [*method.parameters()]
        self.keepers = [m for m in modules if type(m).get_extra_state is not nn.Module.get_extra_state]

    def now(self) -> list[Any]:
        """All of it, comparable; steps that are to do the same begin with the same."""
        return [
            *(take(layer) for layer, take in self.layers),
            *(_frozen(value) for own in self.own for name, value in own.items() if name not in APART),
            *(id(part) for parts in self.parts for part in parts.values()),
            *(t.data_ptr() for tensors in self.tensors for t in tensors.values() if t is not None),
            *(parameter.requires_grad for parameter in self.parameters),
            *(_saved(keeper) for keeper in self.keepers),
        ]

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Whatever happens to it meanwhile is undone and refused, but for what is to be logged, which is undone."""
        before = self.now()
        kept = [(where, dict(where)) for where in (*self.own, *self.tensors, *self.parts)]
        values = [value for own in self.own for value in own.values()]
        filled = [(value, copy.copy(value)) for value in values if isinstance(value, list | dict | set | deque)]
        saved = [copy.deepcopy(keeper.get_extra_state()) for keeper in self.keepers]
        grads = [parameter.grad for parameter in self.parameters]
        try:
            yield
            moved = {key for where, old in kept for key in {*where, *old} if _differ(where.get(key), old.get(key))}
            changed = ", ".join(sorted(moved - {SAID}))
            alike = self.now() == before and all(_members(value) == _members(old) for value, old in filled)
        finally:
            for value, old in (*filled, *kept):
                _refill(value, old)
            for keeper, state in zip(self.keepers, saved, strict=True):
                keeper.set_extra_state(state)
            for parameter, grad in zip(self.parameters, grads, strict=True):
                parameter.grad = grad
        if changed or not alike:
            raise Unrepeatable(f"it changes {changed or 'what it keeps'}, which no recording repeats")


def _numbers(layer: dict[str, Any]) -> list[str]:
    """Attributes of PyTorch's own layers that may change, such as how many channels a dropout takes."""
    return ["training", *(name for name, value in layer.items() if isinstance(value, float))]


def _frozen(value: Any) -> Any:
    """A copy to compare with later, if it is made of numbers and words."""
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, dict):
        value = [part for pair in value.items() for part in pair]
    elif isinstance(value, set | frozenset):
        return frozenset(value)
    elif not isinstance(value, list | tuple | deque):
        return OTHER
    return tuple(map(_frozen, value))


def _differ(value: Any, old: Any) -> bool:
    """Whether another object stands in an attribute, unless it is as good as the old one."""
    return value is not old and (_frozen(value) != _frozen(old) or _holds(_frozen(value)))


def _holds(frozen: Any) -> bool:
    """Whether there is anything but numbers and words in it."""
    return frozen is OTHER or (isinstance(frozen, tuple) and any(map(_holds, frozen)))


def _members(value: Any) -> Any:
    """The very objects that a list, a dictionary or a set holds."""
    if isinstance(value, set):
        return frozenset(value)
    return [*map(id, value), *(map(id, value.values()) if isinstance(value, dict) else ())]


def _refill(value: Any, old: Any) -> None:
    if _members(value) == _members(old):
        return
    value.clear()
    value.extend(old) if isinstance(value, list | deque) else value.update(old)


def _saved(keeper: nn.Module) -> Any:
    """What a module saves beside its weights; what of it lies on a device is there for a recording, too."""
    state = keeper.get_extra_state()
    if not isinstance(state, Tensor):
        return _frozen(state)
    return (*state.shape, *state.flatten().tolist()) if state.device.type == "cpu" else ()
