"""A loop that waits for the device at every step leaves a GPU idle: no step of a method or start reads a value back."""

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from semiseg.contract import CPU, contract_of
from semiseg.method import Progress
from semiseg.registry import find_methods
from semiseg.training.showing import AUGMENTATIONS

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from waits import HostWaits, host_waits

ALLOWED = {
    "abd_bcp": {"__int__", "numpy"},  # as "bcp"
    "bcp": {"__int__", "numpy"},  # of a number that was drawn on the host; on a CPU, SciPy finds components
    # likewise: which sentence of a text is read; and a few flags for each step, copied in a file that results are of
    "image_text": {"__int__", "to at methods/image_text.py"},
    "local_discrimination": {"tolist"},  # likewise: by how much images are rolled
    "mutual_exemplar": {"__int__", "tolist"},  # at every refresh: which networks are copied
    "shape_guided": {"tolist"},  # as "local_discrimination"
}
FOUND = find_methods()
PLUGINS = {**FOUND.starts, **FOUND}
DEVICES = [CPU, *[torch.device("cuda")] * torch.cuda.is_available()]


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("name", PLUGINS)
def test_no_step_of_any_stage_waits_for_the_device(tmp_path, name, device):
    contract = contract_of(PLUGINS[name])(name, PLUGINS[name], 2, tmp_path)
    trainer = contract.trainer("waits", contract.spec(steps=4))
    trainer.device = trainer.data.device = device
    trainer.fit()
    places = Counter()
    for stage in trainer.plan.stages:
        trainer.enter(stage)
        trainer.step(Progress(2, 8, stage))  # optimizers begin
        with host_waits(device) as found:
            for step in range(3, 7):
                trainer.step(Progress(step, 8, stage))
        places += found
    if device == CPU:
        assert not [place for place in places if not place.startswith(tuple(ALLOWED.get(name, ())))], places
    else:
        assert not places or name in ALLOWED, places


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("augment", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
def test_no_augmentation_waits_for_the_device_whatever_the_labels_are(augment, device):
    images, masks = torch.rand(2, 1, 8, 8, device=device), torch.zeros(2, 8, 8, dtype=torch.long, device=device)
    points, generator = torch.zeros(2, 3, 2, device=device), torch.Generator(device)
    with host_waits(device) as found:
        _, motion = augment(images, generator, True)
        motion.masks(masks)
        motion.points(points)
    assert not found


@pytest.mark.parametrize(
    "read",
    [
        lambda t: t.sum().item(),
        lambda t: float(t[0]),
        lambda t: t[t > 0],
        lambda t: t.nonzero(),
        lambda t: t.cpu(),
        lambda t: bool((t > 0).any()),
        lambda t: torch.tensor([1, 2], device=t.device),
        lambda t: torch.as_tensor(2.0, device=t.device),
        lambda t: torch.zeros(2).to(t.device),
        lambda t: t.diag().inverse(),
        lambda t: torch.linalg.inv(t.diag()),
    ],
)
def test_a_wait_is_found(read):
    tensor = torch.ones(3)
    with HostWaits() as found:
        tensor * 2 + tensor[0]
        torch.where(tensor > 0, tensor, 0)
        torch.tensor([1, 2]) + torch.tensor([1, 2], device="cpu")
        torch.zeros(2).to(tensor.device, non_blocking=True).to(tensor.dtype)
        torch.linalg.inv_ex(tensor.diag())
        assert not found.places
        read(tensor)
    assert sum(found.places.values()) == 1
