"""Builds validated settings, or says in one line what is wrong with them."""

from collections.abc import Collection, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from semiseg.errors import UserError
from semiseg.names import did_you_mean


def validate(
    model: type[BaseModel],
    content: Any,
    where: str,
    overrides: Collection[str] = (),
    beside: type[BaseModel] | None = None,
) -> Any:
    """Build settings, or say in one line what is wrong with them, and whether the file or `--set` says so.

    Args:
        beside: settings of which an unknown key may be one.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems: dict[str, list[str]] = {}  # by where they stand
        for detail in _causes(error.errors()):
            branch = detail["type"] == "string_type"  # pydantic adds which kind of an entry it tried, str or dict[…]
            key = ".".join(str(p) for p in detail["loc"] if not (str(p).endswith("]") or (branch and p == "str")))
            if detail["type"] == "extra_forbidden":
                known = _group(model, detail["loc"][:-1]).model_fields
                groups = [_in_a_group(kind, key) for kind in (model, beside) if kind]
                last = str(detail["loc"][-1])
                meant = next(filter(None, groups), "") or did_you_mean(last, known, key.removesuffix(last))
                problem = f"unknown key {key!r} ({meant}known: {', '.join(known)})"
            else:
                number = detail["type"] == "string_type" and isinstance(detail["input"], int | float)
                quoted = ", and a number is one in quotes" if number else ""
                problem = f"{key}: {_in_yaml(detail['msg'])}{quoted}".removeprefix(": ")
            said = any(f"{key}.".startswith(f"{override}.") for override in overrides)
            inside = any(override.startswith(f"{key}.") for override in overrides)  # one of those that do not fit
            at = "--set" if said else f"{where}, or --set" if inside else where
            problems.setdefault(at, []).append(problem)
        raise UserError(" ".join(f"{at}: {'; '.join(dict.fromkeys(of))}." for at, of in problems.items())) from error


def _causes(details: Sequence[Any]) -> list[Any]:
    """Errors without those that others bring about: a list is too short, or a default is unknown, for want of them."""
    places = [detail["loc"] for detail in details]

    def follows(kind: str, place: tuple[int | str, ...]) -> bool:
        inside = any(other != place and other[: len(place)] == place for other in places)
        return kind == "default_factory_not_called" or (kind == "too_short" and inside)

    return [detail for detail in details if not follows(detail["type"], detail["loc"])]


def _in_yaml(message: str) -> str:
    """A message in the words of whoever writes the file; our own ones are in these already."""
    own = message.removeprefix("Value error, ")
    if own != message:
        return own
    return message.replace("a valid tuple", "a list: [a, b]").replace("Tuple", "List").replace(" after validation", "")


def _in_a_group(model: type[BaseModel], key: str) -> str:
    """A question about a key of this name inside of a group of settings; empty if there is none."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel) and key in kind.model_fields:
            return f"did you mean '{name}.{key}'? "
    return ""


def _group(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel]:
    """The settings that a path of keys leads to, as far as it leads to any."""
    for key in path:
        inner = model.model_fields[str(key)].annotation if str(key) in model.model_fields else None
        for kind in (inner, *get_args(inner)):  # settings, or settings or nothing
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                model = kind
    return model
