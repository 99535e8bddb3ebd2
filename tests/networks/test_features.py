"""Dense features: every coarser map is kept, transformed and added to, at the size of the finest."""

import numpy as np
import pytest
import torch

from semiseg.networks import build_network
from semiseg.networks.alignment import enlarge_to
from semiseg.networks.features import DenseFeatures, feature_level

TWICE = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])  # an axis of two pixels, linearly as four


def test_maps_are_added_to_what_is_made_of_them_but_for_the_last():
    torch.manual_seed(0)
    dense = DenseFeatures(2, (2, 3, 1))
    maps = [torch.randn(2, 2, 1, 1), torch.randn(2, 3, 2, 2), torch.randn(2, 1, 4, 4)]
    first, second, last = (layer.weight.detach()[:, :, 0, 0].double().numpy() for layer in dense.convolutions)
    coarse, middle, fine = (m.double().numpy() for m in maps)
    expected = np.zeros((2, 6, 4, 4))
    for n in range(2):
        x = coarse[n, :, 0, 0]
        x = x + first @ x
        joined = np.concatenate([np.broadcast_to(x[:, None, None], (2, 2, 2)), middle[n]])
        joined = joined + np.einsum("oc,cij->oij", second, joined)
        finer = np.stack([TWICE @ channel @ TWICE.T for channel in joined])
        expected[n] = np.einsum("oc,cij->oij", last, np.concatenate([finer, fine[n]]))
    np.testing.assert_allclose(dense(maps).detach().numpy(), expected, atol=1e-5)
    assert dense.channels == 6


@pytest.mark.parametrize("length", [50, 72, 33, 9])
@pytest.mark.parametrize("stride", [2, 4, 8, 16])
def test_a_coarse_map_lies_over_the_pixels_that_it_was_made_of(length, stride):
    """Position i of a level of stride s is the mean place of pixels i s to i s + s − 1, however odd the size is."""
    count = -(-length // stride)
    middles = torch.arange(count) * stride + (stride - 1) / 2
    enlarged = enlarge_to(middles[None, None, :, None].expand(1, 1, count, count), (length, length), "bilinear")
    inner = slice(stride // 2, length - stride)  # at the borders the outermost value stays
    places = torch.arange(length, dtype=torch.float32)
    assert enlarged.shape == (1, 1, length, length)
    torch.testing.assert_close(enlarged[0, 0, inner, 0], places[inner])


def test_strides_are_those_of_the_longest_axis():
    level = feature_level(build_network("unet", 1, 2, (256, 7)), 1, (256, 7), 16, 1)
    assert level.position == 4
