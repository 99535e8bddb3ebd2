"""Ways to carry out the runs of a benchmark, each a module of this package with one subclass of `Executor`."""

import importlib
import inspect
import pkgutil
from typing import Any

from semiseg.errors import UserError
from semiseg.executors.executor import Executor
from semiseg.validation import validate

__all__ = ["Executor", "executor_names", "make_executor"]


def executor_names() -> list[str]:
    """What `--executor` can be."""
    return [module.name for module in pkgutil.iter_modules(__path__) if _class(module.name) is not None]


def make_executor(name: str, options: dict[str, Any]) -> Executor:
    """An executor with its options, validated."""
    if name not in executor_names():
        raise UserError(f"--executor {name}: there is no such executor; choose one of {', '.join(executor_names())}.")
    executor: Executor = validate(_class(name), options, f"options of --executor {name}")
    return executor


def _class(name: str) -> Any:
    """The executor that a module of this package defines, if it does."""
    module = importlib.import_module(f"{__name__}.{name}")
    own = (c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__)
    return next((c for c in own if issubclass(c, Executor) and c is not Executor), None)
