"""CTAugment: operations do what Pillow's do, masks follow their images, and the rates learn what is too much."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from scipy import ndimage

from semiseg.ctaugment import BINS, GEOMETRIES, PHOTOMETRIES, CTAugment, Policy, Rates, distort, recolor

SPACES = {"square": (32, 32), "wide": (24, 40), "volume": (3, 32, 32)}

PILLOW = {
    "autocontrast": lambda image, m: Image.blend(image, ImageOps.autocontrast(image), m),
    "brightness": lambda image, m: ImageEnhance.Brightness(image).enhance(0.1 + 1.9 * m),
    "color": lambda image, m: ImageEnhance.Color(image).enhance(0.1 + 1.9 * m),
    "contrast": lambda image, m: ImageEnhance.Contrast(image).enhance(0.1 + 1.9 * m),
    "equalize": lambda image, m: Image.blend(image, ImageOps.equalize(image), m),
    "invert": lambda image, m: Image.blend(image, ImageOps.invert(image), m),
    "posterize": lambda image, m: ImageOps.posterize(image, 1 + math.floor(7.999 * m)),
    "solarize": lambda image, m: ImageOps.solarize(image, math.floor(255.999 * m)),
    "smooth": lambda image, m: Image.blend(image, image.filter(ImageFilter.SMOOTH), m),
    "blur": lambda image, m: Image.blend(image, image.filter(ImageFilter.BLUR), m),
    "sharpness": lambda image, m: ImageEnhance.Sharpness(image).enhance(0.1 + 1.9 * m),
}


def photometry(name, images, magnitude):
    """One operation alone."""
    return PHOTOMETRIES[name](images, torch.full((len(images), *[1] * (images.ndim - 1)), magnitude)).clamp(0, 1)


def geometry(images, labels, *operations):
    """The same one or two operations, (name, magnitude), for every item."""
    names, magnitudes = zip(*operations, *[("identity", 0.0)] * (2 - len(operations)), strict=True)
    policy = Policy(
        torch.tensor([[GEOMETRIES.index(name) for name in names]] * len(images)),
        torch.tensor([magnitudes] * len(images)),
    )
    return distort(images, labels, policy)


def scene(*shape):
    """Eight-bit images with structure, which covers neither end of the range."""
    noise = np.random.default_rng(0).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, [0] * (len(shape) - 2) + [1, 1])
    return (40 + 180 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


def waves(count, space):
    """Images without edges, so that interpolation is nearly exact."""
    y, x = torch.meshgrid(*(torch.linspace(0, 1, n) for n in space[-2:]), indexing="ij")
    phase = torch.arange(count).view(count, 1, *[1] * len(space))
    return (0.5 + 0.4 * torch.sin(7 * y + 5 * x + phase)).expand(count, 1, *space).clone()


@pytest.mark.parametrize("magnitude", [0.1, 0.6, 0.9])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PHOTOMETRIES)
def test_photometric_operations_agree_with_pillow(name, channels, magnitude):
    pixels = scene(channels, 32, 40)
    image = Image.fromarray(pixels[0] if channels == 1 else np.moveaxis(pixels, 0, -1).copy())
    expected = np.asarray(PILLOW[name](image, magnitude), np.float32).reshape(32, 40, channels)
    actual = photometry(name, torch.from_numpy(pixels)[None] / 255, magnitude)[0].movedim(0, -1).numpy() * 255
    inner = (slice(2, -2), slice(2, -2))  # Pillow's filters leave the border as it is
    assert np.abs(actual[inner] - expected[inner]).max() < 2  # Pillow rounds, or cuts off, up to twice
    assert np.abs(actual[inner] - expected[inner]).mean() < 1


@pytest.mark.parametrize("name", PHOTOMETRIES)
def test_a_constant_image_stays_finite_and_two_channels_are_fine(name):
    for images in (torch.full((2, 1, 8, 8), 0.5), torch.rand(2, 2, 8, 8), torch.zeros(1, 5, 4, 8, 8)):
        changed = photometry(name, images, 0.7)
        assert changed.shape == images.shape
        assert changed.isfinite().all()


@pytest.mark.parametrize("name", PHOTOMETRIES)
def test_a_volume_is_recolored_as_a_whole_and_filtered_slice_by_slice(name):
    volume = torch.from_numpy(scene(2, 1, 4, 16, 24)) / 255
    changed = photometry(name, volume, 0.8)
    if name in ("smooth", "blur", "sharpness"):
        expected = torch.stack([photometry(name, plane, 0.8) for plane in volume.unbind(2)], 2)
    else:
        expected = photometry(name, volume.flatten(2, 3), 0.8).view_as(volume)
    torch.testing.assert_close(changed, expected)


def test_every_item_undergoes_its_own_operations_in_their_order():
    torch.manual_seed(0)
    images = torch.rand(40, 1, 8, 8)
    policy = CTAugment().photometry.draw(40)
    names = list(PHOTOMETRIES)
    expected = []
    for item, image in enumerate(images[:, None]):
        for operation, magnitude in zip(
            policy.operations[item].tolist(), policy.magnitudes[item].tolist(), strict=True
        ):
            image = photometry(names[operation], image, magnitude)
        expected.append(image)
    torch.testing.assert_close(recolor(images, policy), torch.cat(expected))
    assert len(policy.operations.unique()) == len(names)
    assert len(policy.magnitudes.unique()) == 80


def by_hand(plane, name, magnitude):
    """A geometric operation in pixels from the centre, evaluated by SciPy."""
    (height, width), signed = plane.shape, 2 * magnitude - 1
    y, x = np.mgrid[:height, :width].astype(float)
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    angle = math.radians(45) * signed
    x, y = {
        "identity": lambda: (x, y),
        "rescale": lambda: (x * (1 - 2 * 0.25 * magnitude), y * (1 - 2 * 0.25 * magnitude)),
        "rotate": lambda: (x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)),
        "shear_x": lambda: (x + 0.3 * signed * y, y),
        "shear_y": lambda: (x, y + 0.3 * signed * x),
        "translate_x": lambda: (x + 0.3 * signed * width, y),
        "translate_y": lambda: (x, y + 0.3 * signed * height),
    }[name]()
    return ndimage.map_coordinates(plane, [y + (height - 1) / 2, x + (width - 1) / 2], order=1, mode="grid-constant")


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("name", GEOMETRIES[:-1])
def test_geometric_operations_agree_with_an_independent_evaluation(name, space):
    images = waves(2, space)
    for magnitude in (0.1, 0.5, 0.95):
        moved, _ = geometry(images, torch.zeros(0), (name, magnitude))
        for actual, image in zip(moved.flatten(0, -3), images.flatten(0, -3), strict=True):
            np.testing.assert_allclose(actual.numpy(), by_hand(image.numpy(), name, magnitude), atol=2e-3)


def test_the_second_operation_follows_the_first():
    images, none = waves(3, (48, 48)), torch.zeros(0)
    first, second = ("translate_x", 0.8), ("rotate", 0.9)

    def in_turn(images):
        return geometry(geometry(images, none, first)[0], none, second)[0]

    kept = in_turn(torch.ones_like(images)) > 0.999  # the others have left the image in between
    at_once, swapped = geometry(images, none, first, second)[0], geometry(images, none, second, first)[0]
    assert kept.float().mean() > 0.4
    assert (at_once - in_turn(images))[kept].abs().max() < 0.02
    assert (at_once - swapped)[kept].abs().mean() > 0.05


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_masks_follow_their_images_and_belong_to_the_first(space):
    torch.manual_seed(0)
    blobs = (waves(64, space)[:, 0] > 0.5).long()
    images, labels = CTAugment().weak(blobs[:, None].float(), 2 * blobs[:48])
    sure = (images[:48, 0] - 0.5).abs() > 0.499  # elsewhere, nearest and bilinear sampling may differ
    assert sure.float().mean() > 0.8
    assert torch.equal((images[:48, 0] > 0.5).long()[sure], labels[sure] // 2)
    assert set(labels.unique().tolist()) == {0, 2}  # no false classes
    moved = (labels // 2 != blobs[:48]).flatten(1).any(1)
    assert moved.float().mean() > 0.8


def test_a_hole_is_square_anywhere_and_the_same_in_image_and_mask():
    torch.manual_seed(0)
    images, labels = geometry(torch.ones(400, 2, 20, 30), torch.ones(400, 20, 30).long(), ("cutout", 0.6))
    assert torch.equal(images[:, 0].long(), labels)
    assert torch.equal(images[:, 0], images[:, 1])
    rows, columns = (labels == 0).any(2).sum(1), (labels == 0).any(1).sum(1)
    side = 1 + math.floor(0.499 * 0.6 * 20)
    assert rows.max() == columns.max() == side
    assert (rows == side).float().mean() > 0.6  # the others are cut by the border
    assert torch.equal((labels == 0).sum((1, 2)), rows * columns)
    assert (labels == 0).any(0).all()  # it reaches every pixel


def test_a_hole_moves_with_the_operation_that_follows():
    images, none, shift = torch.ones(60, 1, 20, 20), torch.zeros(0), ("translate_x", 1.0)  # by 6 pixels
    torch.manual_seed(0)
    hole, _ = geometry(images, none, ("cutout", 0.5))
    torch.manual_seed(0)
    moved, _ = geometry(images, none, ("cutout", 0.5), shift)
    torch.testing.assert_close(moved, geometry(hole, none, shift)[0], atol=1e-4, rtol=0)
    torch.manual_seed(0)
    last, _ = geometry(images, none, shift, ("cutout", 0.5))
    assert not torch.equal(last, moved)


def test_rates_follow_the_published_rule():
    rates = Rates([4, 2], decay=0.9)
    policy = Policy(torch.tensor([[0, 1], [0, 0]]), torch.tensor([[0.30, 0.99], [0.26, 1.0]]))
    rates.update(policy, torch.tensor([0.5, 0.7]))
    twice = 1.0
    for _ in range(2):
        twice = 0.9 * twice + 0.1 * 0.6
    expected = torch.tensor([[1, twice, 1, 0.9 + 0.07], [1, 0.9 + 0.05, -1, -1]])
    torch.testing.assert_close(rates.rates, expected)


def test_magnitudes_come_from_bins_that_the_network_copes_with():
    torch.manual_seed(0)
    rates = Rates([4, 2], decay=0.99)
    rates.rates[0] = torch.tensor([1.0, 0.9, 0.84, 0.3])
    policy = rates.draw(20_000)
    first = policy.magnitudes[policy.operations == 0]
    shares = torch.histc(first, 4, 0, 1) / len(first)
    torch.testing.assert_close(shares, torch.tensor([1.01, 0.91, 0, 0]) / 1.92, atol=0.01, rtol=0)
    second = policy.magnitudes[policy.operations == 1]
    torch.testing.assert_close(torch.histc(second, 2, 0, 1) / len(second), torch.full((2,), 0.5), atol=0.01, rtol=0)
    assert (rates.draw(1000, uniform=True).magnitudes > 0.75).any()


def test_posterize_has_eight_bins_and_unused_ones_are_never_drawn():
    augment = CTAugment()
    with torch.no_grad():
        augment.photometry.rates[augment.photometry.rates > 0] = 1e-6  # even if nothing works
    likelihood = augment.photometry.likelihood
    for name, row in zip(PHOTOMETRIES, likelihood, strict=True):
        assert (row > 0).sum() == (8 if name == "posterize" else BINS), name


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_a_guess_lowers_the_rates_and_an_oracle_does_not(space):
    images, labels = torch.rand(2, 1, *space), torch.zeros(2, *space).long()

    def answer(confidence):
        def predict(shown):
            logits = torch.zeros(len(shown), 4, *space)
            logits[:, 0] = confidence
            return logits

        return predict

    augment = CTAugment()
    start = augment.photometry.rates.clone()
    augment.probe(answer(100.0), images, labels)
    torch.testing.assert_close(augment.photometry.rates, start)
    augment.probe(answer(0.0), images, labels)
    changed = augment.photometry.rates[augment.photometry.rates != start]
    once, twice = 0.99 + 0.01 / 4, 0.99 * (0.99 + 0.01 / 4) + 0.01 / 4  # p is ¼ at the right class
    assert len(changed) >= 2
    assert all(min(abs(r - once), abs(r - twice)) < 1e-5 for r in changed.tolist())


def test_what_the_network_cannot_cope_with_is_no_longer_drawn():
    torch.manual_seed(0)
    augment = CTAugment()
    images, labels = torch.full((64, 1, 8, 8), 0.5), torch.zeros(64, 8, 8).long()

    def afraid_of_dark(shown):
        return torch.stack([10 * (shown[:, 0] - 0.3), torch.zeros_like(shown[:, 0])], 1)

    for _ in range(100):
        augment.probe(afraid_of_dark, images, labels)
    likelihood = dict(zip(PHOTOMETRIES, augment.photometry.likelihood, strict=True))
    assert not likelihood["brightness"][:3].any()
    assert likelihood["brightness"][-3:].all()
    assert likelihood["smooth"].all()


def test_a_probe_moves_the_labels_with_their_images(monkeypatch):
    monkeypatch.setattr("semiseg.ctaugment.recolor", lambda images, policy: images)
    augment, blobs = CTAugment(), (waves(32, (32, 32)) > 0.5).float()
    augment.probe(lambda shown: 1e3 * torch.cat([0.5 - shown, shown - 0.5], 1), blobs, blobs[:, 0].long())
    assert augment.geometry.rates[augment.geometry.rates >= 0].min() > 0.998


def test_a_magnitude_that_is_no_longer_drawn_is_probed_still():
    torch.manual_seed(0)
    augment = CTAugment()
    for rates in (augment.geometry.rates, augment.photometry.rates):
        rates[:, 4:].clamp_(max=0.1)
    images, labels = torch.rand(64, 1, 8, 8), torch.zeros(64, 8, 8).long()
    augment.probe(lambda shown: torch.cat([100 + shown, shown], 1), images, labels)  # an oracle
    for rates in (augment.geometry.rates, augment.photometry.rates):
        assert (rates[:, 4:] > 0.1).sum() > 10


def test_rates_are_saved_with_the_weights():
    augment, other = CTAugment(), CTAugment()
    augment.photometry.update(augment.photometry.draw(8), torch.rand(8))
    other.load_state_dict(augment.state_dict())
    assert torch.equal(other.photometry.rates, augment.photometry.rates)
    assert not torch.equal(CTAugment().photometry.rates, augment.photometry.rates)
