"""Dense features: every coarser map is kept, transformed and added to, at the size of the finest."""

import numpy as np
import torch

from semiseg.networks.features import DenseFeatures

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
