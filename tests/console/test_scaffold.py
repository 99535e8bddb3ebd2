"""`semiseg new-method`: what it writes works before it is changed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from semiseg.console.scaffold import write_scaffold
from semiseg.contract import MethodContract
from semiseg.errors import UserError
from semiseg.registry import find_methods, get_method

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = next(code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "class Agreement" in code)


def passed(folder, *arguments, **variables):
    """How many tests pass in a process of their own; every one that is run must."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    end = subprocess.run(command, cwd=folder, env=os.environ | variables, capture_output=True, text=True)
    assert end.returncode == 0, end.stdout + end.stderr
    return int(re.search(r"(\d+) passed", end.stdout)[1])


@pytest.mark.slow
def test_outside_the_suite_what_is_written_passes_its_own_test(tmp_path):
    module, test = write_scaffold("my_idea", tmp_path)
    assert (module, test) == (tmp_path / "my_idea.py", tmp_path / "test_my_idea.py")
    assert get_method("my_idea", tmp_path).title == "My Idea"
    assert passed(tmp_path, test.name, "-k", "2d or say") == len(MethodContract.checks()) + 1


def test_the_example_of_the_readme_passes_the_test_of_the_scaffold(tmp_path):
    """Its loss is called otherwise than the scaffold's; its contract is tested in test_readme."""
    module, test = write_scaffold("agreement", tmp_path)
    module.write_text(EXAMPLE, encoding="utf-8")
    assert passed(tmp_path, test.name, "-k", "say or stated") == 3


@pytest.fixture
def suite(tmp_path):
    """The parts of the suite that its tests of methods need, in a folder to work in."""
    for part in ("methods", "tests/methods"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    tests = ("conftest", "regions", "test_contract", "test_readme")
    for file in ("README.md", "pyproject.toml", *(f"tests/{name}.py" for name in tests)):
        shutil.copy(ROOT / file, tmp_path / file)
    for part in ("benchmarks", "results", "data_prep"):
        (tmp_path / part).symlink_to(ROOT / part)
    shutil.copytree(ROOT / "code", tmp_path / "code", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "code" / "semiseg" / "methods").symlink_to(tmp_path / "methods")
    (tmp_path / "code" / "semiseg" / "data_prep").symlink_to(ROOT / "data_prep")
    (tmp_path / "code" / "semiseg" / "benchmark_files").symlink_to(ROOT / "benchmarks")
    return tmp_path


@pytest.mark.slow
def test_inside_the_suite_a_new_method_passes_the_whole_test_without_another_edit(suite):
    module, test = write_scaffold("my_idea", suite / "methods")
    assert (module, test) == (suite / "methods" / "my_idea.py", suite / "tests" / "methods" / "test_my_idea.py")
    number = passed(suite, "tests", "-k", "my_idea", PYTHONPATH=str(suite / "code"))
    assert number == 2 * len(MethodContract.checks()) + 1
    for check in ("check", "format --check"):
        command = [sys.executable, "-m", "ruff", *check.split(), str(module), str(test)]
        end = subprocess.run(command, cwd=suite, capture_output=True, text=True)
        assert end.returncode == 0, end.stdout + end.stderr


def test_existing_work_is_never_replaced(tmp_path):
    module, test = write_scaffold("my_idea", tmp_path)
    module.write_text("my work")
    with pytest.raises(UserError, match="exists already"):
        write_scaffold("my_idea", tmp_path)
    assert module.read_text() == "my work"
    module.unlink()
    test.write_text("my test")
    with pytest.raises(UserError, match="exists already"):
        write_scaffold("my_idea", tmp_path)
    assert test.read_text() == "my test"
    assert not module.exists()


@pytest.mark.parametrize("name", ["", "My Idea", "my-idea", "1st", "../up", "a.b", "Über"])
def test_a_name_that_is_no_module_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="cannot be a module"):
        write_scaffold(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["test_time", "class", "supervised"])
def test_a_name_that_could_not_be_found_or_imported_is_refused(tmp_path, name):
    with pytest.raises(UserError):
        write_scaffold(name, tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        write_scaffold("my_idea", tmp_path / "absent")


def test_a_dropped_file_is_listed_with_the_others(tmp_path):
    before = set(find_methods())
    write_scaffold("my_idea", tmp_path)
    assert set(find_methods(tmp_path)) == before | {"my_idea"}
