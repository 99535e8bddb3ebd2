"""Cost beside quality: means over the runs, and whether they had the device to themselves."""

from math import isnan

from tests.test_report import printed, retell, write_run

from semiseg.report.cost import cost_table
from semiseg.report.quality_cost import frontier, quality_cost, seconds
from semiseg.report.reading import read_results
from semiseg.report.summary import summary_frame


def test_cost_is_a_mean_over_runs_which_say_whether_they_shared_the_device(tmp_path):
    write_run(tmp_path, "plain", 0.05, 0, 0.5, role="lower", seconds=10, environment={"concurrency": 2})
    write_run(tmp_path, "plain", 0.2, 0, 0.5, role="lower", seconds=13, environment={"concurrency": 1})
    write_run(tmp_path, "ant", 0.05, 0, 0.6, seconds=7, peak_memory_mb=300, images_per_second=None)
    write_run(tmp_path, "ant", 0.05, 1, 0.6, seconds=99, status="failed")
    write_run(tmp_path, "ant", 0.2, 0, 0.6, seconds=8, peak_memory_mb=None, images_per_second=None)
    table = cost_table(read_results(tmp_path))
    assert printed(table) == [
        ["Plain", "1", "2", "11.5", "10.0", "1.0", "1, 2"],
        ["Ant", "1", "2", "7.5", "–", "300.0 (1 of 2)", "–"],
    ]
    assert len(table.columns) == 7, "parameters that no run counted have no columns"


def test_runs_whose_seconds_hold_the_comparing_of_weights_are_told(tmp_path):
    chosen = {"selection": {"validation": {"step": 3, "dice": 0.5}}}
    write_run(tmp_path, "ant", 0.05, 0, 0.6, selection_seconds=4.0, **chosen)
    assert not any("comparing of weights" in note for note in cost_table(read_results(tmp_path)).notes)
    write_run(tmp_path, "old", 0.05, 0, 0.6, **chosen)
    assert any("Seconds of 1 runs are with" in note for note in cost_table(read_results(tmp_path)).notes)


def test_seconds_of_different_processors_are_never_averaged(tmp_path):
    for fold, (device, took) in enumerate([("cpu: a", 400), ("cuda: b", 40), ("cuda: b", 50), ("cuda: b", 60)]):
        write_run(tmp_path, "ant", 0.05, fold, 0.6, seconds=took, environment={"device": device})
    write_run(tmp_path, "slow", 0.05, 0, 0.6, seconds=500, environment={"device": "cpu: a"})
    results = read_results(tmp_path)
    table = cost_table(results)
    assert [row[:4] for row in printed(table)] == [["Ant", "1", "3", "50.0"], ["Slow", "1", "0", "–"]]
    assert any("cuda: b" in note for note in table.notes)
    assert list(summary_frame(results).seconds.fillna(0)) == [50, 0]
    axes = quality_cost(results).axes[0]
    assert "cuda: b" in axes.get_xlabel()
    assert [list(line.get_xdata()) for line in axes.lines if line.get_marker() != "None"] == [[50]]


def test_parameters_that_are_trained_and_those_at_test_time_are_told_apart(tmp_path):
    counted = {"trained": 2_345_678, "predicting": 1_200_000}
    write_run(tmp_path, "ant", 0.05, 0, 0.6)
    retell(tmp_path, part="method", parameters=counted)
    write_run(tmp_path, "old", 0.05, 0, 0.6)
    table = cost_table(read_results(tmp_path))
    assert table.columns[2:4] == ["Parameters trained (million)", "Parameters at test time (million)"]
    assert [row[:4] for row in printed(table)] == [["Ant", "1", "2.35", "1.20"], ["Old", "1", "–", "–"]]


def test_energy_has_a_column_where_some_run_could_read_it(tmp_path):
    write_run(tmp_path, "ant", 0.05, 0, 0.6, attempt_joules=1500.0)
    write_run(tmp_path, "ant", 0.05, 1, 0.6, attempt_joules=None)
    write_run(tmp_path, "old", 0.05, 0, 0.6)
    table = cost_table(read_results(tmp_path))
    column = table.columns.index("Energy (kJ)")
    assert [row[column] for row in printed(table)] == ["1.5 (1 of 2)", "–"]
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_what_a_run_starts_from_counts_among_its_seconds(tmp_path):
    write_run(tmp_path, "ant", 0.05, 0, 0.6, seconds=10, start={"seconds": 5})
    write_run(tmp_path, "ant", 0.05, 1, 0.6, seconds=11)
    write_run(tmp_path, "ant", 0.05, 2, 0.6, seconds=None)
    results = read_results(tmp_path)
    assert seconds(results.finished) == 13
    assert isnan(seconds([]))
    table = cost_table(results)
    assert printed(table)[0][3] == "13.0 (2 of 3)"
    assert any("with those of the pre-training that a run starts from" in note for note in table.notes)
    assert list(summary_frame(results).seconds) == [13]


def test_the_frontier_is_what_nothing_cheaper_equals():
    assert frontier([(3, 0.9), (1, 0.5), (2, 0.5), (4, 0.8), (1, 0.4)]) == [(1, 0.5), (3, 0.9)]


def test_no_recorded_seconds_make_no_plot(tmp_path):
    write_run(tmp_path, "ant", 0.05, 0, 0.6, seconds=None)
    assert quality_cost(read_results(tmp_path)) is None
