"""Asks a training to stop at its next step, with a checkpoint."""

import signal
from collections.abc import Callable, Iterable

Stop = Callable[[], bool]


def never() -> bool:
    """Whether to stop, where nobody asks for it."""
    return False


def stop_on_signals(signals: Iterable[int] = (signal.SIGTERM, signal.SIGINT)) -> Stop:
    """Take signals for a request to stop; in the main thread of a process that carries out runs."""
    received: list[int] = []
    for number in signals:
        signal.signal(number, lambda number, frame: received.append(number))
    return lambda: bool(received)
