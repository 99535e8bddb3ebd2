"""Whoever reads tables, plots, messages and documents meets one spelling, that of British English."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
AMERICAN = re.compile(r"\b(un)?labeled\b|\bgray\b|\bcolor(s|ed)?\b|\bbehavior|\bneighbors?\b", re.IGNORECASE)
FILES = [file for folder in ("code", "methods", "data_prep") for file in sorted((ROOT / folder).rglob("*.py"))]
PAGES = [*ROOT.glob("*.md"), *(page for folder in ("docs", "methods", "benchmarks", "results") for page in
                               sorted((ROOT / folder).glob("*.md")))]  # fmt: skip


def printed(text):
    """The strings of a module that are sentences: with spaces, no docstrings, no code."""
    tree = ast.parse(text)
    owners = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    docstrings = {id(n.body[0].value) for n in ast.walk(tree) if isinstance(n, owners) and ast.get_docstring(n)}
    for node in ast.walk(tree):
        words = node.value if isinstance(node, ast.Constant) and id(node) not in docstrings else None
        if isinstance(words, str) and " " in words and "\n" not in words:  # lines are code that is written to files
            yield words


def test_the_search_knows_a_sentence_from_an_identifier():
    text = '"""All labeled."""\nx = {"labeled": f"{y} labeled; gray: {z}", "unlabeled": "two colors"}\n'
    assert [bool(AMERICAN.search(words)) for words in printed(text)] == [True, True]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_code_prints(file):
    assert [words for words in printed(file.read_text(encoding="utf-8")) if AMERICAN.search(words)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages(page):
    text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)  # code keeps its names
    assert [found[0] for found in AMERICAN.finditer(text)] == []
