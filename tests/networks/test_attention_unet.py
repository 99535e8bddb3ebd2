"""The attention U-Net has its published size, takes volumes of any size, and its gates and heads all count."""

import numpy as np
import pytest
import torch

from semiseg.errors import UserError
from semiseg.networks.attention_unet import Gate, attention_unet

SMALL = (4, 6, 8, 10, 12)
SIZES = [(32, 32, 32), (17, 19, 18), (3, 16, 18)]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def network():
    return attention_unet(1, 3, (32, 32, 32), SMALL)


def test_the_number_of_parameters_is_the_published_one():
    assert sum(p.numel() for p in attention_unet(1, 2, (96, 96, 96)).parameters()) == 6_469_328


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("training", [True, False])
def test_one_volume_of_any_size_is_segmented_at_its_size(network, size, training):
    output = network.train(training)(torch.rand(1, 1, *size))
    assert output.logits.shape == (1, 3, *size)
    levels = [tuple(-(-s // 2**k) for s in size) for k in range(5)]
    assert [tuple(f.shape[2:]) for f in output.encoder] == levels
    assert [tuple(f.shape[2:]) for f in output.decoder] == levels[-2::-1]


@pytest.mark.parametrize("size", SIZES)
def test_every_parameter_is_trained(network, size):
    network(torch.rand(2, 1, *size)).logits.square().sum().backward()
    assert not [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    # A bias in front of a norm layer has no effect, whatever its gradient rounds to.
    assert all(p.grad.any() for p in network.parameters() if p.dim() > 1)


def test_a_gate_weights_positions_as_its_formula_says():
    gate = Gate(width=3, signal=5).double().eval()
    gate.output = torch.nn.Identity()
    skip, signal = torch.randn(2, 3, 4, 6, 2).double(), torch.randn(2, 5, 2, 3, 1).double()
    theta, phi, psi = (m.weight.detach().numpy() for m in (gate.theta, gate.phi, gate.psi))
    cells = skip.numpy().reshape(2, 3, 2, 2, 3, 2, 1, 2)
    agreement = np.einsum("nciaxbzd,ocabd->noixz", cells, theta)
    agreement += np.einsum("ncixz,oc->noixz", signal.numpy(), phi[:, :, 0, 0, 0])
    agreement = np.maximum(agreement + gate.phi.bias.detach().numpy()[:, None, None, None], 0)
    score = np.einsum("noixz,o->nixz", agreement, psi[0, :, 0, 0, 0]) + gate.psi.bias.item()
    attention = torch.from_numpy(1 / (1 + np.exp(-score)))[:, None]
    enlarged = torch.nn.functional.interpolate(attention, size=(4, 6, 2), mode="trilinear", align_corners=False)
    torch.testing.assert_close(gate(skip, signal), enlarged * skip)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_closed_gates_silence_a_skip_connection(network, level):
    features = [f.detach() for f in network.eval().encoder(torch.rand(1, 1, 32, 32, 32))]
    for gate in network.decoder.gates[level].gates:
        torch.nn.init.constant_(gate.psi.bias, -1e4)
    features[3 - level].requires_grad_()
    network.decoder(tuple(features))[level].square().sum().backward()
    assert not features[3 - level].grad.any()


def test_the_finest_skip_connection_is_not_gated(network):
    features = network.eval().encoder(torch.rand(1, 1, 32, 32, 32))
    finest = features[0].detach().requires_grad_()
    for gate in (g for pair in network.decoder.gates for g in pair.gates):
        torch.nn.init.constant_(gate.psi.bias, -1e4)
    network.decoder((finest, *features[1:]))[-1].square().sum().backward()
    assert finest.grad.any()


@pytest.mark.parametrize("level", range(4))
def test_the_head_of_every_level_has_a_say(network, level):
    for other, head in enumerate(network.decoder.heads):
        if other != level:
            torch.nn.init.zeros_(head.weight)
    logits = network.eval()(torch.rand(1, 1, 32, 32, 32)).logits
    assert logits.std(dim=(2, 3, 4)).min() > 0


def test_a_prediction_is_repeatable_and_does_not_depend_on_the_rest_of_the_batch(network):
    volumes = torch.rand(2, 1, 8, 24, 24)
    with torch.no_grad():
        before = network.eval()(volumes).logits
        network.train()(volumes)  # moves the running statistics of the gates
        expected = network.eval()(volumes).logits
        assert not torch.equal(before, expected)
        assert torch.equal(network(volumes).logits, expected)
        torch.testing.assert_close(network(volumes[1:]).logits, expected[1:], rtol=1e-4, atol=1e-4)


def test_losses_get_finite_float32_logits_under_mixed_precision(network):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = network(torch.rand(2, 1, 17, 16, 16)).logits
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


def test_patches_that_instance_norm_would_erase_are_refused():
    with pytest.raises(UserError, match="more than 16 voxels"):
        attention_unet(1, 2, (16, 16, 16))
