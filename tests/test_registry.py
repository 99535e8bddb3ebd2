"""Finding methods: a broken plugin costs only itself, and whoever asks for it is told why."""

from importlib.metadata import EntryPoint

import pytest

from semiseg import registry
from semiseg.errors import UserError
from semiseg.registry import find_methods, get_method, get_method_of

WORKING = """
from semiseg.method import Method, Paper


class Mine(Method):
    title = "Mine"
    paper = Paper("Mine", "Nobody", "Nowhere")

    def build(self):
        self.model = self.network()

    def losses(self, batch, progress):
        return {}

    def predictors(self):
        return {"network": self.model}
"""


@pytest.mark.parametrize(("source", "reason"), [
    ("1 / 0", "cannot be imported (ZeroDivisionError: division by zero)"),
    ("raise ValueError('one\\ntwo')", "(ValueError: one two)"),
    ("class A(", "SyntaxError"),
    ("import sys; sys.exit(3)", "(SystemExit: 3)"),
    ("number = 1", "exactly one subclass of Method, this one defines 0"),
    (WORKING + "class Other(Mine):\n    pass", "this one defines 2"),
    (WORKING.replace("def losses", "def loses"), "Mine does not define losses"),
    (WORKING.replace("title", "name").replace("Paper(", "str(").replace(', "Nobody", "Nowhere"', ""),
     "Mine does not define title, paper"),
], ids=["error", "long error", "syntax", "exit", "none", "two", "incomplete", "nameless"])  # fmt: skip
def test_a_broken_file_costs_only_itself_and_says_why(tmp_path, source, reason):
    (tmp_path / "mine.py").write_text(WORKING)
    (tmp_path / "broken.py").write_text(source)
    found = find_methods(tmp_path)
    assert found["mine"].title == "Mine"
    assert "supervised" in found
    assert list(found.broken) == ["broken"]
    with pytest.raises(UserError) as error:
        get_method("broken", tmp_path)
    message = str(error.value)
    assert reason in message
    assert str(tmp_path / "broken.py") in message
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"name = '\xe9'", b"def broken(:"], ids=["latin-1", "syntax"])
def test_a_helper_that_cannot_be_read_costs_only_the_methods_that_may_need_it(tmp_path, monkeypatch, content):
    """It is imported within a function, so that nothing fails before the code is read for its hash."""
    (tmp_path / "unreadable_helper.py").write_bytes(content)
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "mine.py").write_text(WORKING + "\n    def lazy(self):\n        import unreadable_helper\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = find_methods(plugins)
    assert "supervised" in found
    assert "unreadable_helper.py: cannot be read as Python" in found.broken["mine"]


def test_a_helper_package_that_breaks_when_it_is_looked_into_costs_only_the_methods_that_may_need_it(
    tmp_path, monkeypatch
):
    (tmp_path / "breaking_package").mkdir()
    (tmp_path / "breaking_package" / "__init__.py").write_text("1 / 0\n")
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    lazy = "\n    def lazy(self):\n        from breaking_package.part import anything\n"
    (plugins / "mine.py").write_text(WORKING + lazy)
    monkeypatch.syspath_prepend(tmp_path)
    found = find_methods(plugins)
    assert "supervised" in found
    assert "breaking_package.part: the plugin cannot be imported (ZeroDivisionError" in found.broken["mine"]


def test_a_name_that_two_files_claim_is_nobodys(tmp_path):
    (tmp_path / "cps.py").write_text(WORKING)
    found = find_methods(tmp_path)
    assert "cps" not in found
    assert "mean_teacher" in found
    with pytest.raises(UserError, match=r"two methods are called 'cps': .*cps.py and .*cps.py; rename"):
        found["cps"]


def test_an_installed_plugin_that_is_broken_costs_only_itself(monkeypatch):
    entries = [EntryPoint("absent", "no_such_package:Method", "semiseg.methods"),
               EntryPoint("number", "math:pi", "semiseg.methods")]  # fmt: skip
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    found = find_methods()
    assert "supervised" in found
    assert "the installed plugin absent (no_such_package:Method): the plugin cannot be" in found.broken["absent"]
    assert "is no subclass of Method" in found.broken["number"]


def test_an_unknown_name_is_answered_with_those_there_are():
    with pytest.raises(UserError, match=r"unknown method 'absent'; there are: abd, .*--methods-dir"):
        get_method("absent")
    with pytest.raises(UserError, match="unknown method 'mean_techer'; did you mean 'mean_teacher'"):
        get_method("mean_techer")


def test_a_method_is_found_by_its_file_in_the_suite_and_elsewhere(tmp_path):
    (tmp_path / "mine.py").write_text(WORKING)
    assert get_method_of(tmp_path / "mine.py").title == "Mine"
    assert get_method_of(registry.Path(registry.semiseg.methods.__path__[0], "ict.py")) is get_method("ict")


def test_no_method_of_the_suite_is_broken():
    assert find_methods().broken == {}
