"""The one rule for names that become files: of data sets and cases, which others may have made."""

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
