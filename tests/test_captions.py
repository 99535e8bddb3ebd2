"""Captions: data, budget and what is synthetic stand in each, and labels in a paper differ."""

import json
import re

import matplotlib
import pytest
from tests.test_report import make_results, write_run

from semiseg.report import report, report_several
from semiseg.report.curves import training_curves
from semiseg.report.overlays import overlays
from semiseg.report.plots import case_dice, label_efficiency
from semiseg.report.quality_cost import quality_cost
from semiseg.report.rank_plots import rank_plot
from semiseg.report.ranks import average_ranks
from semiseg.report.reading import read_results
from semiseg.report.style import RC

TOLD = "Phantom (synthetic data), unet_small, 7 training steps at 8 × 12 pixels"


def make(root):
    make_results(root)
    for path in root.rglob("run.json"):
        record = json.loads(path.read_text())
        record["spec"]["training"] |= {"size": [8, 12]}
        path.write_text(json.dumps(record))
    return root


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The report on results, compared with an earlier folder of them, which adds a table."""
    root = make(tmp_path_factory.mktemp("captions") / "tiny")
    report(root, root.parent / "report", against=str(make(root.parent / "earlier")))
    return root.parent / "report"


def test_every_caption_of_a_table_names_data_and_budget(out):
    assert (out / "tables/changes.md").exists()
    for file in out.glob("tables/*.md"):
        assert file.read_text(encoding="utf-8").split("\n")[0].endswith(f": {TOLD}"), file
    for file in out.glob("tables/*.tex"):
        (caption,) = re.findall(r"\\caption\{(.*?)[.]\}", file.read_text(encoding="utf-8"))[:1]
        assert TOLD in caption.replace("\\_", "_").replace(r"$\times$", "×"), file


def test_every_caption_of_the_page_names_data_and_budget(out):
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", (out / "index.html").read_text(encoding="utf-8"))
    told = [caption for caption in captions if caption.endswith(f"<span class=about>: {TOLD}</span>")]
    assert set(captions) - set(told) == {"Not part of any number above"}  # runs without a number
    assert len(told) > 10


@pytest.mark.parametrize("draw", [label_efficiency, quality_cost, case_dice, training_curves, overlays])
@pytest.mark.parametrize("methods", [1, 8])
def test_every_picture_names_data_and_budget_as_it_may_stand_alone(tmp_path, draw, methods):
    make(tmp_path)
    for number in range(methods):
        write_run(tmp_path, f"further{number}", 0.05, 0, 0.5)
    with matplotlib.rc_context(RC):
        figure = draw(read_results(tmp_path))
    words = [figure.get_suptitle(), *(axes.get_title(loc="left") for axes in figure.axes)]
    assert any(TOLD in word.replace("\n", ", ") for word in words)


def test_a_joint_report_names_them_for_each_benchmark(tmp_path):
    folders = [make(tmp_path / name) for name in ("one", "two")]
    page = report_several(folders, tmp_path / "out").read_text(encoding="utf-8")
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert sum(f": one: {TOLD}; two: {TOLD}</span>" in caption for caption in captions) == 3
    ranks = average_ranks([read_results(folder) for folder in folders])
    entries = read_results(folders[0]).entries
    with matplotlib.rc_context(RC):
        names = {str(data): "Phantom" for data in ranks.data_sets.index}
        figure = rank_plot(ranks, entries, names, [TOLD, TOLD], "Within 2")
    assert TOLD in figure.get_suptitle()
    assert figure.axes[0].get_xlabel().startswith("Rank by Within 2 ")


def test_tables_of_two_folders_of_one_benchmark_have_labels_of_their_own(tmp_path):
    folders = [make(tmp_path / name) for name in ("tiny", "tiny again, 50 %")]
    labels = []
    for folder in folders:
        report(folder)
        labels += [re.findall(r"\\label\{(.*)\}", file.read_text("utf-8")) for file in folder.glob("tables/*.tex")]
    labels = [label for of_file in labels for label in of_file]
    assert len(labels) == len(set(labels)) > 10
    assert "tab:tiny-main" in labels
    assert "tab:tiny-again-50-main" in labels
