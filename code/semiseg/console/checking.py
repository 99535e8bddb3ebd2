"""`semiseg check-method` and `check-network`: the contract of a plug-in, one line for each check."""

import inspect
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from semiseg import networks
from semiseg.contract import PluginContract, contract_of
from semiseg.errors import UserError
from semiseg.network_contract import NetworkContract
from semiseg.networks import NETWORKS, require_network
from semiseg.registry import find_methods, find_with, get_method, get_method_of
from semiseg.tasks import DEFAULT, task_kind
from semiseg.training.failures import told_in_line


def check_method(which: str, methods_dir: Path | None = None) -> int:
    """Print how a method, given by its name or its file, does in 2D and in 3D; returns the number of failures."""
    torch.set_num_threads(1)  # images are tiny: with more, threads wait for each other most of the time
    is_file = Path(which).suffix == ".py"
    method = get_method_of(Path(which), methods_dir) if is_file else get_method(which, methods_dir)
    name = Path(which).stem if is_file else which
    failures = 0
    dims_of_task = task_kind(method.learns or DEFAULT).dims
    for dims in dims_of_task:
        with TemporaryDirectory() as folder:
            contract = contract_of(method)(name, method, dims, Path(folder))
            failures += _check(contract, f"{dims}D", Path(inspect.getfile(method)))
            number = len(contract.checks())
    if not failures:
        print(f"{name} keeps the contract: {number} checks in {' and in '.join(f'{dims}D' for dims in dims_of_task)}.")
    return failures


def check_network(which: str, methods_dir: Path | None = None) -> int:
    """Print how a network, or every network of a file, does; returns the number of failures."""
    torch.set_num_threads(1)
    path = Path(which)
    if path.suffix != ".py":
        find_methods(methods_dir)
        names = [which]
    else:
        engine = path.resolve().parent == Path(networks.__file__).resolve().parent
        found = find_methods(methods_dir) if engine else find_with(path, methods_dir)
        names = [name for name, offer in NETWORKS.offers.items() if Path(offer.where).resolve() == path.resolve()]
        if not names:
            raise UserError(found.broken.get(path.stem, f"{path}: offers no networks; it has no ARCHITECTURES."))
    for name in names:
        require_network(name)
    return sum(
        _check(NetworkContract(name, dims), f"{name}  {dims}D", Path(NETWORKS.offers[name].where))
        for name in names
        for dims in NETWORKS[name].dims
    )


def _check(contract: PluginContract | NetworkContract, label: str, file: Path) -> int:
    told: list[str] = []
    for check in contract.checks():
        reason = _failure(contract, check, file)
        state, what = "FAILED" if reason else "passed", check.removeprefix("check_").replace("_", " ")
        why = f": {'as above' if reason in told else reason}" if reason else ""
        print(f"{label}  {state}  {what}{why}", flush=True)
        told += [reason] if reason else []
    return len(told)


def _failure(contract: PluginContract | NetworkContract, check: str, file: Path) -> str:
    """Why a check fails, in one line; nothing if it passes."""
    try:
        getattr(contract, check)()
    except Exception as error:
        text = " ".join(str(error).split())
        if isinstance(error, AssertionError | UserError):
            return text
        return told_in_line(error, file)
    return ""
