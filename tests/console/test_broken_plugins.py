"""The command line with a broken plugin: one line on stderr, and all else goes on."""

import json

import pytest
import yaml

from commands import call
from semiseg.benchmarks.expansion import resolve
from semiseg.registry import find_methods
from semiseg.settings import BenchmarkSettings


@pytest.fixture
def called(monkeypatch, capfd, tmp_path):
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: (call(*arguments), *capfd.readouterr())


def test_the_others_are_listed(called):
    code, out, err = called("methods", "--json", "--methods-dir", ".")
    assert code == 0
    assert {"supervised", "mutual_exemplar"} <= {row["name"] for row in json.loads(out)}
    assert err.startswith("semiseg: left out: broken.py: the plugin cannot be imported (ZeroDivisionError")
    assert err.count("\n") == 1


@pytest.mark.parametrize("broken", [True, False])
def test_a_benchmark_of_all_goes_on_with_the_rest_and_says_so(called, tmp_path, broken):
    """It gets as far as its data, which are missing here."""
    (tmp_path / "b.yaml").write_text(yaml.safe_dump({"dataset": "nothing", "methods": ["all"]}))
    if not broken:
        (tmp_path / "broken.py").unlink()
    code, _, err = called("run", "b.yaml", "--methods-dir", ".", "--device", "cpu")
    *left_out, last = err.splitlines()
    assert code == 2
    assert "nothing.h5: there is no such data set" in last
    assert [line.partition("(")[0] for line in left_out] == broken * [
        "semiseg: left out: broken.py: the plugin cannot be imported "
    ]


def test_all_leaves_out_the_broken_one(tmp_path):
    (tmp_path / "broken.py").write_text("1 / 0")
    settings = BenchmarkSettings(name="b", dataset="d", methods=("all",))
    found = find_methods(tmp_path)
    assert "broken" in found.broken
    assert set(resolve(settings, found).methods) == set(resolve(settings, find_methods()).methods)


def test_asking_for_the_broken_one_gives_the_reason(called, tmp_path):
    (tmp_path / "b.yaml").write_text(yaml.safe_dump({"dataset": "nothing", "methods": ["broken"]}))
    code, _, err = called("run", "b.yaml", "--methods-dir", ".", "--device", "cpu")
    assert code == 2
    assert err.count("\n") == 1
    assert "benchmark b: broken.py: the plugin cannot be imported (ZeroDivisionError: division by zero)" in err
