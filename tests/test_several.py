"""Several benchmarks in one report: a data set counts once, who is incomplete is not ranked, and all is told."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy import stats
from tests.test_report import CLASSES, write_run
from tests.test_report_tasks import write_task_run

from semiseg.console.cli import report as command
from semiseg.errors import UserError
from semiseg.report import report_several
from semiseg.report.formats import text
from semiseg.report.page_data import page_data
from semiseg.report.rank_plots import critical_difference_diagram
from semiseg.report.ranks import average_ranks, cliques, critical_difference, friedman
from semiseg.report.reading import read_results
from semiseg.report.several import all_entries, combined_table, ranks_table


def benchmark(root, dice, data):
    """A folder with one run of each method per amount of labels; `dice` is {labels: {method: score}}."""
    for labels, scores in dice.items():
        for method, score in scores.items():
            role = "lower" if method == "plain" else "semi"
            told = {"title": data, "classes": CLASSES, "hash": data, "split_hash": "2"}
            write_run(root, method, labels, 0, score, role=role, data=told)
    return read_results(root)


@pytest.fixture
def three(tmp_path):
    """Three folders, of which two are of the same data."""
    return [
        benchmark(
            tmp_path / "one", {0.05: {"plain": 0.5, "a": 0.7, "b": 0.6}, 0.2: {"plain": 0.7, "a": 0.6, "b": 0.6}}, "A"
        ),
        benchmark(tmp_path / "again", {0.05: {"plain": 0.5, "a": 0.6, "b": 0.7}}, "A"),
        benchmark(tmp_path / "other", {0.05: {"plain": 0.9, "a": 0.8, "b": 0.7, "c": 0.6}}, "B"),
    ]


def test_every_data_set_counts_once_however_many_fractions_and_benchmarks_it_has(three):
    ranks = average_ranks(three)
    of_a = {"plain": (3 + 1 + 3) / 3, "a": (1 + 2.5 + 2) / 3, "b": (2 + 2.5 + 1) / 3}
    of_b = {"plain": 1, "a": 2, "b": 3}
    assert dict(ranks.average) == pytest.approx({name: (of_a[name] + of_b[name]) / 2 for name in of_a})
    assert list(ranks.average) == sorted(ranks.average)
    assert ranks.left_out == ["c"]
    table = ranks_table(three, all_entries(three), ranks)
    assert table.columns == ["Method", "Average rank", "A", "B"]
    assert any("left out: C." in note for note in table.notes)
    assert any("here are 2" in note and "No critical-difference diagram" in note for note in table.notes)


def test_a_method_with_a_missing_run_is_not_ranked_with_the_others(tmp_path):
    first = benchmark(tmp_path / "one", {0.05: {"plain": 0.5, "a": 0.7, "b": 0.6}}, "A")
    write_run(tmp_path / "one", "a", 0.05, 1, 0.9, status="failed")
    write_run(tmp_path / "one", "plain", 0.05, 1, 0.9, role="lower")
    write_run(tmp_path / "one", "b", 0.05, 1, 0.9)
    assert list(average_ranks([first]).blocks) == ["plain", "a", "b"]
    assert average_ranks([read_results(tmp_path / "one")]).left_out == ["a"]
    write_run(tmp_path / "two", "plain", 0.05, 0, 0.9, role="lower", seed=1)
    second = benchmark(tmp_path / "two", {0.05: {"plain": 0.5, "a": 0.7}}, "B")
    ranks = average_ranks([first, second])
    assert (list(ranks.blocks), ranks.skipped) == (["plain", "a", "b"], ["two at 5 %"])


def test_methods_without_labels_do_not_keep_the_others_from_being_ranked(tmp_path):
    benchmark(tmp_path / "one", {0.05: {"plain": 0.5, "a": 0.7}}, "A")
    for name in ("free", "free_too"):
        folder = write_run(tmp_path / "one", name, 0.05, 0, 0.4)
        record = json.loads((folder / "run.json").read_text())
        record["method"]["uses_labels"] = False
        (folder / "run.json").write_text(json.dumps(record))
    mixed = read_results(tmp_path / "one")
    assert mixed.amounts == [0.0, 0.05]
    ranks = average_ranks([mixed])
    assert (dict(ranks.average), ranks.skipped) == ({"a": 1.0, "plain": 2.0}, [])
    shutil.rmtree(tmp_path / "one/runs/plain")
    shutil.rmtree(tmp_path / "one/runs/a")
    assert set(average_ranks([read_results(tmp_path / "one")]).average.index) == {"free", "free_too"}


def test_a_joint_report_has_every_benchmark_with_its_footnotes_twice_the_same(three, tmp_path):
    folders = [content.path for content in three]
    for out in ("x", "y"):
        report_several(folders, tmp_path / out)
    files = sorted(f.relative_to(tmp_path / "x") for f in (tmp_path / "x").rglob("*") if f.is_file())
    expected = {f"tables/{name}.{s}" for name in ("combined", "ranks") for s in ("md", "tex", "csv")}
    assert {str(f) for f in files} == expected | {"index.html", "summary.csv", "plots/ranks.png", "plots/ranks.pdf"}
    assert all((tmp_path / "x" / f).read_bytes() == (tmp_path / "y" / f).read_bytes() for f in files)
    assert list(pd.read_csv(tmp_path / "x/summary.csv").benchmark.unique()) == ["one", "again", "other"]
    table = combined_table(three, all_entries(three))
    assert table.columns == ["Method", "one 5 %", "one 20 %", "again 5 %", "other 5 %"]
    assert [text(cell) for cell in table.rows[-1]] == ["C", "–", "–", "–", "60.00"]
    assert [[cell.best for cell in row[1:4]] for row in table.rows[:3]] == [
        [False, False, False], [True, True, False], [False, True, True],
    ]  # fmt: skip
    assert [note.split(":")[0] for note in table.notes[1:]] == ["one", "again", "other"]


def test_on_the_page_benchmarks_on_the_same_data_are_not_taken_for_one(three):
    assert [benchmark["data"] for benchmark in page_data(three)["benchmarks"]] == ["A, one", "A, again", "B"]


def test_folders_of_one_name_could_not_be_told_apart(three, tmp_path):
    benchmark(tmp_path / "elsewhere/one", {0.05: {"plain": 0.5, "a": 0.7}}, "C")
    with pytest.raises(UserError, match="one: several folders"):
        report_several([three[0].path, tmp_path / "elsewhere/one"], tmp_path / "x")


def test_a_report_on_several_folders_needs_a_place_of_its_own(three, tmp_path):
    folders = [content.path for content in three]
    with pytest.raises(UserError, match="--out"):
        command(folders)
    with pytest.raises(UserError, match="--against and --add take a single folder"):
        command(folders, tmp_path / "x", against="a")


def test_results_of_different_tasks_stand_side_by_side_and_are_ranked_apart(three, tmp_path):
    for root, task, values in (("skull", "localization", {"plain": 0.3, "a": 0.2}), ("notes", "alignment", {"b": 0.4})):
        for method, value in values.items():
            write_task_run(tmp_path / root, task, method, 0, [value], role="lower" if method == "plain" else "semi")
    contents = [three[0], *(read_results(tmp_path / name) for name in ("skull", "notes"))]
    table = combined_table(contents, all_entries(contents))
    assert table.title == "Dice (%) and Within 2 (%) and Recall at 1 (%) in every benchmark"
    assert table.columns == [
        "Method", "one 5 %, Dice (%)", "one 20 %, Dice (%)", "skull 25 %, Within 2 (%)", "notes 25 %, Recall at 1 (%)",
    ]  # fmt: skip
    assert [[text(cell) for cell in row] for row in table.rows] == [
        ["Plain", "50.00", "70.00", "30.00", "–"],
        ["A", "70.00", "60.00", "20.00", "–"],
        ["B", "60.00", "60.00", "–", "40.00"],
    ]
    assert any("no mean is taken over them" in note for note in table.notes)
    page = report_several([content.path for content in contents], tmp_path / "x").read_text("utf-8")
    files = {file.stem for file in (tmp_path / "x/tables").glob("*.csv")}
    assert files == {"combined", "ranks_dice", "ranks_within_2", "ranks_recall_1"}
    within = (tmp_path / "x/tables/ranks_within_2.md").read_text("utf-8")
    assert within.startswith("### Average ranks by Within 2: skull: ")
    assert "| Plain | 1.00 | 1.00 |" in within, "in Dice, it is the last of two"
    assert "no rank is averaged over different metrics" in within
    assert "| None | – |" in (tmp_path / "x/tables/ranks_recall_1.md").read_text("utf-8")
    assert {file.stem for file in (tmp_path / "x/plots").glob("*.png")} == {"ranks_dice", "ranks_within_2"}
    assert "Average ranks by Within 2" in page


def test_results_of_one_task_other_than_segmentation_are_ranked_by_its_own_metric(tmp_path):
    for root in ("one", "two"):
        for method, value in (("plain", 0.3), ("a", 0.4)):
            write_task_run(
                tmp_path / root, "localization", method, 0, [value], role="lower" if method == "plain" else "semi"
            )
    report_several([tmp_path / "one", tmp_path / "two"], tmp_path / "x")
    written = "".join((tmp_path / f"x/tables/{name}.md").read_text("utf-8") for name in ("combined", "ranks"))
    assert "Dice" not in written
    assert "| Method | one 25 % | two 25 % |" in written
    assert "Ranks by Within 2, 1 the best, in 2 comparisons" in written


def test_results_with_one_method_each_have_no_ranks_and_are_reported_all_the_same(tmp_path):
    folders = [benchmark(tmp_path / name, {0.05: {"plain": 0.5}}, name.title()).path for name in ("one", "two")]
    report_several(folders, tmp_path / "x")
    ranks = (tmp_path / "x/tables/ranks.md").read_text("utf-8")
    assert "| None | – |" in ranks
    assert "fewer than two methods are complete there: one at 5 %, two at 5 %." in ranks


def test_the_critical_difference_is_that_of_the_published_table():
    """Demšar (2006), table 5: q at 5 % for 2 to 10 classifiers."""
    q = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]
    for k, value in enumerate(q, start=2):
        assert critical_difference(k, 14) == pytest.approx(value * np.sqrt(k * (k + 1) / (6 * 14)), abs=2e-3)


def test_friedmans_test_ranks_within_data_sets():
    scores = np.random.default_rng(0).uniform(size=(12, 4))
    ranks = stats.rankdata(scores, axis=1)
    k, n = 4, 12
    chi = 12 * n / (k * (k + 1)) * ((ranks.mean(0) ** 2).sum() - k * (k + 1) ** 2 / 4)
    assert friedman(pd.DataFrame(scores)) == pytest.approx(stats.chi2.sf(chi, k - 1))


def test_bars_join_the_largest_groups_within_the_critical_difference():
    assert cliques(np.array([1.0, 1.5, 2.4, 2.6, 5.0]), 1.2) == [(0, 1), (1, 3)]
    assert cliques(np.array([1.0, 3.0, 5.0]), 1.2) == []


def test_a_critical_difference_diagram_appears_with_ten_data_sets(tmp_path):
    contents = []
    for number in range(10):
        dice = {"plain": 0.5, "a": 0.7, "b": 0.6 + 0.2 * (number > 4), "c": 0.65}
        contents.append(benchmark(tmp_path / f"d{number}", {0.05: dice}, f"D{number}"))
    ranks = average_ranks(contents)
    table = ranks_table(contents, all_entries(contents), ranks)
    assert any(note.startswith("Friedman's test over data sets: p ") for note in table.notes)
    assert not any("No critical-difference diagram" in note for note in table.notes)
    figure = critical_difference_diagram(ranks.data_sets, all_entries(contents), ["ten benchmarks"])
    FigureCanvasAgg(figure).draw()
    words = [word.get_text().strip() for word in figure.axes[0].texts]
    assert {"A  1.50", "B  2.00", "C  2.50", "Plain  4.00"} <= set(words)
    thick = [line for line in figure.axes[0].get_lines() if line.get_linewidth() == 3]
    assert len(thick) == 1, "a to c differ by 1.00, c to plain by 1.50, and the critical difference is 1.48"
    assert list(thick[0].get_xdata().round(2)) == [1.44, 2.56]
