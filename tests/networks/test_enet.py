"""ENet has its published size, takes images of any size, and puts values back where they came from."""

import numpy as np
import pytest
import torch

from semiseg.errors import UserError
from semiseg.networks.enet import Up, enet

SMALL = (8, 32, 64)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def network():
    return enet(1, 3, (32, 32), SMALL)


def test_the_number_of_parameters_is_the_published_one():
    assert sum(p.numel() for p in enet(1, 4, (256, 256)).parameters()) == 349_284


@pytest.mark.parametrize("size", [(32, 48), (17, 16), (19, 33), (16, 26)])
@pytest.mark.parametrize("training", [True, False])
def test_one_image_of_any_size_is_segmented_at_its_size(network, size, training):
    output = network.train(training)(torch.rand(1, 1, *size))
    assert output.logits.shape == (1, 3, *size)
    sizes = [tuple(-(-s // stride) for s in size) for stride in (2, 4, 8)]
    assert [tuple(f.shape[2:]) for f in output.encoder] == sizes
    assert [tuple(f.shape[2:]) for f in output.decoder] == sizes[1::-1]


def test_the_last_row_and_column_of_an_odd_image_are_seen(network):
    images = torch.rand(1, 1, 17, 19, requires_grad=True)
    network.eval()(images).logits[..., -1, -1].sum().backward()
    assert images.grad[0, 0, -1, -1] != 0


def test_every_parameter_is_trained(network):
    network(torch.rand(2, 1, 33, 40)).logits.square().sum().backward()
    assert not [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]


def test_a_prediction_is_repeatable_and_does_not_depend_on_the_rest_of_the_batch(network):
    images = torch.rand(3, 1, 32, 32)
    with torch.no_grad():
        assert not torch.equal(network(images).logits, network(images).logits)  # dropout
        expected = network.eval()(images).logits
        assert torch.equal(network(images).logits, expected)
        torch.testing.assert_close(network(images[1:2]).logits, expected[1:2])


def test_losses_get_finite_float32_logits_under_mixed_precision(network):
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(torch.rand(2, 1, 33, 32)).logits
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


def test_unpooling_puts_values_at_the_maxima_of_the_skip():
    up = Up(8, 4).eval()
    for parameter in up.branch.parameters():
        parameter.data.zero_()  # what is left is the short way
    x, skip = torch.rand(2, 8, 3, 4), torch.randn(2, 4, 5, 8)  # an odd height: the last window has one row
    short, result = up.short(x).detach().numpy(), up(x, skip).detach().numpy()
    expected = np.zeros((2, 4, 5, 8))
    for n, c, i, j in np.ndindex(2, 4, 3, 4):
        window = skip[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].numpy()
        row, column = np.unravel_index(window.argmax(), window.shape)
        expected[n, c, 2 * i + row, 2 * j + column] = max(short[n, c, i, j], 0)
    assert (expected > 0).any()
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_the_bottlenecks_at_stride_8_reach_as_far_as_their_kernels_say():
    bottlenecks = enet(1, 2, (32, 32), widths=(8, 8, 8)).encoder.stages[2][1:].double().eval()
    features = torch.randn(1, 8, 149, 149, dtype=torch.double, requires_grad=True)
    bottlenecks(features)[0, :, 74, 74].sum().backward()
    reach = 2 * (1 + 2 + 2 + 4 + 1 + 8 + 2 + 16)
    rows, columns = features.grad[0].any(dim=0).nonzero(as_tuple=True)
    assert (rows.min(), rows.max()) == (columns.min(), columns.max()) == (74 - reach, 74 + reach)


def test_skips_lend_the_decoder_positions_and_no_values(network):
    features = network.eval().encoder(torch.rand(1, 1, 32, 32))
    fine, middle, coarse = (f.detach().requires_grad_() for f in features)
    decoded = network.decoder((fine, middle, coarse))[-1]
    assert torch.equal(network.decoder((2 * fine, 2 * middle, coarse))[-1], decoded)
    assert not torch.equal(network.decoder((-fine, middle, coarse))[-1], decoded)
    decoded.sum().backward()
    assert fine.grad is None
    assert coarse.grad.any()


def test_more_channels_than_the_first_block_holds_are_refused():
    with pytest.raises(UserError, match="images of 16 channels") as caught:
        enet(16, 2, (32, 32))
    assert "\n" not in str(caught.value)
