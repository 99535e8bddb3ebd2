"""`semiseg new-method`: what it writes works before it is changed."""

import importlib.util

import pytest

from semiseg.console.scaffold import write_scaffold
from semiseg.contract import MethodContract
from semiseg.errors import UserError
from semiseg.registry import find_methods, get_method


def imported(path):
    """A file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_scaffold_is_a_method_with_a_test_that_passes(tmp_path):
    module, test = write_scaffold("my_idea", tmp_path)
    assert (module, test) == (tmp_path / "my_idea.py", tmp_path / "test_my_idea.py")
    assert get_method("my_idea", tmp_path).title == "My Idea"
    tests = imported(test)
    tests.test_consistency_starts_near_zero_and_is_full_at_the_end()
    tests.test_contract(3, "check_paper_and_settings_are_stated", tmp_path)


@pytest.mark.parametrize("check", MethodContract.checks())
def test_the_scaffold_keeps_the_contract(tmp_path, check):
    imported(write_scaffold("my_idea", tmp_path)[1]).test_contract(2, check, tmp_path)


def test_inside_the_suite_the_test_goes_to_the_tests(tmp_path):
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "__init__.py").touch()
    (tmp_path / "tests" / "methods").mkdir(parents=True)
    module, test = write_scaffold("my_idea", tmp_path / "methods")
    assert module == tmp_path / "methods" / "my_idea.py"
    assert test == tmp_path / "tests" / "methods" / "test_my_idea.py"
    assert "parent" not in test.read_text()
    for path in (module, test):
        compile(path.read_text(), str(path), "exec")


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
