"""All pairs of methods and their ranks: what an independent evaluation of the same scores says."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tests.test_report import printed
from tests.test_significance import write

from semiseg.report.pairs import pair_differences, pair_table
from semiseg.report.ranking import drawn_ranks, ranking_table, resampled_dice
from semiseg.report.reading import read_results
from semiseg.report.significance import differences
from semiseg.report.summary import score_statistics
from semiseg.report.tables import all_tables

NAMES = ("plain", "ant", "bee")


@pytest.fixture(scope="module")
def scores():
    """(method, fold, case), the third method best by far."""
    return np.random.default_rng(3).normal([[[0.60]], [[0.61]], [[0.68]]], 0.02, (3, 5, 2))


@pytest.fixture(scope="module")
def results(tmp_path_factory, scores):
    root = tmp_path_factory.mktemp("tiny")
    for name, folds in zip(NAMES, scores, strict=True):
        write(root, name, folds.tolist(), role="lower" if name == "plain" else "semi")
    return read_results(root)


def test_every_pair_has_the_corrected_t_of_its_own_folds_and_holm_over_all_pairs(results, scores):
    found = pair_differences(results, 0.05)
    folds, p = scores.mean(2), {}
    for i, j in ((0, 1), (0, 2), (1, 2)):
        gains = folds[i] - folds[j]
        t = gains.mean() / np.sqrt((1 / 5 + 1 / 4) * gains.var(ddof=1))
        own = found[NAMES[i], NAMES[j]]
        p[NAMES[i], NAMES[j]] = 2 * stats.t.sf(abs(t), 4)
        assert own.mean == pytest.approx(gains.mean(), abs=1e-6)
        assert own.evidence.p == pytest.approx(p[NAMES[i], NAMES[j]], abs=1e-4)
    least, middle, most = sorted(p, key=p.get)
    expected = [3 * p[least]]
    expected.append(max(expected[-1], 2 * p[middle]))
    expected.append(max(expected[-1], p[most]))
    assert [found[pair].p_adjusted for pair in (least, middle, most)] == pytest.approx(
        np.minimum(expected, 1), abs=1e-3
    )


def test_a_pair_with_the_lower_bound_is_what_the_table_of_differences_says(tmp_path, scores):
    """Seeds are averaged within their fold, where both methods have them."""
    for seed in (0, 1):
        write(tmp_path, "plain", scores[seed].tolist(), role="lower", seed=seed)
        write(tmp_path, "ant", scores[2 - seed].tolist(), seed=seed, folds=(0, 1, 2, 4 - seed))
    results = read_results(tmp_path)
    ((pair, found),) = pair_differences(results, 0.05).items()
    (expected,) = differences(results, results.entries[0])
    assert pair == ("plain", "ant")
    assert (found.mean, found.pairs, found.partial) == (pytest.approx(-expected.mean), expected.pairs, True)
    assert found.evidence.p == pytest.approx(expected.evidence.p)
    assert found.evidence.worse == pytest.approx(expected.evidence.better)


def test_the_square_says_each_pair_once_above_and_its_probabilities_from_the_rows_side_below(results):
    table = pair_table(results)
    assert table.columns == ["Labels", "Method", "Plain", "Ant", "Bee"]
    square = [row[2:] for row in printed(table)]
    own = pair_differences(results, 0.05)["plain", "bee"]
    assert square[0][2].startswith(f"{100 * own.mean:+.2f} (")
    assert own.mean < 0
    worse, _, better = map(int, square[2][0].split(" / "))
    assert better > 90 > 10 > worse  # bee against plain
    assert [square[i][i] for i in range(3)] == ["–"] * 3
    assert any("No critical-difference diagram" in note for note in table.notes)


def test_two_methods_need_no_square_and_a_run_that_one_lacks_is_marked(tmp_path, scores):
    write(tmp_path, "plain", scores[0].tolist(), role="lower")
    write(tmp_path, "ant", scores[1].tolist())
    assert pair_table(read_results(tmp_path)) is None
    write(tmp_path, "bee", scores[2].tolist(), folds=(0, 1))
    square = [row[2:] for row in printed(pair_table(read_results(tmp_path)))]
    assert "†" in square[0][2]
    assert "†" not in square[0][1]
    assert "(" not in square[0][2]  # two folds have no p
    assert square[2][0] == "–"


def test_a_bootstrap_counts_all_cases_of_a_patient_as_often_as_the_patient_is_drawn():
    random = np.random.default_rng(0)
    rows = [
        {"method": "m", "labels": 0.05, "fold": fold, "seed": seed, "class": kind, "group": group, "case": case}
        for fold in range(2)
        for seed in range(2)
        for kind in (1, 2)
        for group, cases in (("ABC"[fold], 3), ("XYZ"[fold], 1), ("Q", 2))
        for case in range(cases)
        if (group, kind) != ("X", 2) and (fold, seed, kind) != (1, 1, 2)
    ]
    cases = pd.DataFrame(rows).assign(dice=random.random(len(rows)))
    names = sorted(set(cases.group))
    weights = random.multinomial(5, np.full(5, 0.2), 20)
    for drawn, found in zip(weights, resampled_dice(cases, weights, names), strict=True):
        copies = cases.loc[cases.index.repeat([drawn[names.index(group)] for group in cases.group])]
        runs = [run.groupby("class").dice.mean().mean() for _, run in copies.groupby(["fold", "seed"])]
        by_fold = pd.Series(runs).groupby([fold for (fold, _), _ in copies.groupby(["fold", "seed"])]).mean()
        assert found == pytest.approx(by_fold.mean())


def test_with_every_patient_once_the_bootstrap_has_the_score_of_the_tables(results):
    cases = results.cases[results.cases.method == "ant"]
    (found,) = resampled_dice(cases, np.ones((1, cases.group.nunique())), sorted(set(cases.group)))
    assert found == pytest.approx(score_statistics(results).loc[("ant", 0.05), ("dice", "mean")])


def test_ranks_tell_a_clear_winner_from_equals_and_share_ties(tmp_path, results, scores):
    drawn = drawn_ranks(results, 0.05)
    ranks = drawn.ranks
    assert [e.name for e in drawn.entries] == list(NAMES)
    assert (ranks[:, 2] == 1).mean() > 0.95
    assert 0 < (ranks[:, 0] < ranks[:, 1]).mean() < 1
    assert [row[1] for row in ranking_table(results).rows] == ["Plain", "Ant", "Bee"]
    for name in ("one", "two"):
        write(tmp_path, name, scores[0].tolist())
    assert (drawn_ranks(read_results(tmp_path), 0.05).ranks == 1.5).all()


def test_a_method_with_few_folds_is_left_out_of_the_ranks_and_takes_none_from_the_others(tmp_path, results, scores):
    for name, folds in zip(NAMES, scores, strict=True):
        write(tmp_path, name, folds.tolist(), role="lower" if name == "plain" else "semi")
    write(tmp_path, "cat", scores[2, :3].tolist())
    write(tmp_path, "dog", scores[2, :1].tolist() * 8, folds=(7,))
    expected, found = ranking_table(results), ranking_table(read_results(tmp_path))
    assert printed(found) == printed(expected)
    assert "Ranked in folds 0, 1, 2, 3, 4, by the methods that have all of these." in expected.notes
    assert any(note.endswith("have all of these; left out: Cat at 5 %, Dog at 5 %.") for note in found.notes)


def test_runs_of_other_splits_are_paired_with_none_and_tables_say_so(tmp_path, scores):
    for name, folds in zip(NAMES, scores, strict=True):
        write(tmp_path, name, folds.tolist(), role="lower" if name == "plain" else "semi")
    for fold, change in ((0, "split"), (3, "cases")):
        folder = tmp_path / f"runs/bee/labels-05/fold-{fold}/seed-0"
        if change == "split":
            record = json.loads((folder / "run.json").read_text())
            (folder / "run.json").write_text(json.dumps(record | {"data": record["data"] | {"split_hash": "9"}}))
        else:
            cases = pd.read_csv(folder / "cases.csv")
            cases.assign(case=cases.case + "x", group=cases.group + "x").to_csv(folder / "cases.csv", index=False)
    results = read_results(tmp_path)
    gains = (scores[2] - scores[0]).mean(1)[[1, 2, 4]]
    ant, bee = differences(results, results.entries[0])
    assert (ant.pairs, bee.pairs, ant.partial, bee.partial) == (5, 3, False, True)
    assert bee.mean == pytest.approx(gains.mean(), abs=1e-6)
    assert pair_differences(results, 0.05)["plain", "bee"].mean == pytest.approx(-bee.mean)
    tables = {table.name: table for table in all_tables(results)}
    said = "Runs of other splits or test cases are not paired: 5 %, fold 0, 3."
    assert {name for name, table in tables.items() if said in table.notes} == {
        "differences", "differences_cases", "pairs", "ranking",
    }  # fmt: skip
    assert [row[1] for row in tables["ranking"].rows] == ["Plain", "Ant"]
