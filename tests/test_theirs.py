"""Numbers of somebody's own: compared, marked as theirs, never in bold, and refused where cases differ."""

import json

import pandas as pd
import pytest
from tests.test_report import CLASSES, make_results, printed
from tests.test_report_tasks import TASKS, write_task_run

from semiseg.errors import UserError
from semiseg.report import report
from semiseg.report.cost import cost_table
from semiseg.report.formats import text
from semiseg.report.page_data import page_data
from semiseg.report.provenance import left_out, run_warnings
from semiseg.report.reading import read_results
from semiseg.report.scores import main_table
from semiseg.report.tables import all_tables
from semiseg.report.theirs import add_theirs
from semiseg.tasks import task_kind


def give(path, rows):
    path.parent.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def theirs(folds=(0, 1), labels="5%", dice=0.99):
    return [
        {"case": case, "class_name": name, "dice": dice, "fold": fold, "labels": labels}
        for fold in folds
        for case in "ab"
        for name in CLASSES[1:]
    ]


@pytest.fixture
def results(tmp_path):
    return read_results(make_results(tmp_path / "r"))


def test_numbers_of_ones_own_are_compared_marked_as_theirs_and_never_bold(tmp_path, results):
    content = add_theirs(results, [give(tmp_path / "mine/cases.csv", theirs())])
    table = main_table(content)
    row = next(row for row in table.rows if row[0] == "mine (theirs)")
    assert text(row[1]) == "99.00 ± 0.00"
    assert not row[1].best
    assert any(
        "Given, not measured" in note and "mine (theirs) from cases.csv (SHA-256 " in note for note in table.notes
    )
    tables = {t.name: t for t in all_tables(content)}
    assert ["5 %", "mine (theirs)", "+9.00"] in [row[:3] for row in printed(tables["differences"])]
    full = next(row for row in tables["full"].rows if row[:2] == ["5 %", "mine (theirs)"])
    assert [text(cell) for cell in full[3:]] == ["–"] * len(full[3:]), "nothing is made up that was not given"
    ours = [[text(cell) for cell in r] for r in table.rows if r is not row]
    assert ours == [[text(cell) for cell in r] for r in main_table(results).rows]


def test_what_was_given_was_no_run_of_ours(tmp_path, results):
    content = add_theirs(results, [give(tmp_path / "mine/cases.csv", theirs(folds=[0]))])
    assert cost_table(content).rows == cost_table(results).rows
    assert left_out(content).rows == left_out(results).rows
    assert run_warnings(content).rows == run_warnings(results).rows
    row = next(row for row in main_table(content).rows if row[0] == "mine (theirs)")
    assert text(row[1]) == "99.00†"


def test_the_page_shows_them_and_leaves_open_what_was_not_given(tmp_path, results):
    file = give(tmp_path / "mine/cases.csv", theirs())
    data = page_data([add_theirs(results, [file])])
    json.dumps(data, allow_nan=False)
    (cell,) = [cell for cell in data["benchmarks"][0]["cells"] if cell["role"] == "theirs"]
    assert cell["scores"][0][0] == [99.0, None, None]
    assert cell["scores"][0][2] == [None, None, None]
    page = report(results.path, tmp_path / "out", add=[file]).read_text()
    assert "mine (theirs)" in page
    with pytest.raises(UserError, match="--out is needed"):
        report(results.path, add=[file])


@pytest.mark.parametrize("task", TASKS)
def test_numbers_of_another_task_are_given_by_what_it_compares_methods_by(tmp_path, task):
    for method, role in (("plain", "lower"), ("ant", "semi")):
        write_task_run(tmp_path / "r", task, method, 0, [0.4], role=role)
    primary = task_kind(task).primary
    rows = [{"case": case, "class_name": name, primary.name: 0.75} for case in "abc" for name in TASKS[task][1:]]
    report(tmp_path / "r", tmp_path / "out", add=[give(tmp_path / "mine/cases.csv", rows)])
    assert "| mine (theirs) | 75.00 |" in (tmp_path / "out/tables/main.md").read_text("utf-8")
    with pytest.raises(UserError, match=f"{primary.name} should be a number from 0 to 1"):
        report(
            tmp_path / "r",
            tmp_path / "out",
            add=[give(tmp_path / "q/c.csv", [row | {primary.name: 75} for row in rows])],
        )
    with pytest.raises(UserError, match=f"lacks the column {primary.name};"):
        report(tmp_path / "r", tmp_path / "out", add=[give(tmp_path / "p/c.csv", theirs())])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (theirs()[:-1], "fold 1, seed 0 lacks 1 of 4 .* means over others"),
        (theirs()[:4] + theirs()[:1], "repeats"),
        (theirs(dice=99), "from 0 to 1"),
        ([{"case": "a", "class_name": "wall"}], "lacks the column dice"),
        ([row | {"class_name": "tooth"} for row in theirs()], "class_name"),
        ([{k: v for k, v in row.items() if k != "labels"} for row in theirs()], "column `labels`"),
        ([{k: v for k, v in row.items() if k != "fold"} for row in theirs()], "column `fold`"),
        (theirs(folds=(7,)), "fold 7"),
        (theirs(labels="30%"), "at 30 %, fold 0, seed 0: no finished run"),
        ([row | {"seed": 3} for row in theirs()], "seed 3: no finished run"),
        ([row | {"method": "ant"} for row in theirs()], "'ant' already"),
    ],
)
def test_numbers_that_cannot_be_compared_are_refused_with_what_to_do(tmp_path, results, rows, said):
    with pytest.raises(UserError, match=said) as error:
        add_theirs(results, [give(tmp_path / "mine/cases.csv", rows)])
    assert "\n" not in str(error.value)
