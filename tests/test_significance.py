"""Differences to the lower bound: the right pairs, tests that keep their level, nothing without partners."""

from itertools import product
from math import isnan, nan

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tests.test_report import write_run

from semiseg.report.significance import corrected_t_test, differences, holm, lower_bound
from semiseg.report.summary import read_results
from semiseg.report.tables import all_tables

BASE = [[0.50, 0.60], [0.40, 0.70], [0.55, 0.45]]  # per fold, two cases of one class
GAIN = [[0.10, 0.04], [0.02, -0.01], [0.05, 0.08]]


def write(root, method, scores, *, labels=0.05, role="semi", seed=0, folds=None):
    for fold, values in enumerate(scores):
        if folds is None or fold in folds:
            folder = write_run(root, method, labels, fold, values, seed, role=role, classes=["background", "wall"])
            own = pd.read_csv(folder / "cases.csv")
            own["group"] = own["case"] = [f"{case}{fold}" for case in own["case"]]
            own.to_csv(folder / "cases.csv", index=False)


def compared(root):
    results = read_results(root)
    return differences(results, lower_bound(results))


def added(gain):
    return [[a + b for a, b in zip(x, y, strict=True)] for x, y in zip(BASE, gain, strict=True)]


@pytest.fixture
def found(tmp_path):
    write(tmp_path, "plain", BASE, role="lower")
    write(tmp_path, "better", added(GAIN))
    (difference,) = compared(tmp_path)
    return difference


def test_a_difference_is_the_mean_over_folds_of_what_the_same_folds_gain(found):
    assert found.mean == pytest.approx(np.mean([0.07, 0.005, 0.065]))
    assert (found.folds, found.folds_above, found.groups, found.partial) == (3, 3, 6, False)


def test_the_test_over_cases_counts_how_many_sign_patterns_rank_as_high(found):
    gains = np.ravel(GAIN)
    ranks = np.abs(gains).argsort().argsort() + 1
    observed = ranks[gains > 0].sum()
    sums = [sum(r for r, up in zip(ranks, signs, strict=True) if up) for signs in product([0, 1], repeat=6)]
    assert found.p_groups == pytest.approx(2 * np.mean([s >= observed for s in sums]))


def test_the_test_over_folds_widens_the_variance_for_shared_training_cases():
    folds = [0.03, 0.01, 0.05, -0.01, 0.04]
    p, low, high = corrected_t_test(folds)
    naive = stats.ttest_1samp(folds, 0)
    t = naive.statistic * np.sqrt((1 / 5) / (1 / 5 + 1 / 4))
    assert p == pytest.approx(2 * stats.t.sf(t, 4))
    assert p > naive.pvalue
    assert (low + high) / 2 == pytest.approx(np.mean(folds))
    assert (low > 0) == (p < 0.05)


def test_one_fold_has_no_interval_and_equal_scores_no_evidence():
    assert all(isnan(value) for value in corrected_t_test([0.1]))
    assert corrected_t_test([0.0, 0.0, 0.0])[0] == 1
    assert corrected_t_test([0.1, 0.1, 0.1])[0] < 1e-9


def test_many_comparisons_need_more_evidence_each():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    adjusted = holm([0.02, nan])
    assert adjusted[0] == 0.02
    assert isnan(adjusted[1])


def test_a_method_with_fewer_runs_is_compared_where_both_were_trained(tmp_path):
    """The seed that it lacks may be the lucky one of the other."""
    write(tmp_path, "plain", BASE, role="lower")
    write(tmp_path, "plain", [[0.9, 0.9]] * 3, role="lower", seed=1)
    write(tmp_path, "better", added(GAIN), folds=(0, 2))
    (found,) = compared(tmp_path)
    assert found.mean == pytest.approx(np.mean([0.07, 0.065]))
    assert found.partial
    assert found.groups == 4


def test_cases_of_one_patient_count_once(tmp_path):
    write(tmp_path, "plain", BASE, role="lower")
    write(tmp_path, "better", added(GAIN))
    for file in tmp_path.glob("runs/*/*/*/*/cases.csv"):
        own = pd.read_csv(file)
        own["group"] = own["case"].str[1:]
        own.to_csv(file, index=False)
    (found,) = compared(tmp_path)
    assert found.groups == 3
    assert found.p_groups == pytest.approx(2 / 2**3)  # all three patients gain


def test_a_method_equal_to_the_lower_bound_is_no_better(tmp_path):
    write(tmp_path, "plain", BASE, role="lower")
    write(tmp_path, "same", BASE)
    (found,) = compared(tmp_path)
    assert (found.mean, found.p_groups, found.p_folds) == (0, 1, 1)


def test_methods_are_compared_at_their_own_share_of_labels(tmp_path):
    for labels, gain in ((0.05, GAIN), (0.2, [[-x for x in row] for row in GAIN])):
        write(tmp_path, "plain", BASE, labels=labels, role="lower")
        write(tmp_path, "other", added(gain), labels=labels)
    few, more = compared(tmp_path)
    assert (few.labels, more.labels) == (0.05, 0.2)
    assert few.mean == pytest.approx(-more.mean)
    assert few.mean > 0


def test_the_table_states_every_difference_and_is_left_out_without_a_lower_bound(tmp_path):
    write(tmp_path / "alone", "better", BASE)
    assert "differences" not in [table.name for table in all_tables(read_results(tmp_path / "alone"))]
    write(tmp_path, "plain", BASE, role="lower")
    write(tmp_path, "better", added(GAIN))
    table = next(table for table in all_tables(read_results(tmp_path)) if table.name == "differences")
    assert table.title == "Difference to Plain in Dice points"
    assert table.rows == [
        ["5 %", "Better", "+4.67", "-7.22 to +16.55", "3 of 3", "0.233", "0.233", "5 of 6", "0.062", "0.062"]
    ]


def test_a_second_lower_bound_is_compared_with_the_first(tmp_path):
    write(tmp_path, "plain", BASE, role="lower")
    write(tmp_path, "plainer", added(GAIN), role="lower")
    assert [found.method for found in compared(tmp_path)] == ["plainer"]


def test_a_patient_may_be_called_na_and_a_score_may_not(tmp_path):
    write(tmp_path, "plain", BASE, role="lower")
    write(tmp_path, "better", added(GAIN))
    for file in tmp_path.glob("runs/*/*/fold-0/*/cases.csv"):
        file.write_text(file.read_text().replace(",a0,", ",NA,"))
    assert compared(tmp_path)[0].groups == 6
    damaged = tmp_path / "runs/better/labels-05/fold-1/seed-0/cases.csv"
    pd.read_csv(damaged).assign(dice=["", 0.5]).to_csv(damaged, index=False)
    assert [(run.method, run.fold) for run in read_results(tmp_path).unfinished] == [("better", 1)]
