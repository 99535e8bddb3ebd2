"""Commands load what they need: who only looks at runs does not wait for what draws and measures."""

import subprocess
import sys

import pytest

SLOW = ("semiseg.report", "matplotlib", "pandas", "seaborn", "scipy.spatial", "torch.utils.tensorboard", "monai")


@pytest.mark.parametrize("module", ["semiseg.console.standings", "semiseg.console.running"])
def test_looking_at_runs_loads_nothing_that_draws_or_measures(module):
    """PyTorch is loaded: whether a run is stale depends on its method's settings, and methods are made of it."""
    command = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", command], check=True, capture_output=True, text=True).stdout.split()
    assert "torch" in loaded
    assert [name for name in SLOW if name in loaded] == []
