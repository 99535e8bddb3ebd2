"""`semiseg check-method`: every check in one line, whether the method is a file or a name, and why it fails."""

import re
import sys

import pytest
import torch

from semiseg.console import checking, cli
from semiseg.console.scaffold import write_scaffold
from semiseg.contract import MethodContract


@pytest.fixture
def call(monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["semiseg", "check-method", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code
        out, err = capfd.readouterr()
        return code, out.splitlines(), err

    return run


@pytest.fixture
def only(monkeypatch):
    """Restrict the contract to the checks that a test is about; the rest is tested for every method."""

    def restrict(*names):
        chosen = {name: MethodContract.checks()[name] for name in names}
        monkeypatch.setattr(MethodContract, "checks", lambda self: chosen)

    return restrict


STATED, BUILT = "check_paper_and_settings_are_stated", "check_declared_number_of_networks_is_built"


def test_files_beside_a_method_are_not_carried_out(call, only, tmp_path):
    write_scaffold("mine", tmp_path)
    (tmp_path / "train_everything.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    only(STATED)
    assert call("mine.py")[0] == 0
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("arguments", [["mine.py"], ["mine", "--methods-dir", "."], ["ict"]])
def test_a_method_is_checked_wherever_it_comes_from(call, only, tmp_path, arguments):
    write_scaffold("mine", tmp_path)
    only(STATED)
    code, lines, err = call(*arguments)
    assert (code, err) == (0, "")
    *checks, last = lines
    assert checks == [f"{dims}D  passed  paper and settings are stated" for dims in (2, 3)]
    assert re.fullmatch(r"(mine|ict) keeps the contract: 1 checks in 2D and in 3D\.", last)


def test_a_failed_check_is_one_line_with_its_reason_and_the_others_go_on(call, only, tmp_path):
    path, _ = write_scaffold("mine", tmp_path)
    path.write_text(path.read_text().replace("    views =", "    networks = 2\n    views ="))
    only(BUILT, STATED)
    code, lines, err = call(path)
    assert code == 1
    assert lines[0] == (
        "2D  FAILED  declared number of networks is built: build makes 1 networks by self.network(), but networks = 2"
    )
    assert lines[1].startswith("2D  passed")
    assert len(lines) == 4
    assert err == "semiseg: 2 checks failed.\n"


def test_an_error_in_the_method_is_told_with_its_line(call, only, tmp_path):
    path, _ = write_scaffold("mine", tmp_path)
    path.write_text(path.read_text().replace("self.model = self.network()", "self.model = self.netwrk()"))
    only(BUILT)
    code, lines, _ = call(path)
    (number,) = [i for i, line in enumerate(path.read_text().splitlines(), start=1) if "netwrk" in line]
    assert code == 1
    assert "AttributeError: 'Mine' object has no attribute 'netwrk'" in lines[0]
    assert lines[0].endswith(f"({path}, line {number})")


@pytest.mark.parametrize(("which", "message"), [
    ("absent.py", "absent.py: no such file"), ("absent", "unknown method 'absent'"), ("broken.py", "ZeroDivisionError"),
])  # fmt: skip
def test_what_cannot_be_checked_is_refused_in_one_line(call, tmp_path, which, message):
    (tmp_path / "broken.py").write_text("1 / 0")
    code, lines, err = call(which)
    assert (code, lines) == (2, [])
    assert message in err
    assert err.count("\n") == 1


def test_it_keeps_to_one_thread(only, monkeypatch):
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    only(STATED)
    assert checking.check_method("ict") == 0
    assert threads == [1]
