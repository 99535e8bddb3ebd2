"""Tables as CSV files: numbers that pandas can reckon with, nothing that a printed table says lost."""

import io

import pandas as pd
import pytest
from pandas.api.types import is_numeric_dtype
from tests.test_report import make_results, write_run

from semiseg.report.formats import ABSENT, Number, Score, Table, comma_separated, markdown
from semiseg.report.reading import read_results
from semiseg.report.tables import all_tables

WORDS = {"Labels", "Method", "Role", "Paper", "Authors", "Venue", "Predictor", "Networks"}


def loaded(table):
    return pd.read_csv(io.StringIO(comma_separated(table)))


@pytest.fixture
def tables(tmp_path):
    """Three folds with differences, intervals and p-values, and one run missing."""
    for fold in range(3):
        for name, dice in (("ant", 0.60), ("zebra", 0.70), ("cat", 0.50)):
            if (name, fold) != ("cat", 2):
                write_run(tmp_path, name, 0.05, fold, dice + 0.01 * fold * len(name))
        write_run(tmp_path, "plain", 0.05, fold, 0.5 + 0.02 * fold, role="lower")
    return {table.name: table for table in all_tables(read_results(tmp_path))}


def test_every_column_but_those_of_words_is_numeric(tables):
    assert {"main", "differences", "pairs", "full", "classes", "cost", "differences_cases", "ranking"} <= tables.keys()
    for name, table in tables.items():
        frame = loaded(table)
        words = {column for column in frame if not is_numeric_dtype(frame[column])}
        assert {column for column in words - WORDS if not column.endswith(" mark")} == set(), name


def test_the_numbers_of_a_cell_have_a_column_each(tables):
    differences = loaded(tables["differences"]).set_index("Method")
    zebra = differences.loc["Zebra"]  # 20, 23 and 26 points above in the three folds
    assert zebra["Difference"] == pytest.approx(23)
    assert (zebra["Folds above"], zebra["Folds above of"]) == (3, 3)
    assert zebra["95 % interval low"] < 23 < zebra["95 % interval high"]
    assert differences.loc["Cat", "Difference mark"] == "†"
    pairs = loaded(tables["pairs"]).set_index("Method")
    assert pairs.loc["Ant", "Zebra"] == pytest.approx(-12)
    assert 0 <= pairs.loc["Ant", "Zebra p"] <= 1
    shares = pairs.loc["Zebra", ["Ant worse", "Ant equivalent", "Ant better"]]
    assert shares.sum() == pytest.approx(100, abs=0.01)


def test_numbers_are_exact_noise_is_none_and_what_is_absent_is_empty():
    rows = [
        ["a", Number("<0.001", {"": 0.000123456}), Score(81.303212, float("nan"), kept=True), 3],
        ["b", ABSENT, Number("+0.00", {"": -1e-17}), ABSENT],
    ]
    table = Table("t", "T", ["Method", "p", "Dice", "Missed"], rows, [])
    assert comma_separated(table) == ("Method,p,Dice,Dice sd,Dice mark,Missed\na,0.000123456,81.3032,,‡,3\nb,,0,,,\n")
    assert "| a | <0.001 | 81.30‡ | 3 |" in markdown(table)


def test_two_methods_of_one_title_keep_a_column_each(tmp_path):
    make_results(tmp_path)
    for name in ("one", "two"):
        write_run(tmp_path, name, 0.05, 0, 0.5, title="Twin")
    pairs = next(table for table in all_tables(read_results(tmp_path)) if table.name == "pairs")
    assert comma_separated(pairs).split("\n")[0].split(",").count("Twin") == 2
