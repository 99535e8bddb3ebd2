"""Loading what others have written."""

from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

from semiseg.errors import UserError


def installed(entry: EntryPoint) -> str:
    """Where a plug-in of a package comes from, in words."""
    return f"the installed plugin {entry.name} ({entry.value})"


def loaded(load: Callable[[], Any], where: str) -> Any:
    """What a plug-in gives, or in one line why it gives nothing."""
    try:
        return load()
    except (Exception, SystemExit) as error:  # a plugin that ends the program must not end it
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"{where}: the plugin cannot be imported ({reason}); correct it or move it away.") from error
