"""Which network a method reports is fixed in its file, and the file says so; another one would change every table."""

import pytest

from semiseg.contract import tiny_task
from semiseg.registry import get_method

REPORTED = {
    "abd": "first",
    "abd_bcp": "student",
    "ad_mt": "student",
    "bcp": "student",
    "cps": "first",
    "cross_teaching": "first",
    "fixmatch": "teacher",
    "ict": "teacher",
    "mean_teacher": "teacher",
    "mona": "student",
    "self_training": "student",
    "ua_mt": "teacher",
}


@pytest.mark.parametrize("name", REPORTED)
def test_of_several_networks_the_one_is_reported_that_the_file_names(name):
    method = get_method(name)(tiny_task(2))
    assert next(iter(method.predictors().values())) is getattr(method, REPORTED[name])
