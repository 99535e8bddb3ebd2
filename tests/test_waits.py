"""A loop that waits for the device at every step leaves a GPU idle: no method's step reads a value back."""

import sys
from pathlib import Path

import pytest
import torch

from semiseg.contract import CPU, MethodContract
from semiseg.method import Progress
from semiseg.registry import find_methods, get_method

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from waits import HostWaits, host_waits

ALLOWED = {
    "bcp": {"__int__", "numpy"},  # of a number that was drawn on the host; on a CPU, SciPy finds components
    "image_text": {"__int__"},  # likewise: which sentence of a text is read
    "mutual_exemplar": {"__int__", "tolist"},  # at every refresh: which networks are copied
}
DEVICES = [CPU, *[torch.device("cuda")] * torch.cuda.is_available()]


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("name", find_methods())
def test_a_step_does_not_wait_for_the_device(tmp_path, name, device):
    contract = MethodContract(name, get_method(name), 2, tmp_path)
    trainer = contract.trainer("waits", contract.spec(steps=4))
    trainer.device = trainer.data.device = device
    trainer.fit()
    stage = [*trainer.plan.stages][-1]
    with host_waits(device) as places:
        for step in range(3, 7):
            trainer.step(Progress(step, 8, stage))
    if device == CPU:
        assert {place.split()[0] for place in places} <= ALLOWED.get(name, set()), places
    else:
        assert not places or name in ALLOWED, places


@pytest.mark.parametrize(
    "read",
    [
        lambda t: t.sum().item(),
        lambda t: float(t[0]),
        lambda t: t[t > 0],
        lambda t: t.nonzero(),
        lambda t: t.cpu(),
        lambda t: bool((t > 0).any()),
    ],
)
def test_a_wait_is_found(read):
    tensor = torch.ones(3)
    with HostWaits() as found:
        tensor * 2 + tensor[0]
        torch.where(tensor > 0, tensor, 0)
        assert not found.places
        read(tensor)
    assert sum(found.places.values()) == 1
