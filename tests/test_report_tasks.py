"""The report of tasks other than segmentation: their own metrics everywhere, and no word of masks."""

import json

import numpy as np
import pandas as pd
import pytest
from tests.test_report import printed, write_run

from semiseg.errors import UserError
from semiseg.report import report
from semiseg.report.reading import read_results
from semiseg.report.scores import full_table, main_table
from semiseg.report.summary import fold_scores
from semiseg.tasks import task_kind

TASKS = {
    "localization": ["background", "sella", "nasion"],
    "alignment": ["background", "image to text", "text to image"],
}


def write_task_run(root, task, method, fold, values, labels=0.25, **changes):
    """A run of a task, in which every metric has one of `values` after another."""
    folder = write_run(root, method, labels, fold, 0.5, classes=TASKS[task], **changes)
    record = json.loads((folder / "run.json").read_text())
    record["data"]["task"] = task
    (folder / "run.json").write_text(json.dumps(record))
    cases = pd.read_csv(folder / "cases.csv")[["case", "group", "class", "class_name"]]
    cases = pd.concat([cases.assign(case=name, group=name) for name in "abc"], ignore_index=True)
    filled = np.resize(values, len(cases))
    cases.assign(**{metric.name: filled for metric in task_kind(task).metrics}).to_csv(
        folder / "cases.csv", index=False
    )
    return folder


def write_landmarks(root, method, value):
    """A method that has the same share of landmarks within every distance."""
    for fold in (0, 1):
        write_task_run(root, "localization", method, fold, [value])


def results_of(tmp_path, task):
    for method, role, values in (("plain", "lower", [0.2, 0.3]), ("ant", "semi", [0.4, 0.5])):
        for fold in range(2):
            write_task_run(tmp_path, task, method, fold, values, role=role)
    return read_results(tmp_path)


@pytest.mark.parametrize("task", TASKS)
def test_tables_plots_and_page_speak_of_the_task_s_own_metrics(tmp_path, task):
    results = results_of(tmp_path, task)
    report(tmp_path)
    written = [*(tmp_path / "tables").glob("*.md"), *(tmp_path / "tables").glob("*.tex"), tmp_path / "index.html"]
    assert len(written) > 8
    assert f"semi-supervised {task}" in (tmp_path / "index.html").read_text()
    for file in written:
        text = file.read_text()
        page = text.split("<script>")[0] if file.suffix == ".html" else text
        for word in ("Dice", "HD95", "Missed"):
            assert word not in page, (file.name, word)
    title = task_kind(task).primary.title
    assert main_table(results).caption.startswith(f"{title} (%)")
    assert title in (tmp_path / "tables" / "differences.md").read_text()
    assert f"{title} of every test case" in (tmp_path / "index.html").read_text()


def test_distances_have_the_unit_of_the_data_and_numbers_none(tmp_path):
    landmarks = full_table(results_of(tmp_path / "a", "localization"))
    assert landmarks.columns[2:] == [
        "Within 2 ↑ (%)", "Within 2.5 ↑ (%)", "Within 3 ↑ (%)", "Within 4 ↑ (%)", "Radial error ↓ (mm or pixels)",
    ]  # fmt: skip
    assert printed(landmarks)[0][2] == "25.00 ± 0.00"
    assert printed(landmarks)[0][6] == "0.25 ± 0.00"  # as it is
    pairs = full_table(results_of(tmp_path / "b", "alignment"))
    assert pairs.columns[-2:] == ["Median rank ↓", "MI bound ↑"]


def test_ranks_are_summarized_by_their_median(tmp_path):
    write_task_run(tmp_path, "alignment", "ant", 0, [1.0, 1.0, 1.0, 1.0, 30.0, 30.0])
    scores = fold_scores(read_results(tmp_path).cases)
    assert scores["rank"].tolist() == [1.0]
    assert scores["recall_1"].item() == pytest.approx((1 + 1 + 1 + 1 + 30 + 30) / 6)


def test_runs_of_two_tasks_in_one_folder_are_refused(tmp_path):
    write_task_run(tmp_path, "alignment", "ant", 0, [0.5])
    write_run(tmp_path, "bee", 0.25, 0, 0.5)
    with pytest.raises(UserError, match="some runs learned alignment and others segmentation; separate the folders"):
        read_results(tmp_path)


def test_what_the_data_decide_alone_is_never_bold(tmp_path):
    table = full_table(results_of(tmp_path, "alignment"))
    ant = dict(zip(table.columns, table.rows[1], strict=True))
    assert ant["Recall at 1 ↑ (%)"].best
    assert [ant[f"Chance at {k} (%)"].best for k in (1, 5, 10)] == [False] * 3
