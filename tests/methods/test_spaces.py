"""What is tried when a method is tuned: its own default among others, all of them settings that it accepts."""

import pytest

from semiseg.registry import find_methods

SPACES = {name: method.space for name, method in find_methods().items() if getattr(method, "space", None)}


@pytest.mark.parametrize("name", SPACES)
def test_tuning_tries_the_default_and_nothing_that_the_method_refuses(name):
    config = find_methods()[name].Config
    for key, values in SPACES[name].items():
        assert getattr(config(), key) in values, f"{key}: the default is not among {values}"
        assert len(set(values)) == len(values) > 1
        for value in values:
            config(**{key: value})


def test_the_methods_whose_weight_is_another_codes_can_be_tuned():
    assert {"cps", "mean_teacher", "ua_mt", "min_max_similarity"} <= SPACES.keys()
