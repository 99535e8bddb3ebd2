"""The progress of a step that is recorded: what it tells, other steps must be able to tell in its place."""

import operator
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

from torch import Tensor

from semiseg.method import Progress
from semiseg.training.draws import Unrepeatable

ROOM = 32  # numbers of a step that follow from its progress

Ask = Callable[[Progress], Any]


class Number:
    """A number that follows from a step's progress, and that a recording takes from the device's memory.

    What the host decides by it, the recording holds for steps in which it would decide the same.
    """

    def __init__(self, ask: Ask, watched: "Watched") -> None:
        self.ask, self.watched = ask, watched

    @cached_property
    def tensor(self) -> Tensor:
        """Where it stands on the device."""
        return self.watched.slot(self.ask)

    def _read(self, *_: Any) -> Any:
        raise Unrepeatable("the host reads a number that is another one at every step")

    __float__ = __int__ = __index__ = __round__ = __divmod__ = __hash__ = __repr__ = __str__ = __format__ = _read

    def __bool__(self) -> bool:
        return bool(self.watched.asked(lambda progress: bool(self.ask(progress))))

    def __neg__(self) -> "Number":
        return Number(lambda progress: -self.ask(progress), self.watched)

    def __abs__(self) -> "Number":
        return Number(lambda progress: abs(self.ask(progress)), self.watched)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = [arg.tensor if isinstance(arg, Number) else arg for arg in args]
        return func(*given, **{k: v.tensor if isinstance(v, Number) else v for k, v in (kwargs or {}).items()})


def _arithmetic(name: str, reflected: bool) -> None:
    operation = getattr(operator, name)

    def method(self: Number, other: Any) -> Any:
        def apply(a: Any, b: Any) -> Any:
            return operation(b, a) if reflected else operation(a, b)

        if isinstance(other, Tensor):
            return apply(self.tensor, other)
        value = other.ask if isinstance(other, Number) else lambda progress: other
        return Number(lambda progress: apply(self.ask(progress), value(progress)), self.watched)

    setattr(Number, f"__r{name}__" if reflected else f"__{name}__", method)


def _comparison(name: str) -> None:
    operation = getattr(operator, name)

    def method(self: Number, other: Any) -> Any:
        if isinstance(other, Tensor):
            return operation(self.tensor, other)
        value = other.ask if isinstance(other, Number) else lambda progress: other
        return self.watched.asked(lambda progress: operation(self.ask(progress), value(progress)))

    setattr(Number, f"__{name}__", method)


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    _arithmetic(_name, reflected=False)
    _arithmetic(_name, reflected=True)
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    _comparison(_name)


class Watched(Progress):
    """The progress of a step that is recorded, which remembers what it was asked."""

    now: Progress
    room: Tensor  # on the device, for numbers
    asks: list[tuple[Ask, Any]]  # by which the host decided, and the answers
    slots: list[Ask]  # what stands in the room, in its order

    def __init__(self, now: Progress, room: Tensor) -> None:
        vars(self).update(now=now, room=room, asks=[], slots=[])
        vars(self).update(total=now.total, stage=now.stage, before=now.before)  # the same in all steps of a stage

    def asked(self, ask: Ask) -> Any:
        """The answer now, which a step must share to be replayed."""
        answer = ask(self.now)
        self.asks.append((ask, answer))
        return answer

    def slot(self, ask: Ask) -> Tensor:
        """A place in the device's memory for an answer."""
        if len(self.slots) == ROOM:
            raise Unrepeatable(f"it takes more than {ROOM} numbers from the progress")
        self.slots.append(ask)
        return self.room[len(self.slots) - 1]

    @property
    def step(self) -> Any:
        return Number(lambda progress: progress.step, self)

    @property
    def fraction(self) -> Any:
        return Number(lambda progress: progress.fraction, self)

    def ramp_up(self, over: float = 1.0) -> Any:
        return Number(lambda progress: progress.ramp_up(over), self)

    def every(self, steps: int) -> bool:
        return bool(self.asked(lambda progress: progress.every(steps)))
