"""`semiseg check-method`: the plugin contract for one method, one line for each check."""

import inspect
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from semiseg.contract import MethodContract
from semiseg.errors import UserError
from semiseg.method import Method
from semiseg.registry import get_method, get_method_of


def check_method(which: str, methods_dir: Path | None = None) -> int:
    """Print how a method, given by its name or its file, does in 2D and in 3D; returns the number of failures."""
    torch.set_num_threads(1)  # images are tiny: with more, threads wait for each other most of the time
    is_file = Path(which).suffix == ".py"
    method = get_method_of(Path(which)) if is_file else get_method(which, methods_dir)
    name = Path(which).stem if is_file else which
    return sum(_check(name, method, dims) for dims in (2, 3))


def _check(name: str, method: type[Method], dims: int) -> int:
    failures = 0
    with TemporaryDirectory() as folder:
        contract = MethodContract(name, method, dims, Path(folder))
        for check in contract.checks():
            reason = _failure(contract, check)
            failures += bool(reason)
            what = check.removeprefix("check_").replace("_", " ")
            print(f"{dims}D  {'FAILED' if reason else 'passed'}  {what}{reason and f': {reason}'}", flush=True)
    return failures


def _failure(contract: MethodContract, check: str) -> str:
    """Why a check fails, in one line; nothing if it passes."""
    try:
        getattr(contract, check)()
    except Exception as error:
        text = " ".join(str(error).split())
        if isinstance(error, AssertionError | UserError):
            return text
        where = traceback.extract_tb(error.__traceback__)
        last = next((f for f in reversed(where) if Path(f.filename) == _file(contract.method)), where[-1])
        return f"{type(error).__name__}: {text} ({last.filename}, line {last.lineno})"
    return ""


def _file(method: type[Method]) -> Path:
    return Path(inspect.getfile(method))
