"""Where the tests of benchmarks read and write."""

import pytest

from semiseg.contract import tiny_dataset
from semiseg.training.places import Places


@pytest.fixture
def places(tmp_path):
    (tmp_path / "data").mkdir()
    tiny_dataset(tmp_path / "data" / "tiny.h5", 2)
    return Places(tmp_path / "results", tmp_path / "data", tmp_path / "splits")
