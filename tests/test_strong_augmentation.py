"""nnU-Net's augmentation: masks stay on their images, and every kind does what it says, image by image."""

import numpy as np
import pytest
import torch
from torch import Generator
from torch.nn import functional as F

from semiseg.strong_augmentation import _record, augment_strongly, gamma, geometry, low_resolution

SPACES = {"square": (32, 32), "wide": (24, 48), "thin": (4, 32, 32), "cube": (20, 24, 28)}


def generator(seed=0):
    return Generator().manual_seed(seed)


def smooth(count, space):
    grids = torch.meshgrid(*(torch.linspace(0, 1, n) for n in space), indexing="ij")
    phase = torch.arange(count).view(count, 1, *[1] * len(space))
    return 0.5 + 0.4 * torch.sin(sum((3 - k) * g for k, g in enumerate(grids)) + phase)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_masks_follow_their_images(space):
    blobs = (smooth(48, space)[:, 0] > 0.5).long()
    count = 40
    images, turned = augment_strongly(blobs[:, None].float(), generator())
    labels = turned.masks(blobs[:count])
    assert labels.shape == (count, *space)
    assert labels.dtype == torch.long
    agree = [separated(x[0].numpy(), y.numpy()) for x, y in zip(images[:count], labels, strict=True)]
    assert np.mean(agree) > 0.95
    assert not torch.equal(labels, blobs[:count])


def separated(image, label):
    """How well a threshold in the middle of an image separates the classes of its mask."""
    middle = (image.max() + image.min()) / 2
    return ((image > middle) == label).mean()


def test_most_images_are_only_mirrored_and_a_fifth_is_turned_or_scaled():
    draws = generator()

    def draw(low, high):
        return torch.rand(2000, 1, 1, 1, generator=draws) * (high - low) + low

    matrices = geometry(torch.zeros(2000, 1, 32, 32), draw, turns=True)
    plain = (matrices.abs() - torch.eye(2)).abs().flatten(1).amax(1) < 1e-6
    assert plain.float().mean() == pytest.approx(0.64, abs=0.04)
    zoom = matrices.det().abs().pow(-0.5)
    assert 0.7 <= zoom.min() < 0.75
    assert 1.35 < zoom.max() <= 1.4
    for axis in range(2):
        assert (matrices[plain][:, axis, axis] < 0).float().mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("space", "turns", "limit"), [
    ((32, 32), True, 180), ((32, 32), False, 30), ((24, 48), True, 15), ((4, 32, 32), True, 180),
    ((20, 24, 28), True, 30),
])  # fmt: skip
def test_how_far_images_are_turned(space, turns, limit):
    seen = []

    def draw(low, high):
        seen.append((low, high))
        return torch.full((1, *[1] * (len(space) + 1)), 0.1)

    matrix = geometry(torch.zeros(1, 1, *space), draw, turns)
    assert [(low, high) for low, high in seen if high > 2] == [(-limit, limit)] * (3 if space[0] == 20 else 1)
    assert (len(matrix[0]) == 3) == (len(space) == 3)
    if space[0] == 4:  # thin: the slices stay what they are
        torch.testing.assert_close(matrix[0, 0].abs(), torch.tensor([1.0, 0.0, 0.0]))
        torch.testing.assert_close(matrix[0, :, 0].abs(), torch.tensor([1.0, 0.0, 0.0]))


def test_without_turns_nothing_is_mirrored():
    ramp = torch.linspace(0, 1, 32).expand(64, 1, 32, 32)
    images, _ = augment_strongly(ramp, generator(), turns=False)
    assert (images[:, 0, 16, 20] > images[:, 0, 16, 12]).all()
    images, _ = augment_strongly(ramp, generator())
    assert (images[:, 0, 16, 20] < images[:, 0, 16, 12]).any()


def test_a_rotation_in_a_wide_picture_is_a_rotation_in_pixels():
    image = smooth(1, (24, 48))
    image[..., :8], image[..., -8:] = 0, 0
    values = iter([0.1, 10.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9])  # turned by 10°, neither scaled nor mirrored
    matrix = geometry(image, lambda low, high: torch.full((1, 1, 1, 1), next(values)), True)
    relative = np.diag([24, 48]) @ matrix[0].numpy() @ np.diag([1 / 24, 1 / 48])
    angle = np.deg2rad(10)
    expected = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    np.testing.assert_allclose(relative, expected, atol=1e-5)


def test_gamma_keeps_mean_and_deviation():
    image = torch.rand(3, 1, 16, 16, generator=generator())
    power = torch.tensor([0.7, 1.0, 1.5]).view(3, 1, 1, 1)
    curved = gamma(image, power)
    for x, y, g in zip(image.double().numpy(), curved.numpy(), (0.7, 1.0, 1.5), strict=True):
        z = ((x - x.min()) / (x.max() - x.min())) ** g
        np.testing.assert_allclose(y, (z - z.mean()) / z.std() * x.std() + x.mean(), atol=1e-4)


@pytest.mark.parametrize("space", [(33, 33), (15, 33, 33), (4, 33, 33)], ids=["2d", "3d", "thin"])
def test_a_third_of_the_resolution_is_every_third_pixel_interpolated(space):
    image = torch.rand(2, 1, *space, generator=generator())
    low = low_resolution(image, torch.tensor([1 / 3, 1.0]).view(2, *[1] * (len(space) + 1)))
    torch.testing.assert_close(low[1], image[1])
    thin = space[0] == 4
    actual, planes = (low[:1, 0], image[:1, 0]) if thin else (low[:1], image[:1])
    axes = 2 if thin else len(space)
    coarse = planes[(..., *[slice(1, None, 3)] * axes)]
    expected = F.interpolate(coarse, scale_factor=3, mode="trilinear" if axes == 3 else "bilinear")
    inner = (..., *[slice(3, -3)] * axes)
    torch.testing.assert_close(actual[inner], expected[inner], atol=1e-4, rtol=0)


def test_every_kind_of_change_has_its_share():
    images = torch.rand(1, 1, 16, 16, generator=generator()).expand(4000, 1, 16, 16) * 0.6 + 0.2
    draws = generator(1)

    def draw(low, high):
        return torch.rand(4000, 1, 1, 1, generator=draws) * (high - low) + low

    changed = _record(images, torch.randn(images.shape, generator=draws), draw)
    same = (changed == images).flatten(1).all(1).float().mean().item()
    assert same == pytest.approx(0.9 * 0.9 * 0.85 * 0.85 * 0.875 * 0.9 * 0.7, abs=0.03)
    assert changed.min() >= 0
    assert changed.max() <= 1


@pytest.mark.parametrize("space", [(40, 40), (12, 30, 30)])
def test_labels_follow_images_within_mixed_precision(space):
    images, points = torch.rand(6, 1, *space), torch.rand(6, 3, len(space))
    turned = augment_strongly(images, torch.Generator().manual_seed(0))[1]
    with torch.autocast("cpu", torch.bfloat16):
        within = augment_strongly(images, torch.Generator().manual_seed(0))[1]
        told = within.images(images), within.points(points)
    assert torch.equal(within.matrix, turned.matrix)
    assert torch.equal(told[0], turned.images(images))
    assert torch.equal(told[1], turned.points(points))


def test_the_same_seed_makes_the_same_images():
    images = smooth(4, (20, 24, 28))
    first, second, other = (augment_strongly(images, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1].matrix, second[1].matrix)
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_what_lies_outside_of_an_image_is_black_and_background(space):
    ones = torch.ones(60, 1, *space)
    _, turned = augment_strongly(ones, generator())
    images, masks = turned.images(ones), turned.masks(ones[:, 0].long())
    outside = masks == 0
    assert 0.005 < outside.float().mean() < 0.5
    assert images[:, 0][outside].max() <= 0.5 + 1e-4
    if len(space) == 2:  # in a cube what is nearest may weigh less than the rest together
        assert images[:, 0][~outside].min() >= 0.5 - 1e-4
