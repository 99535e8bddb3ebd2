"""Perturbations change what their formula says, by a draw of its own for every item, and nothing else."""

from functools import partial

import numpy as np
import pytest
import torch

from semiseg.perturbations import attention_dropout, channel_dropout, element_dropout, feature_noise

ALL = [feature_noise, attention_dropout, element_dropout, channel_dropout]


@pytest.fixture(params=[(12, 10), (4, 6, 5)], ids=["2d", "3d"])
def features(request):
    torch.manual_seed(0)
    return torch.randn(6, 8, *request.param).abs() + 0.01


@pytest.mark.parametrize("perturb", ALL)
def test_every_item_gets_its_own_draw_from_torchs_generator(perturb, features):
    ramp = torch.linspace(0.1, 1, features[0, 0].numel()).view(features[0, 0].shape)
    same = ramp.expand_as(features)
    torch.manual_seed(1)
    first = perturb(same)
    assert all(not torch.equal(first[0], other) for other in first[1:])
    torch.manual_seed(1)
    assert torch.equal(perturb(same), first)
    assert not torch.equal(perturb(same), first)


@pytest.mark.parametrize("perturb", ALL)
def test_the_type_is_kept_and_the_input_is_not_changed(perturb, features):
    half = features.bfloat16()
    before = half.clone()
    assert perturb(half).dtype == torch.bfloat16
    assert torch.equal(half, before)


def test_noise_is_uniform_relative_and_different_for_every_element(features):
    u = (feature_noise(features, bound=0.3) / features - 1).numpy().ravel()
    assert np.abs(u).max() <= 0.3 + 1e-5
    assert np.abs(u).max() > 0.29
    assert abs(u.mean()) < 0.02
    assert u.std() == pytest.approx(0.6 / 12**0.5, rel=0.05)
    assert len(np.unique(u.round(6))) > 0.9 * len(u)


def test_attention_dropout_removes_positions_whose_mean_activity_exceeds_a_share_of_the_peak(features):
    shifted = features - 0.6  # some means are negative, and those are never removed
    dropped = attention_dropout(shifted, low=0.7, high=0.9).numpy()
    for x, y in zip(shifted.numpy(), dropped, strict=True):
        activity = x.mean(0)
        removed = (y == 0).all(0)
        np.testing.assert_array_equal(y, np.where(removed, 0, x))
        assert removed[activity >= 0.9 * activity.max()].all()
        assert not removed[activity < 0.7 * activity.max()].any()
        assert activity[removed].min() > activity[~removed].max()  # one threshold for the whole item


def test_attention_dropout_draws_its_share_uniformly_for_every_item():
    ramp = torch.linspace(0, 1, 1000).expand(500, 1, 1, -1)
    share = (attention_dropout(ramp) > 0).float().mean(3).numpy().ravel()
    assert 0.698 < share.min() < 0.705
    assert 0.895 < share.max() < 0.902
    assert share.std() == pytest.approx(0.2 / 12**0.5, rel=0.1)


def test_attention_dropout_follows_the_share_it_is_given(features):
    activity = features.numpy().mean(1)
    kept = activity < 0.8 * activity.reshape(6, -1).max(1).reshape(-1, *[1] * (activity.ndim - 1))
    dropped = attention_dropout(features, low=0.8, high=0.8).numpy()
    np.testing.assert_array_equal(dropped, features.numpy() * kept[:, None])


def test_attention_dropout_leaves_an_item_without_activity_as_it_is(features):
    features[0] *= -1
    features[1, ::2], features[1, 1::2] = 1, -1  # channels cancel out
    dropped = attention_dropout(features)
    assert torch.equal(dropped[:2], features[:2])
    assert all(not torch.equal(a, b) for a, b in zip(dropped[2:], features[2:], strict=True))


@pytest.mark.parametrize("probability", [0.2, 0.5])
def test_element_dropout_removes_elements_and_rescales_the_others(probability, features):
    ratio = (element_dropout(features, probability) / features).numpy()
    kept = ratio > 0
    assert (1 - kept.mean()) == pytest.approx(probability, abs=0.03)
    np.testing.assert_allclose(ratio[kept], 1 / (1 - probability), rtol=1e-5)
    shares = kept.reshape(6, 8, -1).mean(2)
    assert ((shares > 0) & (shares < 1)).all()  # within every channel


def test_channel_dropout_removes_whole_channels_and_rescales_the_others(features):
    many = features[:, :1].expand(6, 400, *features.shape[2:])
    ratio = (channel_dropout(many, 0.3) / many).flatten(2).numpy()
    np.testing.assert_allclose(ratio, ratio[..., :1].repeat(ratio.shape[2], 2), rtol=1e-5)
    kept = ratio[..., 0] > 0
    assert (1 - kept.mean()) == pytest.approx(0.3, abs=0.03)
    np.testing.assert_allclose(ratio[kept], 1 / 0.7, rtol=1e-5)


@pytest.mark.parametrize("perturb", [*ALL, partial(attention_dropout, low=0.0, high=0.0)])
def test_gradients_are_the_factors_that_the_features_were_multiplied_by(perturb, features):
    features.requires_grad_()
    output = perturb(features)
    (gradient,) = torch.autograd.grad(output.sum(), features)
    torch.testing.assert_close(gradient * features, output)
