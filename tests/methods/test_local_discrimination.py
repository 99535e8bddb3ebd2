"""Local Discrimination: what it learns from, and what it hands on."""

from dataclasses import replace

import pytest
import torch

from regions import bits, listen, shares, spread, told_apart
from semiseg.contract import tiny_task
from semiseg.method import Batch, Progress
from semiseg.methods.local_discrimination import LocalDiscrimination


def test_the_class_layer_is_not_handed_on():
    for handed, parts in (("encoder", {"encoder"}), ("all", {"encoder", "decoder"})):
        method = LocalDiscrimination(tiny_task(2), LocalDiscrimination.Config(handed=handed))
        assert {name.partition(".")[0] for name in method.handed_on()} == parts


@pytest.fixture
def batch():
    torch.manual_seed(0)
    views = {name: torch.rand(2, 1, 32, 32) for name in LocalDiscrimination.views}
    return Batch(views, torch.zeros(0, 32, 32, dtype=torch.long))


def built(**config):
    return LocalDiscrimination(tiny_task(2), LocalDiscrimination.Config(clusters=5, **config)).train()


def test_regions_and_their_sureness_count_by_their_weights(batch):
    method = built(region_weight=3.0, region_temperature=0.3, entropy_weight=0.7)
    spread(method.pixels)
    calls = listen(method.pixels)
    losses = method.losses(batch, Progress(0, 10, "regions"))
    ((_, known),) = calls
    clusters = shares(method.pixels, known.features)
    assert losses["regions"].item() == pytest.approx(3 * told_apart(known.vectors, clusters, 0.3), rel=1e-4)
    assert losses["entropy"].item() == pytest.approx(0.7 * bits(clusters), rel=1e-3)
    assert {name: losses[name] for name in known.losses} == known.losses
    assert losses.keys() == {*known.losses, "regions", "entropy"}


@pytest.mark.parametrize("stage", ["patches", "regions"])
def test_both_views_are_compared_in_the_patches_and_at_the_temperature_asked_for(batch, stage):
    method = built(patches=6, temperature=0.15)
    calls = listen(method.pixels)
    {stage.name: stage for stage in method.stages()}[stage].losses(batch, Progress(0, 10, stage))
    ((given, _),) = calls
    assert torch.equal(given["first"], batch.images("strong"))
    assert torch.equal(given["second"], batch.images("strong-2"))
    assert (given["patches"], given["temperature"]) == (6, 0.15)


def test_patches_cannot_be_told_by_their_place_and_turn_only_where_the_benchmark_turns_images(batch):
    for turns in (True, False):
        method, asked = LocalDiscrimination(replace(tiny_task(2), turns=turns)), []
        method.pixels.compare = lambda *given, asked=asked: asked.append(given[-2:])
        method.read(batch)
        assert asked == [(True, turns)]
