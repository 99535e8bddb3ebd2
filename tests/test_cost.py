"""Cost beside quality: means over the runs, and whether they had the device to themselves."""

from tests.test_report import write_run

from semiseg.report.cost import cost_table
from semiseg.report.summary import read_results


def test_cost_is_a_mean_over_runs_which_say_whether_they_shared_the_device(tmp_path):
    write_run(tmp_path, "plain", 0.05, 0, 0.5, role="lower", seconds=10, environment={"concurrency": 2})
    write_run(tmp_path, "plain", 0.2, 0, 0.5, role="lower", seconds=13, environment={"concurrency": 1})
    write_run(tmp_path, "ant", 0.05, 0, 0.6, seconds=7, peak_memory_mb=300, images_per_second=None)
    write_run(tmp_path, "ant", 0.05, 1, 0.6, seconds=99, status="failed")
    write_run(tmp_path, "ant", 0.2, 0, 0.6, seconds=8, peak_memory_mb=None, images_per_second=None)
    table = cost_table(read_results(tmp_path))
    assert table.rows == [
        ["Plain", "1", 2, "11.5", "10.0", "1.0", "1, 2"],
        ["Ant", "1", 2, "7.5", "–", "300.0 (1 of 2)", "–"],
    ]
    assert len(table.columns) == 7
