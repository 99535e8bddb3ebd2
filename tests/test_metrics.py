"""The scores: equal to MedPy where it is defined, honest about missed organs where it is not."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from medpy.metric import binary as medpy
from monai.metrics import compute_surface_dice
from scipy.ndimage import binary_dilation

from semiseg.errors import UserError
from semiseg.metrics import TABLE, case_metrics, class_metrics

DISTANCES = {"hd95", "hd95_max", "asd"}


@st.composite
def mask_pairs(draw, dimensions=(2, 3)):
    """Two random masks with a spacing: islands, holes, borders touched, full and nearly empty masks."""
    dimension = draw(st.sampled_from(dimensions))
    shape = tuple(draw(st.integers(1, 12 if dimension == 2 else 7)) for _ in range(dimension))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    masks = []
    for _ in range(2):
        mask = random.random(shape) < draw(st.sampled_from([0.03, 0.3, 0.8, 1.0]))
        if draw(st.booleans()):
            mask = binary_dilation(mask)
        if draw(st.booleans()):  # one half of the image only, so that cropping has something to cut away
            mask[: shape[0] // 2] = False
        masks.append(mask)
    spacing = tuple(draw(st.sampled_from([0.3, 0.625, 1.0, 1.5, 3.0])) for _ in range(dimension))
    return *masks, spacing


def full_image_surface(mask):
    """Inside pixels with a face neighbor outside, spelled out pixel by pixel, on the whole image."""
    padded = np.pad(mask, 1)
    return np.array(
        [
            p
            for p in np.argwhere(mask)
            if not all(
                padded[tuple(p + 1 + step * np.eye(mask.ndim, dtype=int)[axis])]
                for axis in range(mask.ndim)
                for step in (-1, 1)
            )
        ]
    )


def brute_force_distances(prediction, reference, spacing):
    first, second = full_image_surface(prediction), full_image_surface(reference)
    offsets = (first[:, None] - second[None]) * np.asarray(spacing)
    distances = np.sqrt((offsets**2).sum(-1))
    return distances.min(1), distances.min(0)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(mask_pairs())
def test_numbers_are_comparable_with_papers_that_used_medpy(pair):
    prediction, reference, spacing = pair
    if not prediction.any() or not reference.any():
        return
    expected = {
        "dice": medpy.dc(prediction, reference),
        "jaccard": medpy.jc(prediction, reference),
        "precision": medpy.precision(prediction, reference),
        "recall": medpy.recall(prediction, reference),
        "hd95": medpy.hd95(prediction, reference, spacing),
        "asd": medpy.asd(prediction, reference, spacing),
    }
    scores = case_metrics(prediction, reference, spacing)
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(mask_pairs(), st.sampled_from([0.0, 0.625, 1.0, 2.0]))
def test_scores_without_a_medpy_counterpart_follow_their_definition(pair, tolerance):
    prediction, reference, spacing = pair
    if not prediction.any() or not reference.any():
        return
    forth, back = brute_force_distances(prediction, reference, spacing)
    scores = case_metrics(prediction, reference, spacing, tolerance)
    larger = max(np.percentile(forth, 95), np.percentile(back, 95))
    assert scores["hd95_max"] == pytest.approx(larger, abs=1e-9)
    within = (forth <= tolerance).sum() + (back <= tolerance).sum()
    assert scores["nsd"] == pytest.approx(within / (len(forth) + len(back)), abs=1e-12)
    assert scores["mae"] == np.abs(prediction.astype(int) - reference.astype(int)).mean()


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@settings(max_examples=40, deadline=None, derandomize=True)
@given(mask_pairs(), st.sampled_from([0.625, 1.0, 2.0]))
def test_surface_dice_is_monais(pair, tolerance):
    prediction, reference, spacing = pair
    if not prediction.any() or not reference.any() or 1 in prediction.shape:
        return
    one_hot = [torch.from_numpy(np.stack([~mask, mask])[None]) for mask in (prediction, reference)]
    expected = compute_surface_dice(*one_hot, class_thresholds=[tolerance], spacing=list(spacing))
    scores = case_metrics(prediction, reference, spacing, tolerance)
    assert scores["nsd"] == pytest.approx(expected.item(), abs=1e-6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(mask_pairs(), st.integers(1, 5))
def test_empty_space_around_a_structure_changes_no_score_but_mae(pair, margin):
    prediction, reference, spacing = pair
    if not prediction.any() or not reference.any():
        return
    tight = case_metrics(prediction, reference, spacing)
    wide = case_metrics(np.pad(prediction, margin), np.pad(reference, margin), spacing)
    del tight["mae"], wide["mae"]
    assert tight == wide


@pytest.mark.parametrize("shape", [(30, 40), (10, 30, 40)])
def test_a_missed_organ_is_never_rewarded(shape):
    organ, nothing = np.zeros(shape, bool), np.zeros(shape, bool)
    organ[..., 3:8, 3:8] = True
    spacing = (0.5,) * len(shape)
    diagonal = 0.5 * np.sqrt(np.square(shape).sum())
    for prediction, reference in ((nothing, organ), (organ, nothing)):
        scores = case_metrics(prediction, reference, spacing)
        assert all(scores[name] == pytest.approx(diagonal) for name in DISTANCES)
        assert all(scores[name] == 0 for name in TABLE if name not in DISTANCES | {"mae"})
        assert scores["mae"] == organ.mean()


def test_a_correctly_predicted_absence_is_perfect():
    nothing = np.zeros((9, 9), bool)
    scores = case_metrics(nothing, nothing, (1.0, 1.0))
    assert scores == {name: float(metric.better == "higher") for name, metric in TABLE.items()}


def test_a_false_island_shows_in_the_larger_directed_percentile_only():
    reference = np.zeros((64, 64), bool)
    reference[20:40, 20:40] = True
    prediction = reference.copy()
    prediction[60, 58:64] = True
    scores = case_metrics(prediction, reference, (1.0, 1.0))
    assert scores["hd95"] == 0
    assert scores["hd95_max"] > 25


def test_a_deviation_of_exactly_the_tolerance_is_forgiven():
    reference, prediction = np.zeros((1, 40), bool), np.zeros((1, 40), bool)
    reference[0, 17], prediction[0, 27] = True, True
    assert case_metrics(prediction, reference, (0.1, 0.1), tolerance=1.0)["nsd"] == 1


def test_every_foreground_class_is_scored_even_when_it_is_absent():
    reference = np.zeros((16, 16), np.uint8)
    reference[2:8, 2:8] = 1
    prediction = reference.copy()
    prediction[12:, 12:] = 3
    classes = ["background", "left", "right", "wall"]
    first, second, third = class_metrics(prediction, reference, classes, (1.0, 1.0))
    assert list(first) == ["class", "class_name", *TABLE, "predicted_voxels", "reference_voxels"]
    assert (first["class_name"], first["dice"], first["predicted_voxels"]) == ("left", 1.0, 36)
    assert (second["dice"], second["reference_voxels"]) == (1.0, 0)
    assert (third["dice"], third["predicted_voxels"], third["reference_voxels"]) == (0.0, 16, 0)


def test_masks_of_different_sizes_are_refused():
    with pytest.raises(UserError, match="shape"):
        case_metrics(np.ones((4, 4)), np.ones((4, 5)), (1.0, 1.0))
