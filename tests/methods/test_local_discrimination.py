"""Local Discrimination: what it hands on."""

from dataclasses import replace

from semiseg.contract import tiny_task
from semiseg.methods.local_discrimination import LocalDiscrimination


def test_the_class_layer_is_not_handed_on():
    for handed, parts in (("encoder", {"encoder"}), ("all", {"encoder", "decoder"})):
        method = LocalDiscrimination(tiny_task(2), LocalDiscrimination.Config(handed=handed))
        assert {name.partition(".")[0] for name in method.handed_on()} == parts


def test_patches_cannot_be_told_by_their_place_and_turn_only_where_the_benchmark_turns_images(task, batch):
    for turns in (True, False):
        method, asked = LocalDiscrimination(replace(task, turns=turns)), []
        method.pixels.compare = lambda *given, asked=asked: asked.append(given[-2:])
        method.read(batch)
        assert asked == [(True, turns)]
