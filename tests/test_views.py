"""Views: masks stay on their images, and a photometric view moves nothing."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Generator

from semiseg.errors import UserError
from semiseg.strong_augmentation import augment_strongly
from semiseg.views import VIEWS, Photometry, _grid, likely_imaging, move, view, warp

NAMES = tuple(VIEWS["camera"])
SPACES = {"square": (32, 32), "wide": (24, 40), "tall": (40, 24), "volume": (3, 32, 32)}


def generator(seed=0):
    return Generator().manual_seed(seed)


def warped_together(images, masks, generator):
    """Images, and the masks that follow them."""
    images, geometry = warp(images, generator)
    return images, geometry.masks(masks)


def smooth(count, space, channels=1):
    """Images without edges, so that interpolation is nearly exact."""
    y, x = torch.meshgrid(*(torch.linspace(0, 1, n) for n in space[-2:]), indexing="ij")
    phase = torch.arange(count * channels).view(count, channels, *[1] * len(space))
    return (0.5 + 0.4 * torch.sin(3 * y + 2 * x + phase)).expand(count, channels, *space).clone()


def quarter_turns_and_flips(plane):
    """All images that a right-angled geometry may make of a plane (..., height, width)."""
    turns = (0, 1, 2, 3) if plane.shape[-1] == plane.shape[-2] else (0, 2)
    return [torch.rot90(plane, k, (-2, -1)).flip(axis) for k in turns for axis in (-1, -2)]


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_masks_follow_their_images(space):
    blobs = (smooth(64, space)[:, 0] > 0.5).long()
    images, labels = warped_together(blobs[:, None].float(), blobs, generator())
    # Nearest and bilinear sampling of the same mask may differ by rounding on an edge only.
    sure = (images[:, 0] - 0.5).abs() > 0.499
    assert sure.float().mean() > 0.8
    assert torch.equal((images[:, 0] > 0.5).long()[sure], labels[sure])
    assert labels.dtype == torch.long
    assert not torch.equal(labels, blobs)


def test_labels_belong_to_the_first_images():
    blobs = (smooth(8, (32, 32))[:, 0] > 0.5).long()
    images, labels = warped_together(blobs[:, None].float(), blobs[:3], generator())
    assert labels.shape == (3, 32, 32)
    assert ((images[:3, 0] > 0.5).long() == labels).float().mean() > 0.97


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_right_angles_and_flips_are_exact_for_half_of_the_images(space):
    images = torch.rand(200, 1, *space, generator=generator(1))
    masks = torch.randint(4, (200, *space), generator=generator(2))
    warped, labels = warped_together(images, masks, generator())
    exact = set()
    for index in range(200):
        for kind, wanted in enumerate(quarter_turns_and_flips(images[index, 0])):
            if torch.allclose(warped[index, 0], wanted, atol=1e-4):
                exact.add((index, kind))
                assert torch.equal(labels[index], quarter_turns_and_flips(masks[index])[kind])
    assert 70 < len({i for i, _ in exact}) < 130
    kinds = 8 if space[-1] == space[-2] else 4
    assert {kind for _, kind in exact} == set(range(kinds)), "every turn and flip happens"


@pytest.mark.parametrize("space", [(32, 32), (24, 40), (40, 24)])
def test_rotations_do_not_shear_images_that_are_not_square(space):
    y, x = torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in space), indexing="ij")
    blob = (-(y**2 + x**2) / 32).exp().expand(50, 1, *space)
    warped, _ = warp(blob, generator())
    assert (warped - blob).abs().max() < 0.04, "a round blob looks the same at every angle"


def test_rotations_stay_within_twenty_degrees_and_use_them():
    x = torch.linspace(-1, 1, 101)[None, :].expand(101, 101)
    ramp = (0.5 + 0.25 * x).expand(300, 1, 101, 101)
    warped, _ = warp(ramp, generator())
    center = warped[:, 0, 30:71, 30:71]
    slope_x = (center[:, :, -1] - center[:, :, 0]).mean(1)
    slope_y = (center[:, -1] - center[:, 0]).mean(1)
    degrees = torch.atan2(slope_y, slope_x).rad2deg()
    turned = degrees[(degrees.abs() % 90 > 0.5) & (degrees.abs() % 90 < 89.5)]
    assert 110 < len(turned) < 190
    assert turned.abs().max() <= 20.1
    assert turned.min() < -15
    assert turned.max() > 15


def test_without_turns_the_ends_of_every_organ_stay_where_they_are():
    """Classes that only direction tells apart, such as left and right, would otherwise look alike."""
    x = torch.linspace(-1, 1, 33)[None, :].expand(33, 33)
    marked = torch.stack([0.5 + 0.4 * x, 0.5 + 0.4 * x.T]).repeat(50, 1, 1)[:, None]
    warped, _ = warp(marked, generator(), turns=False)
    right = warped[0::2, 0, 16, 26] - warped[0::2, 0, 16, 6]
    below = warped[1::2, 0, 26, 16] - warped[1::2, 0, 6, 16]
    assert min(right.min(), below.min()) > 0.4, "neither flipped nor turned"
    assert right.std() > 0.001, "still rotated a little"


def test_what_comes_from_beyond_the_border_is_black_background():
    images, labels = warped_together(torch.ones(50, 1, 32, 32), torch.ones(50, 32, 32, dtype=torch.long), generator())
    assert 0 < (labels == 0).float().mean() < 0.15
    assert images[labels[:, None] == 0].mean() < 0.5


def test_slices_of_a_volume_share_the_geometry_of_an_image():
    planes, masks = smooth(6, (32, 32)), (smooth(6, (32, 32))[:, 0] > 0.5).long()
    volumes, volume_masks = planes[:, :, None].expand(-1, -1, 4, -1, -1), masks[:, None].expand(-1, 4, -1, -1)
    flat, flat_masks = warped_together(planes, masks, generator())
    deep, deep_masks = warped_together(volumes, volume_masks, generator())
    for index in range(4):
        assert torch.allclose(deep[:, :, index], flat, atol=1e-6)
        assert torch.equal(deep_masks[:, index], flat_masks)


@pytest.mark.parametrize("recorded_by", VIEWS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("name", NAMES)
def test_views_stay_in_range_and_finite(name, space, channels, recorded_by):
    for images in (torch.rand(8, channels, *space, generator=generator(1)), torch.zeros(8, channels, *space),
                   torch.ones(8, channels, *space)):  # fmt: skip
        shown = view(images, name, generator(), recorded_by)
        assert shown.shape == images.shape
        assert shown.isfinite().all()
        assert shown.min() >= 0
        assert shown.max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_a_view_changes_its_input_only_in_its_copy(name):
    images = torch.rand(4, 3, 32, 32, generator=generator(1))
    before = images.clone()
    view(images, name, generator())
    assert torch.equal(images, before)


def test_plain_is_the_image():
    images = torch.rand(4, 3, 32, 32)
    assert torch.equal(view(images, "plain", generator()), images)


@pytest.mark.parametrize("name", NAMES[1:])
def test_views_follow_from_the_generator_and_differ_between_images(name):
    images = smooth(1, (32, 32), channels=3).expand(8, -1, -1, -1)
    shown = view(images, name, generator(0))
    assert torch.equal(shown, view(images, name, generator(0)))
    assert not torch.equal(shown, view(images, name, generator(1)))
    assert len({tuple(image.flatten().tolist()) for image in shown}) == 8


def test_warping_follows_from_the_generator_and_differs_between_images():
    images = smooth(1, (32, 32)).expand(16, -1, -1, -1)
    warped, _ = warp(images, generator(0))
    assert torch.equal(warped, warp(images, generator(0))[0])
    assert not torch.equal(warped, warp(images, generator(1))[0])
    assert len({tuple(image.flatten().tolist()) for image in warped}) > 10


@pytest.mark.parametrize("name", ["weak", "moderate"])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_a_view_moves_no_pixel(name, space):
    images = torch.full((8, 1, *space), 0.1)
    images[..., 9:12, 14:17] = 1.0
    shown = view(images, name, generator()).flatten(1, -3).mean(1)
    weights = shown.flatten(1).clamp(min=0.5) - 0.5  # what is left of the block
    rows = torch.arange(space[-2]).repeat_interleave(space[-1]) * weights
    columns = torch.arange(space[-1]).repeat(space[-2]) * weights
    assert ((rows.sum(1) / weights.sum(1) - 10).abs() < 0.5).all()
    assert ((columns.sum(1) / weights.sum(1) - 15).abs() < 0.5).all()


@pytest.mark.parametrize("recorded_by", VIEWS)
def test_views_grow_stronger(recorded_by):
    images = smooth(64, (48, 48), channels=3)
    change = [(view(images, name, generator(), recorded_by) - images).abs().mean().item() for name in NAMES]
    assert change == sorted(change)
    assert change[0] == 0
    assert change[3] > 2 * change[1] > 0


def removed(space, channels=1):
    """The share of each white image that the strong view blackens; noise never reaches exactly 0."""
    shown = view(torch.ones(400, channels, *space), "strong", generator())
    return (shown == 0).all(1).flatten(1).float().mean(1)


@pytest.mark.parametrize(("space", "share"), [((96, 96), 0.36), ((64, 96), 0.36), ((24, 48, 48), 0.216)])
def test_the_grid_mask_removes_its_share_where_it_is_on(space, share, monkeypatch):
    monkeypatch.setitem(VIEWS["camera"], "strong", Photometry(grid_mask=1.0))
    shares = removed(space)
    assert abs(shares.mean() - share) < 0.03
    assert shares.min() > 0.3 * share
    monkeypatch.setitem(VIEWS["camera"], "strong", Photometry(grid_mask=0.8))
    assert 0.72 < (removed(space) > 0).float().mean() < 0.88


@pytest.mark.parametrize("space", [(64, 64), (24, 48, 48)])
def test_cutout_removes_one_small_box(space, monkeypatch):
    monkeypatch.setitem(VIEWS["camera"], "strong", Photometry(cutout=1.0))
    shown = view(torch.ones(100, 1, *space), "strong", generator())[:, 0] == 0
    assert 0 < shown.float().mean() <= 0.3 ** len(space)
    for mask in shown:
        filled = torch.ones_like(mask)
        for axis in range(len(space)):
            hit = mask.any(tuple(a for a in range(len(space)) if a != axis)) if mask.any() else mask.new_zeros(1)
            filled &= hit.view([-1 if a == axis else 1 for a in range(len(space))])
        assert torch.equal(mask, filled), "a box is the product of its sides"


def test_colors_change_only_where_there_are_colors(monkeypatch):
    monkeypatch.setitem(VIEWS["camera"], "strong", Photometry(saturation=0.4, hue=0.1, gray=0.2))
    for channels in (1, 2, 4):
        images = torch.rand(8, channels, 16, 16)
        assert torch.equal(view(images, "strong", generator()), images)
    color = torch.rand(64, 3, 16, 16, generator=generator(1)) * 0.5 + 0.25
    assert not torch.allclose(view(color, "strong", generator()), color, atol=0.05)
    gray = color.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    assert torch.allclose(view(gray, "strong", generator()), gray, atol=2e-3), "gray has no hue to turn"
    shown = view(color, "strong", generator())
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    inside_gamut = ((shown > 0) & (shown < 1)).all(1)
    assert torch.allclose((shown * luma).sum(1)[inside_gamut], (color * luma).sum(1)[inside_gamut], atol=2e-3)
    monkeypatch.setitem(VIEWS["camera"], "strong", Photometry(saturation=0.4, hue=0.1, gray=1.0))
    turned_gray = view(color, "strong", generator())
    assert torch.allclose(turned_gray[:, 0], turned_gray[:, 2], atol=1e-5)


def test_the_grid_mask_removes_squares_of_one_size():
    numbers = iter([40.0, 0.5, 0.0, 0.0])  # period, angle, and where the grid begins
    kept = _grid(torch.ones(1, 1, 200, 200), lambda low, high: torch.tensor(next(numbers)))
    squares, count = ndimage.label(~kept[0, 0].numpy())
    areas = ndimage.sum_labels(np.ones((200, 200)), squares, range(1, count + 1))
    assert count > 15
    assert areas.max() == pytest.approx((0.6 * 40) ** 2, rel=0.03)


def test_a_numbered_view_is_a_further_draw_and_an_unknown_one_is_refused():
    images = torch.rand(2, 3, 16, 16)
    draws = [view(images, name, generator()) for name in ("strong", "strong-2")]
    assert torch.equal(*draws)  # the same kind of view: only the generator's state makes it another draw
    with pytest.raises(UserError, match=r"no view 'sharp-2'; choose from plain, weak, moderate, strong"):
        view(images, "sharp-2", generator())


def test_a_strong_view_of_a_scan_hides_nothing_and_leaves_some_images_alone():
    """What spoils a camera's picture does not happen to MR: no holes, no noise, and not every image is altered."""
    images = 0.4 + 0.2 * smooth(1, (48, 48)).expand(2000, -1, -1, -1)
    shown = view(images, "strong", generator(), "scan")
    assert (shown > 0).all()
    untouched = (shown - images).abs().flatten(1).amax(1) == 0
    assert untouched.float().mean() == pytest.approx(0.2 * 0.5, abs=0.03)
    flat = view(torch.full((2000, 1, 48, 48), 0.5), "strong", generator(), "scan")
    kept = (flat - 0.5).abs().flatten(1).amax(1) < 1e-6  # blur leaves a flat image as it is
    assert kept.float().mean() == pytest.approx(0.2, abs=0.03)
    assert flat.amax() < 0.76


def test_what_recorded_an_image_is_told_by_its_colours():
    assert [likely_imaging(channels) for channels in (1, 2, 3, 4)] == ["scan", "scan", "camera", "scan"]


@pytest.mark.parametrize("moved_by", [warp, augment_strongly])
def test_points_move_with_the_pixels_that_they_mark(moved_by):
    size, marked = (48, 64), torch.tensor([[20.0, 30.0], [25.0, 40.0], [30.0, 22.0]])
    y, x = torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij")
    blobs = (-((y - marked[:, 0, None, None]) ** 2 + (x - marked[:, 1, None, None]) ** 2) / 18).exp()[:, None]
    points = 2 * (marked[:, None] + 0.5) / torch.tensor(size) - 1
    for seed in range(20):
        images, motion = moved_by(blobs, generator(seed))
        moved = motion.points(points[:2])
        assert moved.shape == (2, 1, 2)
        found = ((moved[:, 0] + 1) * torch.tensor(size) - 1) / 2
        for image, point in zip(images[:2, 0], found, strict=True):
            peak = image.argmax().item()
            assert (torch.tensor(divmod(peak, size[1])) - point).norm() < 1.5


def test_a_geometry_and_its_inverse_bring_points_and_pixels_back():
    images = smooth(3, (40, 24))
    geometry = move(images, generator())
    points = torch.rand(3, 5, 2) - 0.5
    assert torch.allclose(geometry.inverse().points(geometry.points(points)), points, atol=1e-5)
    back = geometry.inverse().images(geometry.images(images))
    inside = geometry.inverse().images(geometry.images(torch.ones_like(images))) > 0.99
    assert inside.float().mean() > 0.4
    assert (back - images)[inside].abs().max() < 0.01
