"""P-Net has its published size, stays at full size in 2D and 3D, and reaches as far as its dilations say."""

import pytest
import torch

from semiseg.networks.pnet import pnet

SIZES = [(16, 16), (17, 33), (5, 18, 17)]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_the_number_of_parameters_is_the_published_one():
    assert sum(p.numel() for p in pnet(1, 4, (256, 256)).parameters()) == 486_596


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("training", [True, False])
def test_every_map_has_the_size_of_the_image(size, training):
    output = pnet(1, 3, size, filters=4).train(training)(torch.rand(1, 1, *size))
    assert output.logits.shape == (1, 3, *size)
    assert [f.shape for f in output.encoder] == [(1, 4, *size)] * 5
    assert [f.shape for f in output.decoder] == [(1, 8, *size)]


@pytest.mark.parametrize("size", SIZES)
def test_every_parameter_is_trained(size):
    network = pnet(1, 3, size, filters=4)
    network(torch.rand(2, 1, *size)).logits.square().sum().backward()
    assert not [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert all(p.grad.any() for n, p in network.named_parameters() if n.startswith("encoder") and p.dim() > 1)


def test_a_pixel_is_decided_by_its_surroundings_and_by_nothing_farther():
    network = pnet(1, 2, (141, 141), filters=4).double().eval()
    images = torch.rand(1, 1, 141, 141, dtype=torch.double, requires_grad=True)
    network(images).logits[0, 0, 70, 70].backward()
    reach = 2 * (1 + 2 + 4 + 8 + 16)
    rows, columns = images.grad[0, 0].nonzero(as_tuple=True)
    assert (rows.min(), rows.max()) == (columns.min(), columns.max()) == (70 - reach, 70 + reach)


def test_the_decoder_reads_every_block():
    network = pnet(1, 2, (16, 16), filters=4)
    features = [torch.rand(1, 4, 16, 16, requires_grad=True) for _ in range(5)]
    network.decoder(tuple(features))[-1].sum().backward()
    assert all(f.grad.any() for f in features)


def test_a_prediction_is_repeatable_and_does_not_depend_on_the_rest_of_the_batch():
    network, images = pnet(1, 3, (24, 24), filters=4), torch.rand(3, 1, 24, 24)
    with torch.no_grad():
        assert not torch.equal(network(images).logits, network(images).logits)  # dropout
        expected = network.eval()(images).logits
        assert torch.equal(network(images).logits, expected)
        torch.testing.assert_close(network(images[1:2]).logits, expected[1:2])


def test_losses_get_finite_float32_logits_under_mixed_precision():
    with torch.autocast("cpu", torch.bfloat16):
        output = pnet(1, 3, (24, 24), filters=4)(torch.rand(2, 1, 24, 24))
    assert output.logits.dtype == torch.float32
    assert output.logits.isfinite().all()
    assert output.decoder[0].dtype == torch.bfloat16
