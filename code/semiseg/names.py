"""The one rule for names that become files, of data sets and cases; and what was meant by a name that is none."""

from collections.abc import Iterable
from difflib import get_close_matches

from semiseg.errors import UserError

RULE = "use a readable name without / \\ : that does not begin with a dot"


def is_name(text: object) -> bool:
    """Whether a file can be called so, on any system, and nothing but that file in its own folder."""
    return (
        isinstance(text, str)
        and text.isprintable()
        and not text.startswith(".")
        and bool(text.strip(" "))
        and not set(text) & set("/\\:")
    )


def require_name(text: object, where: str) -> None:
    """Refuse, where it is read, what must not become a file."""
    if not is_name(text):
        raise UserError(f"{where}: {text!r} cannot be the name of a file; {RULE}.")


def did_you_mean(name: str, known: Iterable[str], before: str = "") -> str:
    """A question about the known name that looks most like this one, with what stands before; empty if none does."""
    close = get_close_matches(name, list(known), 1)
    return f"did you mean {before + close[0]!r}? " if close else ""
