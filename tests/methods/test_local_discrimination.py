"""Local Discrimination: what it hands on."""

from semiseg.contract import tiny_task
from semiseg.methods.local_discrimination import LocalDiscrimination


def test_the_class_layer_is_not_handed_on():
    for handed, parts in (("encoder", {"encoder"}), ("all", {"encoder", "decoder"})):
        method = LocalDiscrimination(tiny_task(2), LocalDiscrimination.Config(handed=handed))
        assert {name.partition(".")[0] for name in method.handed_on()} == parts
