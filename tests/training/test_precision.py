"""That results of several machines are of one kind if a benchmark names the precision."""

import pytest
import torch
from torch import nn

from semiseg.training.precision import place

DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available()]


@pytest.mark.parametrize("device", DEVICES)
def test_float32_is_float32_on_every_device(device, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # as PyTorch has it
    torch.manual_seed(0)
    convolution, images = nn.Conv2d(64, 64, 3), torch.rand(8, 64, 32, 32)
    exact = convolution.double()(images.double())
    placed = place(convolution.float(), 2, torch.device(device))
    error = (placed(images.to(device)).cpu().double() - exact).norm() / exact.norm()
    assert error < 1e-6, "TensorFloat-32 is off by 3e-4"
    assert not torch.backends.cudnn.allow_tf32
