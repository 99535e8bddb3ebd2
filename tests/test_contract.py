"""Every method found, in 2D and in 3D, against the plugin contract; a new plugin is tested by existing."""

from functools import cache

import pytest

from semiseg.contract import MethodContract
from semiseg.registry import find_methods


@pytest.fixture(scope="session")
def contract(tmp_path_factory):
    @cache
    def build(name: str, dims: int) -> MethodContract:
        return MethodContract(name, find_methods()[name], dims, tmp_path_factory.mktemp(f"{name}_{dims}d"))

    return build


@pytest.mark.parametrize("check", MethodContract.checks())
@pytest.mark.parametrize("dims", [2, 3], ids=["2d", "3d"])
@pytest.mark.parametrize("name", [*find_methods(), *find_methods().broken])  # a broken one fails with its reason
def test_method(contract, name, dims, check):
    getattr(contract(name, dims), check)()
