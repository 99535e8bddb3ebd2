"""Every method and every start found, in 2D and in 3D, against the contract; a new plug-in is tested by existing."""

from functools import cache

import pytest

from semiseg.contract import MethodContract, PluginContract, contract_of
from semiseg.registry import find_methods
from semiseg.tasks import DEFAULT, task_kind

FOUND = find_methods()
PLUGINS = FOUND.starts | FOUND
CHECKS = [  # in all dimensions of the task that each learns; a broken one fails with its reason
    *(
        pytest.param(name, dims, check, id=f"{name}-{dims}d-{check}", marks=pytest.mark.xdist_group(f"{name}-{dims}d"))
        for name, plugin in PLUGINS.items()
        for dims in task_kind(plugin.learns or DEFAULT).dims
        for check in contract_of(plugin).checks()
    ),
    *((name, 2, next(iter(MethodContract.checks()))) for name in FOUND.broken),
]


@pytest.fixture(scope="session")
def contract(tmp_path_factory):
    @cache
    def build(name: str, dims: int) -> PluginContract:
        method = FOUND.starts.get(name) or FOUND[name]
        return contract_of(method)(name, method, dims, tmp_path_factory.mktemp(f"{name}_{dims}d"))

    return build


@pytest.mark.parametrize(("name", "dims", "check"), CHECKS)
def test_plugin(contract, name, dims, check):
    getattr(contract(name, dims), check)()
