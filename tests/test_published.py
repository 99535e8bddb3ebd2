"""Published numbers: each with its source and protocol, apart from what was measured, and never ranked with it."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from tests.test_report import page_text, printed, write_run

from semiseg.data.discovery import recipes
from semiseg.data.protocol import Protocol
from semiseg.errors import UserError
from semiseg.registry import find_methods
from semiseg.report.formats import Score, comma_separated, markdown, text
from semiseg.report.latex import latex
from semiseg.report.published import PROTOCOLS, published_table, read_published
from semiseg.report.reading import read_results
from semiseg.report.reproduced import reproduced_table
from semiseg.report.tables import all_tables
from semiseg.settings import BenchmarkSettings
from semiseg.training.results import describe_method

OURS = Path(__file__).parent.parent / "results" / "published.csv"
HEADER = "dataset,titles,labelled,method,dice,jaccard,hd95,asd,protocol,source,note\n"


@pytest.fixture
def results(tmp_path):
    """Runs on a data set called Phantom, with two published rows on it and one on another."""
    write_run(tmp_path / "tiny", "plain", 0.05, 0, 0.5, role="lower")
    write_run(tmp_path / "tiny", "ant", 0.05, 0, 0.6)
    (tmp_path / "published.csv").write_text(
        f"{HEADER}P,Phantom; Ghost,3 cases,Ant,99.1,,1.5,,selected on test,paper <A>,seen\n"
        "P,Phantom; Ghost,7 cases,Bee,99.25,98,,,last weights,paper B,\n"
        "Q,Phantom endoscopy,3 cases,Wasp,12.3,,,,not stated,paper C,\n"
    )
    return tmp_path / "tiny"


def test_every_published_row_names_its_source_and_which_cases_chose_the_checkpoint():
    rows = read_published(OURS)
    assert len(rows) >= 100
    assert set(rows.protocol) <= set(PROTOCOLS)
    assert not rows.duplicated().any()
    assert not {title for titles in rows.titles for title in titles.split("; ")} - {r.title for r in recipes().values()}


def test_numbers_that_were_selected_on_the_cases_they_were_measured_on_say_so():
    rows = read_published(OURS)
    own = rows[(rows.dataset == "ACDC") & (rows.method == "CrossMatch") & rows.source.str.endswith("README")]
    assert set(own.protocol) == {"selected and measured on validation"}
    assert len(own) == 2
    assert set(rows.protocol[rows.note.str.contains("chosen on the test set")]) == {"selected on test"}
    assert set(rows.protocol[rows.note.str.startswith("last iteration")]) == {"last weights"}


def test_only_rows_on_these_very_data_are_shown_and_as_the_source_has_them(results):
    table = published_table(read_results(results))
    assert [row[1] for row in table.rows] == ["Ant", "Bee"]
    assert printed(table)[0] == ["3 cases", "Ant", "selected on test", "paper <A>", "99.1", "–", "1.5", "–"]
    assert "selected on test: the best checkpoint on the very test cases" in " ".join(table.notes)
    assert "not stated" not in " ".join(table.notes)
    assert all(word in render(table) for render in (markdown, comma_separated, latex) for word in ("99.25", "paper B"))


def protocol_run(results, method, labels, last, chosen, seed=0):
    """A run under a protocol, with what a rule has chosen of it."""
    folder = write_run(results, method, labels, 0, last, seed=seed)
    record = json.loads((folder / "run.json").read_text())
    record["spec"]["protocol"] = Protocol(validation="val", selected_on=("validation",)).model_dump(mode="json")
    (folder / "run.json").write_text(json.dumps(record))
    rows = pd.read_csv(folder / "cases.csv").assign(predictor="selected on validation", networks=1, dice=chosen)
    pd.concat([rows, rows.assign(predictor="second", dice=0.01)]).to_csv(folder / "predictors.csv", index=False)


def test_a_published_number_stands_beside_its_reproduction_under_each_rule(tmp_path):
    (tmp_path / "published.csv").write_text(
        f"{HEADER}P,Phantom,3 volumes,Ant,99.1,,1.5,,selected on test,paper <A>,seen\n"
        "P,Phantom,3 volumes,Ant,97.5,,,,last weights,its log,\n"
        "P,Phantom,7 volumes,Ant,99.9,,,,last weights,not run here,\n"
        "P,Phantom,10%,Ant,11.1,,,,last weights,not a count,\n"
        "P,Phantom,3 volumes,Bee,99.25,98,,,last weights,another method,\n"
        "Q,Elsewhere,3 volumes,Ant,12.3,,,,not stated,other data,\n"
    )
    protocol_run(tmp_path / "tiny", "ant", "3 cases", 0.6, 0.7)
    table = reproduced_table(read_results(tmp_path / "tiny"))
    assert table.columns[-3:] == ["Published", "Last weights here", "selected on validation here"]
    assert [[text(cell) for cell in row] for row in table.rows] == [
        ["3 volumes", "Ant", "paper <A>", "selected on test", "99.1", "60.00", "70.00"],
        ["3 volumes", "Ant", "its log", "last weights", "97.5", "60.00", "70.00"],
    ]
    assert not any(cell.best for row in table.rows for cell in row if isinstance(cell, Score))
    names = [table.name for table in all_tables(read_results(tmp_path / "tiny"))]
    assert names.count("reproduced") == 1
    told = " ".join(table.notes)
    assert "its source measured on both; here it is measured on test cases" in told
    assert "1 fold, 1 seed" in told, "as below every other table"


def test_a_published_number_under_another_name_stands_beside_the_method_that_bears_it(tmp_path):
    (tmp_path / "published.csv").write_text(
        f"{HEADER}P,Phantom,3 volumes,Ant,99.1,,,,last weights,paper A,\n"
        "P,Phantom,3 volumes,Insect (old),82.96,,,,not stated,paper B,\n"
        "P,Phantom,3 volumes,Ant (third-party reproduction),1.46,,,,not stated,a log,\n"
    )
    protocol_run(tmp_path / "tiny", "ant", "3 cases", 0.6, 0.7)
    for name, dice in (("bee", 0.5), ("bee_tuned", 0.4)):  # a variant has other settings, and is not what was published
        protocol_run(tmp_path / "tiny", name, "3 cases", dice, dice + 0.05)
        file = next(tmp_path.glob(f"tiny/runs/{name}/**/run.json"))
        record = json.loads(file.read_text())
        record["spec"]["implementation"] = "bee"
        record["method"] |= {"title": "Bee", "published_as": ["Insect (old)"]}
        file.write_text(json.dumps(record))
    table = reproduced_table(read_results(tmp_path / "tiny"))
    assert [[text(cell) for cell in row[1:3] + row[4:]] for row in table.rows] == [
        ["Ant", "paper A", "99.1", "60.00", "70.00"],
        ["Insect (old)", "paper B", "82.96", "50.00", "55.00"],
    ]
    assert "Insect (old) is called Bee here." in table.notes


def test_a_published_number_stands_beside_the_published_settings_where_trials_chose_others(tmp_path):
    (tmp_path / "published.csv").write_text(f"{HEADER}P,Phantom,3 volumes,CPS,60.3,,,,last weights,paper,\n")
    for name, dice in (("cps", 0.4), ("cps_published", 0.5), ("cps_strong", 0.6)):
        protocol_run(tmp_path / "tiny", name, "3 cases", dice, dice)
        file = next(tmp_path.glob(f"tiny/runs/{name}/**/run.json"))
        record = json.loads(file.read_text())
        record["spec"]["implementation"] = "cps"
        record["method"]["title"] = "CPS"
        file.write_text(json.dumps(record))
    methods = ["cps", {"cps_published": {"method": "cps"}}, {"cps_strong": {"method": "cps", "cross": 3.0}}]
    tuned = {"name": "dev", "commit": "", "dataset": "other", "methods": [{"cps": {"cross": 0.5}}]}
    asked = {"name": "tiny", "dataset": "phantom", "methods": methods, "labels": ["3 cases"], "network": "unet_small"}
    results = read_results(tmp_path / "tiny")
    (row,) = reproduced_table(replace(results, settings=BenchmarkSettings(**asked, tuned=tuned))).rows
    assert text(row[5]) == "50.00"
    (row,) = reproduced_table(replace(results, settings=BenchmarkSettings(**asked))).rows
    assert text(row[5]) == "40.00", "nothing was tuned, so it is the method's own entry"


def test_what_a_rule_chose_in_fewer_runs_than_there_are_is_marked(tmp_path):
    (tmp_path / "published.csv").write_text(f"{HEADER}P,Phantom,3 volumes,Ant,60.3,,,,last weights,paper,\n")
    for seed in (0, 1):
        protocol_run(tmp_path / "tiny", "ant", "3 cases", 0.4 + seed / 10, 0.6, seed)
    next(tmp_path.glob("tiny/runs/ant/**/seed-1/predictors.csv")).unlink()
    table = reproduced_table(read_results(tmp_path / "tiny"))
    assert [text(cell) for cell in table.rows[0][5:]] == ["45.00 ± 7.07", "60.00†"]
    assert "standard deviation over the seeds" in " ".join(table.notes)
    assert "not all finished runs have kept" in " ".join(table.notes)


def test_lower_bounds_find_their_published_numbers_and_reproductions_by_others_find_nobody():
    rows, named = read_published(OURS), {}
    for name, method in find_methods().items():
        described = describe_method(method)
        assert {*described["published_as"]} <= {*rows.method}, f"{name} bears a name that no row has"
        for title in (described["title"], *described["published_as"]):
            assert named.setdefault(title, name) == name, f"two methods are called {title}"
    found = rows.assign(ours=rows.method.map(named)).dropna(subset="ours")
    numbers = {(row.ours, row.dataset, row.labelled, row.dice) for row in found.itertuples()}
    assert ("supervised_strong", "ACDC", "3 patients", "82.96") in numbers
    assert ("supervised", "ACDC", "3 patients", "41.5") in numbers
    assert ("supervised", "LA", "8 volumes", "82.74") in numbers
    others = rows.method.str.contains("third-party")
    assert others.sum() == 4
    assert not {*rows.method[others]} & {*named}


def test_without_a_protocol_nothing_is_called_reproduced(results):
    assert reproduced_table(read_results(results)) is None


def test_a_published_number_is_never_ranked_with_measured_ones(results):
    before = {table.name: markdown(table) for table in all_tables(read_results(results))}
    page = page_text(results)
    apart = page[page.index("<h2>Published elsewhere</h2>") :].split("</section>")[0]
    assert "99.25" in apart
    script = page.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    assert "99.25" not in page.replace(apart, "").replace(script, "")
    shown = json.loads(script)
    del shown["tables"]  # to be copied, each as it stands on the page
    assert "99.25" not in json.dumps(shown)
    assert "<b>" not in apart
    assert "paper &lt;A&gt;" in apart
    (results.parent / "published.csv").unlink()
    after = {table.name: markdown(table) for table in all_tables(read_results(results))}
    assert before.pop("published")
    assert before == after


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("dataset,method\nP,Ant\n", "lacks the columns titles"),
        (f"{HEADER}P,Phantom,3,Ant,1,,,,by eye,paper,\n", "unknown protocol 'by eye'"),
        (f"{HEADER}P,Phantom,3,Ant,1,,,,not stated,,\n", "Ant has no source"),
        (f"{HEADER}P,Phantom,3,Ant,1,about 2,,,not stated,paper,\n", "jaccard of Ant is 'about 2'"),
        ("", "cannot be read"),
    ],
)
def test_a_damaged_file_of_published_numbers_is_named_in_one_line(results, content, said):
    (results.parent / "published.csv").write_text(content)
    with pytest.raises(UserError, match=said) as error:
        published_table(read_results(results))
    assert str(error.value).count("\n") == 0
