"""VoxResNet has its published size, takes volumes and images of any size, and treats each case on its own."""

import pytest
import torch

from semiseg.errors import UserError
from semiseg.networks.voxresnet import Residual, voxresnet

SIZES = [(16, 16, 16), (17, 19, 18), (3, 16, 18), (33, 20)]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_the_number_of_parameters_is_the_published_one():
    assert sum(p.numel() for p in voxresnet(1, 2, (96, 96, 96)).parameters()) == 1_992_578


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("training", [True, False])
def test_one_case_of_any_size_is_segmented_at_its_size(size, training):
    output = voxresnet(1, 3, (32,) * len(size), filters=4).train(training)(torch.rand(1, 1, *size))
    assert output.logits.shape == (1, 3, *size)
    levels = [tuple(-(-s // 2**k) for s in size) for k in range(4)]
    assert [tuple(f.shape[2:]) for f in output.encoder] == levels
    assert [tuple(f.shape[2:]) for f in output.decoder] == levels[-2::-1]


@pytest.mark.parametrize("size", SIZES)
def test_every_parameter_is_trained(size):
    network = voxresnet(1, 3, size, filters=4)
    network(torch.rand(2, 1, *size)).logits.square().sum().backward()
    assert not [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]


def test_a_residual_block_adds_to_its_input():
    block, x = Residual(3, 4), torch.randn(1, 4, 4, 4, 4)
    before = x.clone()
    assert not torch.equal(block(x), before)
    assert torch.equal(x, before)  # nothing is overwritten in place
    for parameter in block.parameters():
        parameter.data.zero_()
    assert torch.equal(block(x), before)


def test_skips_leave_the_encoder_before_the_residual_blocks_of_their_level():
    network, volumes = voxresnet(1, 2, (16, 16, 16), filters=4).eval(), torch.rand(1, 1, 16, 16, 16)
    before = network.encoder(volumes)
    for parameter in network.encoder.levels[1].parameters():  # at stride 4
        parameter.data.zero_()
    after = network.encoder(volumes)
    assert [torch.equal(b, a) for b, a in zip(before, after, strict=True)] == [True, True, True, False]


def test_the_decoder_takes_values_from_all_but_the_finest_map():
    network = voxresnet(1, 2, (16, 16, 16), filters=4)
    features = tuple(f.detach().requires_grad_() for f in network.encoder(torch.rand(1, 1, 16, 16, 16)))
    network.decoder(features)[-1].square().sum().backward()
    assert [f.grad is not None and bool(f.grad.any()) for f in features] == [False, True, True, True]


@pytest.mark.parametrize("training", [True, False])
def test_a_prediction_is_repeatable_and_does_not_depend_on_the_rest_of_the_batch(training):
    network, volumes = voxresnet(1, 2, (8, 16, 16), filters=4).train(training), torch.rand(3, 1, 8, 16, 16)
    with torch.no_grad():
        expected = network(volumes).logits
        assert torch.equal(network(volumes).logits, expected)
        torch.testing.assert_close(network(volumes[1:2]).logits, expected[1:2])


def test_losses_get_finite_float32_logits_under_mixed_precision():
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = voxresnet(1, 3, (16, 17, 16), filters=4)(torch.rand(2, 1, 16, 17, 16))
    assert output.logits.dtype == torch.float32
    assert output.logits.isfinite().all()


def test_patches_that_instance_norm_would_erase_are_refused():
    voxresnet(1, 2, (8, 8, 9), filters=4)
    with pytest.raises(UserError, match=r"8×8×8 positions.*more than 8") as caught:
        voxresnet(1, 2, (8, 8, 8))
    assert "\n" not in str(caught.value)
