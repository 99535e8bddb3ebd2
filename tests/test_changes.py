"""What changed between two folders of results is told of the runs that both have, with what they record differently."""

import numpy as np
import pytest
from tests.test_report import make_results, write_run

from semiseg.errors import UserError
from semiseg.report import report
from semiseg.report.changes import changes_table, earlier_results
from semiseg.report.formats import text
from semiseg.report.reading import read_results
from semiseg.report.significance import corrected_t_test


@pytest.fixture
def folders(tmp_path):
    """Two folders: one method has gained, lost a run and has other code, one is new."""
    for root, gain in (("old", 0), ("new", 0.1)):
        for fold in (0, 1):
            write_run(tmp_path / root, "plain", 0.05, fold, 0.5, role="lower")
        write_run(tmp_path / root, "a", 0.05, 0, 0.6 + gain, identity={"code": root})
    write_run(tmp_path / "old", "a", 0.05, 1, 0.1)
    write_run(tmp_path / "new", "fresh", 0.05, 0, 0.8)
    return tmp_path / "old", tmp_path / "new"


def test_what_changed_is_told_of_the_runs_that_both_have(folders):
    table = changes_table(*map(read_results, folders))
    rows = {text(row[1]): [text(cell) for cell in row[2:]] for row in table.rows}
    assert rows["Plain"] == ["nothing recorded", "50.00", "50.00", "+0.00", "–", "–", "2", "2", "0", "0"]
    assert rows["A"] == ["code", "60.00", "70.00†", "+10.00", "–", "–", "1", "0", "0", "1"]
    assert rows["Fresh"] == ["–"] * 6 + ["0", "0", "1", "0"]


def test_a_change_has_the_interval_and_the_p_of_the_test_that_compares_methods(tmp_path):
    gains = (0.02, 0.05, 0.03)
    for fold, gain in enumerate(gains):
        for seed in (0, 1):  # which are averaged within their fold
            write_run(tmp_path / "old", "a", 0.05, fold, 0.5, seed=seed)
            write_run(tmp_path / "new", "a", 0.05, fold, 0.5 + gain + (0.01 if seed else -0.01), seed=seed)
    table = changes_table(read_results(tmp_path / "old"), read_results(tmp_path / "new"))
    expected = corrected_t_test(np.array(gains))
    (row,) = table.rows
    assert [text(cell) for cell in row[5:9]] == [
        "+3.33",
        f"{100 * expected.low:+.2f} to {100 * expected.high:+.2f}",
        f"{expected.p:.3f}",
        "6",
    ]


def test_settings_that_differ_are_named(folders):
    old, new = folders
    write_run(new, "b", 0.05, 0, 0.5)
    spec = read_results(new).finished[0].record["spec"] | {"method": "b", "config": {"weight": 2}}
    write_run(old, "b", 0.05, 0, 0.5, spec=spec | {"config": {"weight": 1}, "training": {"steps": 9}})
    (new / "runs/b").rename(new / "gone")
    write_run(new, "b", 0.05, 0, 0.5, spec=spec)
    table = changes_table(*map(read_results, folders))
    assert next(row for row in table.rows if row[1] == "B")[2] == "steps, weight"


def test_a_report_against_an_earlier_folder_says_what_changed_and_needs_a_place_of_its_own(folders, tmp_path):
    old, new = folders
    page = report(new, tmp_path / "out", against=str(old))
    assert "What changed since old" in page.read_text()
    assert (tmp_path / "out/tables/differences.md").exists()
    with pytest.raises(UserError, match="--out"):
        report(new, against=str(old))


def test_a_method_is_not_taken_for_a_folder_of_its_name(tmp_path, monkeypatch):
    results = read_results(make_results(tmp_path / "r"))
    make_results(tmp_path / "ant")
    monkeypatch.chdir(tmp_path)
    assert earlier_results(results, "ant") is None
    assert earlier_results(results, "./ant").path.name == "ant"
    with pytest.raises(UserError, match="no such folder of earlier results"):
        report(tmp_path / "r", against="bee")
