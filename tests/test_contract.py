"""Every method and every start found, in 2D and in 3D, against the contract; a new plug-in is tested by existing."""

from functools import cache

import pytest

from semiseg.contract import MethodContract, PluginContract, StartContract, contract_of
from semiseg.registry import find_methods
from semiseg.tasks import DEFAULT, task_kind

FOUND = find_methods()
METHODS = [  # in all dimensions of the task that each learns; a broken one fails with its reason
    *((name, dims) for name, method in FOUND.items() for dims in task_kind(method.learns or DEFAULT).dims),
    *((name, 2) for name in FOUND.broken),
]


@pytest.fixture(scope="session")
def contract(tmp_path_factory):
    @cache
    def build(name: str, dims: int) -> PluginContract:
        method = FOUND.starts.get(name) or FOUND[name]
        return contract_of(method)(name, method, dims, tmp_path_factory.mktemp(f"{name}_{dims}d"))

    return build


@pytest.mark.parametrize("check", MethodContract.checks())
@pytest.mark.parametrize(("name", "dims"), METHODS, ids=[f"{name}-{dims}d" for name, dims in METHODS])
def test_method(contract, name, dims, check):
    getattr(contract(name, dims), check)()


@pytest.mark.parametrize("check", StartContract.checks())
@pytest.mark.parametrize("dims", [2, 3], ids=["2d", "3d"])
@pytest.mark.parametrize("name", FOUND.starts)
def test_start(contract, name, dims, check):
    getattr(contract(name, dims), check)()
