"""Auxiliary heads and decoders fit any network and start from weights of their own."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from semiseg.networks import EncoderDecoder, build_network, network_names
from semiseg.networks.auxiliary import AuxiliaryDecoder, AuxiliaryHeads, coarser_levels

CASES = [
    (name, size) for size in ((64, 64), (16, 32, 24)) for name in network_names(len(size)) if name.endswith("_small")
]


@pytest.fixture(params=CASES, ids=[name for name, _ in CASES])
def case(request):
    name, size = request.param
    torch.manual_seed(0)
    return build_network(name, 1, 3, size).eval(), torch.rand(2, 1, *size)


def test_coarser_levels_run_from_fine_to_coarse_without_the_finest():
    maps = [torch.zeros(1, c, n, n) for c, n in ((8, 2), (6, 4), (4, 4), (2, 4))]
    assert [m.shape[1] for m in coarser_levels(maps)] == [8]  # maps as fine as the last one are not coarser
    maps = [torch.zeros(1, c, n, n) for c, n in ((8, 2), (6, 4), (4, 8))]
    assert [m.shape[1] for m in coarser_levels(maps)] == [6, 8]
    assert coarser_levels(maps[-1:]) == ()
    assert coarser_levels(()) == ()


def test_heads_predict_at_the_size_of_the_image(case):
    network, images = case
    levels = coarser_levels(network(images).decoder)
    heads = AuxiliaryHeads([m.shape[1] for m in levels], 3, images.ndim - 2)
    logits = heads(levels, images.shape[2:])
    assert len(logits) == len(levels)
    assert all(x.shape == (2, 3, *images.shape[2:]) for x in logits)


def test_logits_are_float32_under_mixed_precision():
    network = build_network("unet_small", 1, 3, (32, 32))
    heads, decoder = AuxiliaryHeads([8], 3, 2), AuxiliaryDecoder(network)
    with torch.autocast("cpu", torch.bfloat16):
        features = network.encoder(torch.rand(2, 1, 32, 32))
        assert features[-1].dtype == torch.bfloat16
        assert decoder(features, features[0]).dtype == torch.float32
        assert heads(features[:1], (64, 64))[0].dtype == torch.float32


@pytest.mark.parametrize(("upsampling", "distinct"), [("nearest", 4), ("linear", 9)])
@pytest.mark.parametrize("dims", [2, 3])
def test_upsampling_is_linear_or_to_the_nearest_neighbour(upsampling, distinct, dims):
    torch.manual_seed(0)
    head = AuxiliaryHeads([1], 1, dims, upsampling)
    coarse = torch.zeros(1, 1, *[2] * dims)
    coarse[..., 0, 1], coarse[..., 1, 0], coarse[..., 1, 1] = 1, 3, 7
    row = head([coarse], [8] * dims)[0]
    plane = row[0, 0] if dims == 2 else row[0, 0, 0]
    expected = head.heads[0](coarse)
    expected = expected[0, 0] if dims == 2 else expected[0, 0, 0]
    mode = {"nearest": "nearest", "linear": "bilinear"}[upsampling]
    torch.testing.assert_close(plane, F.interpolate(expected[None, None], (8, 8), mode=mode)[0, 0])
    assert len(plane.detach().round(decimals=5).unique()) >= distinct


def test_an_auxiliary_decoder_with_the_weights_of_the_main_one_predicts_the_same(case):
    network, images = case
    decoder = AuxiliaryDecoder(network).eval()
    own = {k: v for k, v in network.state_dict().items() if not k.startswith("encoder.")}
    decoder.network.load_state_dict(own)
    assert torch.equal(decoder(network.encoder(images), images), network(images).logits)


def test_an_auxiliary_decoder_keeps_the_size_of_an_odd_image():
    class Halved(nn.Conv2d):
        def forward(self, images):
            return (super().forward(images),)

    network = EncoderDecoder(Halved(1, 4, 3, 2, 1), nn.Identity(), nn.ConvTranspose2d(4, 3, 2, 2))
    images = torch.rand(2, 1, 33, 41)
    assert AuxiliaryDecoder(network)(network.encoder(images), images).shape == (2, 3, 33, 41)
