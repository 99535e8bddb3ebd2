"""Published numbers: each with its source and protocol, apart from what was measured, and never ranked with it."""

import json
from pathlib import Path

import pytest
from tests.test_report import page_text, write_run

from semiseg.data.discovery import recipes
from semiseg.errors import UserError
from semiseg.report.formats import comma_separated, markdown
from semiseg.report.latex import latex
from semiseg.report.published import PROTOCOLS, published_table, read_published
from semiseg.report.summary import read_results
from semiseg.report.tables import all_tables

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
    assert table.rows[0] == ["3 cases", "Ant", "selected on test", "paper <A>", "99.1", "–", "1.5", "–"]
    assert "selected on test: the best checkpoint on the very test cases" in " ".join(table.notes)
    assert "not stated" not in " ".join(table.notes)
    assert all(word in render(table) for render in (markdown, comma_separated, latex) for word in ("99.25", "paper B"))


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
        ("", "cannot be read"),
    ],
)
def test_a_damaged_file_of_published_numbers_is_named_in_one_line(results, content, said):
    (results.parent / "published.csv").write_text(content)
    with pytest.raises(UserError, match=said) as error:
        published_table(read_results(results))
    assert str(error.value).count("\n") == 0
