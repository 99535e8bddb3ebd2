"""Energy is read where it can be, through counters that begin anew, and nothing is made up where it cannot."""

import pytest

from semiseg.training.energy import Meter


def counter(folder, name, value, most=999_999_999):
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{value}\n")
    (folder / name / "max_energy_range_uj").write_text(f"{most}\n")


def test_whole_processors_are_added_up_and_their_parts_are_not(tmp_path):
    for name, value in (("intel-rapl:0", 5_000_000), ("intel-rapl:1", 0), ("intel-rapl:0:0", 1), ("dtpm", 7)):
        counter(tmp_path, name, value)
    meter = Meter(tmp_path)
    assert meter.joules == 0
    counter(tmp_path, "intel-rapl:0", 8_000_000)
    counter(tmp_path, "intel-rapl:1", 500_000)
    counter(tmp_path, "intel-rapl:0:0", 9_000_000)
    assert meter.joules == pytest.approx(3.5)
    assert meter.joules == pytest.approx(3.5)


def test_a_counter_that_begins_anew_takes_nothing_away(tmp_path):
    counter(tmp_path, "intel-rapl:0", 999_000_000)
    meter = Meter(tmp_path)
    counter(tmp_path, "intel-rapl:0", 1_000_000)
    assert meter.joules == pytest.approx(2.0)


def test_where_nothing_can_be_read_there_is_no_number(tmp_path):
    assert Meter(tmp_path / "absent").joules is None
    (tmp_path / "intel-rapl:0").mkdir()
    assert Meter(tmp_path).joules is None
