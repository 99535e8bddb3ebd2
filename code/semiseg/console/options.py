"""Options as they are typed, and what they mean."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from semiseg.errors import UserError

if TYPE_CHECKING:
    from semiseg.benchmarks.expansion import Selection  # imports torch, too slow for --help


def read_list(text: str) -> list[str]:
    """The parts of a list with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def read_methods(text: str) -> tuple[str, ...]:
    """The methods that are asked for; `all` is what a command does without the option."""
    from semiseg.benchmarks.expansion import ALL

    named = tuple(read_list(text))
    if ALL in named and len(named) > 1:
        raise UserError(f"--methods {text}: {ALL} is everything that the file lists; name some methods, or none.")
    return () if ALL in named else named


def read_selection(methods: str, labels: str, folds: str, seeds: str) -> "Selection":
    """The part of a benchmark that options ask for."""
    from semiseg.benchmarks.expansion import Selection
    from semiseg.labels import read_labels

    def read(option: str, kind: Callable[[str], Any], text: str) -> tuple[Any, ...]:
        try:
            return tuple(kind(part) for part in read_list(text))
        except ValueError as error:
            raise UserError(f"{option} {text}: {error}.") from error

    return Selection(
        read_methods(methods),
        read("--labels", read_labels, labels),
        read("--folds", _whole, folds),
        read("--seeds", _whole, seeds),
    )


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no whole number; write 0,1,2") from error


def stale_policy(rerun: bool, keep: bool) -> Literal["refuse", "rerun", "keep"]:
    """What becomes of runs that were made otherwise than now."""
    if rerun and keep:
        raise UserError("--rerun-stale and --keep-stale: choose one of them.")
    return "rerun" if rerun else "keep" if keep else "refuse"


def read_pairs(typed: list[str] | None, option: str) -> dict[str, Any]:
    """Values by key, each a value of YAML."""
    import yaml

    values = {}
    for pair in typed or []:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"{option} {pair}: write key=value.")
        try:
            values[key] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError) as error:  # the latter of a date that there is not
            raise UserError(f"{option} {pair}: {value!r} is not valid YAML; write key=value.") from error
    return values
