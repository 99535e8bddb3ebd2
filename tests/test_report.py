"""The report: honest averages, nothing silently dropped, the same bytes each time."""

import base64
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from rich.console import Console

from semiseg.errors import UserError
from semiseg.labels import folder_of
from semiseg.metrics import TABLE
from semiseg.report import overlays, plots, report, terminal_table, wording
from semiseg.report.formats import Score, Table, comma_separated, html, markdown, text
from semiseg.report.latex import latex
from semiseg.report.page import write_page
from semiseg.report.page_cases import case_data
from semiseg.report.page_data import cell_keys, page_data, page_metrics
from semiseg.report.provenance import left_out, run_warnings
from semiseg.report.reading import read_results
from semiseg.report.scores import main_table, predictor_table
from semiseg.report.significance import differences
from semiseg.report.summary import score_statistics, summary_frame
from semiseg.report.tables import all_tables

CLASSES = ["background", "wall", "cavity"]


def write_run(
    root,
    method,
    labels,
    fold,
    dice,
    seed=0,
    *,
    role="semi",
    status="finished",
    title=None,
    classes=CLASSES,
    **changes,
):
    """A run whose two cases and every class score `dice`, or what the list `dice` says per case and class."""
    folder = root / "runs" / method / folder_of(labels) / f"fold-{fold}/seed-{seed}"
    folder.mkdir(parents=True)
    record = {
        "spec": {
            "benchmark": "tiny",
            "dataset": "phantom",
            "method": method,
            "labels": labels,
            "fold": fold,
            "seed": seed,
            "config": {},
            "network": "unet_small",
            "training": {"steps": 7},
        },
        "method": {
            "title": title or method.title(),
            "networks": 1,
            "uses_unlabeled": role == "semi",
            "uses_all_labels": role == "upper",
            "paper": {"title": f"On {method}", "authors": "A. & B.", "venue": "V 2020"},
        },
        "data": {
            "title": "Phantom",
            "classes": classes,
            "synthetic": True,
            "grouping": "",
            "hash": "1",
            "split_hash": "2",
            "labeled": 1,
            "unlabeled": 2,
            "test": 2,
        },
        "status": status,
        "reason": "",
        "warnings": [],
        "environment": {"device": "cpu"},
        "git_commit": "abc",
        "seconds": 1.5,
        "images_per_second": 10.0,
        "peak_memory_mb": 1.0,
        "metrics": {},
    }
    record |= changes
    (folder / "run.json").write_text(json.dumps(record))
    if record["status"] != "finished":
        return folder
    pairs = [(case, index) for case in "ab" for index in range(1, len(classes))]
    values = dice if isinstance(dice, list) else [dice] * len(pairs)
    rows = [
        {
            "case": case,
            "group": case,
            "class": index,
            "class_name": classes[index],
            **dict.fromkeys(TABLE, value),
            "predicted_voxels": round(9 * value),
            "reference_voxels": 9,
        }
        for (case, index), value in zip(pairs, values, strict=True)
    ]
    pd.DataFrame(rows).to_csv(folder / "cases.csv", index=False)
    pd.DataFrame(
        {"step": [0, 1, 2], "learning_rate": 0.1, "images_per_second": 1.0, "supervised": [1.0, 0.5, 0.2]}
    ).to_csv(folder / "curve.csv", index=False)
    masks = np.zeros((1, 12, 16), np.uint8)
    masks[:, 2:6, 2:6], masks[:, 6:9, 8:12] = 1, 2
    np.savez(
        folder / "examples.npz",
        ids=np.array(["a"]),
        images=np.full((1, 1, 12, 16), 90, np.uint8),
        labels=masks,
        predictions=np.roll(masks, 1, axis=2),
    )
    return folder


def printed(table):
    """The rows as they are read."""
    return [[text(cell) for cell in row] for row in table.rows]


def page_text(results):
    """The page without plots, which take their time."""
    content = read_results(results)
    write_page(content, all_tables(content), [], results, results / "page.html")
    return (results / "page.html").read_text()


def make_results(root):
    """Two folds of four methods; one method has a failed fold."""
    for fold in (0, 1):
        for labels in (0.05, 0.2):
            write_run(root, "plain", labels, fold, 0.90, role="lower")
            write_run(root, "zebra", labels, fold, 0.50 + 0.1 * fold)
            write_run(
                root,
                "ant",
                labels,
                fold,
                0.70 + labels,
                status="failed" if (fold, labels) == (1, 0.2) else "finished",
                reason="loss is NaN <at> step 3",
            )
        write_run(root, "full", 1.0, fold, 0.95, role="upper")
    (root / "benchmark.yaml").write_text("methods: [full, zebra, ant, plain]\n")
    return root


@pytest.fixture
def results(tmp_path):
    return make_results(tmp_path / "tiny")


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """Results with a hostile title that have their report already."""
    root = make_results(tmp_path_factory.mktemp("reported") / "tiny")
    write_run(root, "evil", 0.05, 0, 0.5, title="<script>alert(1)</script>")
    report(root)
    return root


def test_a_large_class_does_not_outweigh_a_small_one_nor_a_seed_a_fold(tmp_path):
    # Fold 0, two seeds: class means (0.2, 0.6) and (0.4, 0.8), hence 0.4 and 0.6, hence 0.5; fold 1: 0.9.
    write_run(tmp_path, "m", 0.05, 0, [0.1, 0.6, 0.3, 0.6], seed=0)
    write_run(tmp_path, "m", 0.05, 0, 0.6, seed=1)
    write_run(tmp_path, "m", 0.05, 1, 0.9, seed=0)
    scores = score_statistics(read_results(tmp_path))
    assert scores.at[("m", 0.05), ("dice", "mean")] == pytest.approx(0.7)
    assert scores.at[("m", 0.05), ("dice", "std")] == pytest.approx(np.std([0.5, 0.9], ddof=1))


def test_trainings_of_a_single_fold_deviate_over_their_seeds(tmp_path):
    write_run(tmp_path, "m", 0.05, 0, 0.5, seed=0)
    write_run(tmp_path, "m", 0.05, 0, 0.8, seed=1)
    write_run(tmp_path, "n", 0.05, 0, 0.6, seed=0)
    write_run(tmp_path, "o", 0.05, 0, 0.6, seed=0)
    table = main_table(read_results(tmp_path))
    assert dict(row[:2] for row in printed(table)) == {"M": "65.00 ± 21.21", "N": "60.00†", "O": "60.00†"}
    assert "1 fold, 2 seeds; mean ± standard deviation over the seeds." in table.notes[0]
    assert "† 1 of 2 runs at 5 %: N, O." in table.notes
    frame = summary_frame(read_results(tmp_path)).set_index("method")
    assert frame.dice_sd["m"] == pytest.approx(np.std([0.5, 0.8], ddof=1))
    write_run(tmp_path, "n", 0.05, 1, 0.7, seed=0)  # with a second fold it is folds that deviate
    table = main_table(read_results(tmp_path))
    assert dict(row[:2] for row in printed(table))["N"] == "65.00 ± 7.07†"
    assert "2 seeds averaged within each fold; mean ± standard deviation over the folds." in table.notes[0]


def test_a_case_without_one_of_the_classes_keeps_the_classes_equal(tmp_path):
    folder = write_run(tmp_path, "m", 0.05, 0, [0.0, 1.0, 0.0, 1.0])
    cases = pd.read_csv(folder / "cases.csv")
    cases.drop(index=0).to_csv(folder / "cases.csv", index=False)
    assert score_statistics(read_results(tmp_path)).at[("m", 0.05), ("dice", "mean")] == 0.5


def test_bounds_frame_the_methods_which_keep_the_order_of_the_benchmark(results):
    assert [row[0] for row in main_table(read_results(results)).rows] == ["Plain", "Zebra", "Ant", "Full"]
    (results / "benchmark.yaml").write_text("methods: [full, zebra: {decay: 0.5}, ant: {method: zebra}, plain]\n")
    assert [row[0] for row in main_table(read_results(results)).rows] == ["Plain", "Zebra", "Ant", "Full"]
    (results / "benchmark.yaml").unlink()
    assert [row[0] for row in main_table(read_results(results)).rows] == ["Plain", "Ant", "Zebra", "Full"]


@pytest.mark.parametrize("asked", ["[zebra]", "[supervised_strong, supervised, zebra]"])
def test_the_reference_is_supervised_whatever_the_last_command_asked_for(tmp_path, asked):
    for name, role in (("supervised", "lower"), ("supervised_strong", "lower"), ("zebra", "semi")):
        write_run(tmp_path, name, 0.05, 0, 0.5, role=role, title={"supervised_strong": "Strong"}.get(name))
    (tmp_path / "benchmark.yaml").write_text(f"methods: {asked}\n")
    assert read_results(tmp_path).bound("lower bound").name == "supervised"


def test_a_variant_is_called_after_the_method_that_it_varies(tmp_path):
    write_run(tmp_path, "ant", 0.05, 0, 0.6, title="Ant System")
    for name in ("ant_as_published", "antless", "with_two_queens"):
        write_run(tmp_path, name, 0.05, 0, 0.5, title=name)
        retell(tmp_path, part="spec", pattern=f"{name}/*/*/*/run.json", implementation="ant")
    titles = {row[0] for row in main_table(read_results(tmp_path)).rows}
    assert titles == {"Ant System", "Ant System (as published)", "antless", "with two queens"}


def test_variants_whose_method_was_not_run_are_told_apart_by_its_title(tmp_path):
    for name, method, title in (
        ("ant_as_published", "ant", "Ant System"),
        ("bee_as_published", "bee", "bee_as_published"),  # a record from before it told the title of the method
        ("bee_from_texts", "bee", "bee_from_texts"),
    ):
        write_run(tmp_path, name, 0.05, 0, 0.5, title=title)
        retell(tmp_path, part="spec", pattern=f"{name}/*/*/*/run.json", implementation=method)
    titles = {row[0] for row in main_table(read_results(tmp_path)).rows}
    assert titles == {"Ant System (as published)", "bee as published", "bee from texts"}
    write_run(tmp_path, "bee_as_now", 0.05, 0, 0.5, title="Bees")
    retell(tmp_path, part="spec", pattern="bee_as_now/*/*/*/run.json", implementation="bee")
    titles = {row[0] for row in main_table(read_results(tmp_path)).rows}
    assert titles >= {"Bees (as now)", "Bees (as published)", "Bees (from texts)"}


def test_what_starts_from_unlabelled_images_is_no_bound(tmp_path):
    for fold in range(3):
        write_run(tmp_path, "plain", 0.05, fold, 0.5 + 0.01 * fold, role="lower")
        write_run(tmp_path, "plain_begun", 0.05, fold, 0.7, role="lower")
        write_run(tmp_path, "full_begun", 1.0, fold, 0.9, role="upper")
    retell(tmp_path, part="spec", pattern="*_begun/*/*/*/run.json", start={"method": "copied"})
    (tmp_path / "benchmark.yaml").write_text("methods: [plain_begun, full_begun, plain]\n")
    results = read_results(tmp_path)
    assert results.bound("lower bound").name == "plain"
    assert results.bound("upper bound") is None
    tables = {table.name: table for table in all_tables(results)}
    assert "**70.00 ± 0.00**" in markdown(tables["main"])
    assert tables["differences"].title.startswith("Difference to Plain")
    ((*_, holm, _, _, _),) = printed(tables["differences"])
    assert holm != "–"


def test_inner_folds_of_one_fold_are_paired_with_their_like(tmp_path):
    plain = {(0, 0): 0.3, (0, 1): 0.8, (1, 0): 0.5, (1, 4): 0.6}
    for (fold, inner), dice in plain.items():
        for method, role, gain in (("plain", "lower", 0), ("ant", "semi", 0.1)):
            folder = write_run(tmp_path / method, method, 0.05, fold, dice + gain, role=role)
            record = json.loads((folder / "run.json").read_text())
            (folder / "run.json").write_text(json.dumps(record | {"spec": record["spec"] | {"inner": inner}}))
            target = tmp_path / f"results/runs/{method}/labels-05/fold-{fold}.inner-{inner}/seed-0"
            target.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(target)
    (target / "run.json").write_text("{")  # of the last one
    results = read_results(tmp_path / "results")
    assert len(results.cases.drop_duplicates(["method", "fold", "seed"])) == 7
    (difference,) = differences(results, results.bound("lower bound"))
    assert difference.mean == pytest.approx(0.1)
    assert (difference.pairs, difference.above) == (3, 3)
    assert "4 inner folds, 1 seed" in main_table(results).notes[0]
    (missing,) = left_out(results).rows
    assert missing[:3] == ["Ant", "5 %", "1.inner-4"]
    runs = page_data([results])["benchmarks"][0]["runs"]
    assert {(run[0], run[2], run[-1] and run[-1][0]) for run in runs if run[0] == "plain"} == {
        ("plain", f"{fold}.inner-{inner}", 100 * dice) for (fold, inner), dice in plain.items()
    }


def test_a_finished_run_that_does_not_tell_its_data_is_named(results, tmp_path):
    folder = write_run(results, "zebra", 0.05, 2, 0.9)
    record = json.loads((folder / "run.json").read_text())
    del record["data"]
    (folder / "run.json").write_text(json.dumps(record))
    (row,) = (row for row in left_out(read_results(results)).rows if row[4] == "unreadable")
    assert row[2] == "2"
    assert "run.json is damaged (ValueError: it lacks data.title, data.classes)" in row[5]
    shutil.copytree(folder, tmp_path / "alone/runs/zebra/labels-05/fold-2/seed-0")
    with pytest.raises(UserError, match=r"no finished run to report on; .*seed-0: run\.json .* lacks data\.title"):
        report(tmp_path / "alone")


def test_bold_goes_to_the_best_complete_semi_supervised_method(results):
    table = markdown(main_table(read_results(results)))
    assert "| Plain | 90.00 ± 0.00 | 90.00 ± 0.00 | – |" in table
    assert "| Ant | **75.00 ± 0.00** | 90.00† | – |" in table  # a missing fold may have been the hard one
    assert "| Zebra | 55.00 ± 7.07 | **55.00 ± 7.07** | – |" in table
    assert "| Full | – | – | 95.00 ± 0.00 |" in table
    assert "† 1 of 2 folds at 20 %: Ant." in table


def test_a_distance_is_best_when_it_is_smallest(results):
    full = next(t for t in all_tables(read_results(results)) if t.name == "full")
    best = {
        column for column, cell in zip(full.columns, full.rows[2], strict=True) if isinstance(cell, Score) and cell.best
    }
    assert full.rows[2][:2] == ["5 %", "Ant"]
    assert best == {"Dice ↑ (%)", "Jaccard ↑ (%)", "NSD ↑ (%)", "Precision ↑ (%)", "Recall ↑ (%)"}


def retell(results, part="data", pattern="run.json", **told):
    """Let every run say more about its data, or another part of its record."""
    for path in results.rglob(pattern):
        record = json.loads(path.read_text())
        record[part] |= told
        path.write_text(json.dumps(record))


def test_runs_of_inner_folds_are_not_averaged_with_runs_on_test_cases(results):
    retell(results, part="spec", pattern="zebra/*/fold-0/*/run.json", inner=1)
    for folder in [*results.glob("runs/zebra/*/fold-0")]:
        folder.rename(f"{folder}.inner-1")
    with pytest.raises(UserError, match="some runs were tested on inner folds"):
        read_results(results)


def test_every_table_says_what_of_the_images_was_seen(results):
    retell(results, part="spec", training={"steps": 9, "crop": {"window": [144, 140], "at": "centre"}})
    notes = " ".join(main_table(read_results(results)).notes)
    assert (
        "9 training steps, central 144 × 140 pixels of the images, outside of which structures count as missed" in notes
    )


@pytest.mark.parametrize(("unit", "said"), [("pixels", "pixels"), ("mm", "mm"), ("", "mm or pixels")])
def test_a_distance_in_pixels_is_not_called_one_in_millimetres(results, unit, said):
    retell(results, unit=unit)
    full = next(t for t in all_tables(read_results(results)) if t.name == "full")
    assert {f"HD95 ↓ ({said})", f"ASD ↓ ({said})", "NSD ↑ (%)"} <= set(full.columns)
    assert any(f"tolerance of 1 ({said})" in note for note in full.notes)


@pytest.mark.parametrize("title", ["Phantom", "Phantom (synthetic)", "Phantom (Synthetic data)"])
def test_synthetic_data_are_called_so_once(results, title):
    retell(results, title=title)
    said = [note for table in all_tables(read_results(results)) for note in table.notes if "synthetic" in note.lower()]
    assert said
    assert all(note.lower().count("synthetic") == note.count("Phantom (synthetic data)") == 1 for note in said)
    assert "<h1>Phantom <span class=badge>synthetic data</span></h1>" in page_text(results)


def test_a_real_data_set_keeps_the_whole_of_its_title(results):
    retell(results, title="Smoke (synthetic)", synthetic=False)
    assert main_table(read_results(results)).notes[0].startswith("Smoke (synthetic); ")


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("hippocampus_130", "mm"),
        ("kvasir_instrument_118", "pixels"),
        ("ssl4mis", "pixels"),
        ("ssl4mis_hippocampus", "mm"),
    ],
)
def test_committed_results_name_the_unit_of_their_distances(name, unit):
    folder = Path(__file__).parent.parent / "results" / name
    assert {json.loads(run.read_text())["data"].get("unit") for run in folder.rglob("run.json")} == {unit}
    for table in folder.glob("tables/full.*"):
        assert f"({unit})" in table.read_text(encoding="utf-8"), table
        assert "mm or pixels" not in table.read_text(encoding="utf-8"), table


def test_whom_to_cite_for_the_data_stands_below_the_methods_papers(results):
    retell(results, citation="Who et al., Where 1 (2020)", source="https://where.example", licence="CC0")
    papers = next(t for t in all_tables(read_results(results)) if t.name == "papers")
    (note,) = papers.notes
    assert note.endswith("; Who et al., Where 1 (2020); from https://where.example; licence: CC0.")


def test_what_is_missing_is_named_on_the_page(results):
    write_run(results, "ghost", 0.05, 0, 0.0, status="failed", reason="out of memory")
    damaged = write_run(results, "plain", 0.05, 2, 0.0)
    (damaged / "cases.csv").unlink()
    (write_run(results, "zebra", 0.05, 2, 0.0) / "run.json").write_text("{")
    page = page_text(results)
    assert "loss is NaN &lt;at&gt; step 3" in page
    assert "out of memory" in page
    assert "cases.csv" in page
    assert "run.json is damaged" in page
    assert "not started" in page  # fold 2 of the others
    assert "2 of 3 folds" in page


def test_scores_that_were_changed_after_their_run_are_named_and_not_averaged(results):
    file = next(results.glob("runs/zebra/labels-05/fold-0/*/cases.csv"))
    record = json.loads(file.with_name("run.json").read_text())
    checksums = {"cases.csv": hashlib.sha256(file.read_bytes()).hexdigest()}
    file.with_name("run.json").write_text(json.dumps(record | {"checksums": checksums}))
    assert [run for run in read_results(results).unfinished if run.method == "zebra"] == []
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:3]))  # still a table
    read = read_results(results)
    assert [run.reason for run in read.unfinished if run.method == "zebra"] == ["cases.csv was changed after the run"]
    assert not ((read.cases.method == "zebra") & (read.cases.labels == 0.05) & (read.cases.fold == 0)).any()
    assert "changed after the run" in page_text(results)


def test_a_copy_of_a_run_is_averaged_with_nothing_and_named_on_the_page(results):
    before = printed(main_table(read_results(results)))
    write_run(results / "old", "zebra", 0.05, 0, 0.1)
    shutil.copytree(results / "old/runs/zebra", results / "runs/zebra_old")
    shutil.copytree(results / "old/runs/zebra/labels-05/fold-0", results / "runs/zebra/labels-05/fold-7.bak")
    read = read_results(results)
    assert printed(main_table(read)) == before
    (row,) = printed(run_warnings(read))
    assert "runs/zebra_old/labels-05/fold-0/seed-0 (of runs/zebra/labels-05/fold-0/seed-0)" in row[1]
    assert "runs/zebra/labels-05/fold-7.bak/seed-0 (of" in row[1]
    shutil.rmtree(results / "runs/zebra/labels-05/fold-0")
    assert before[1][1] == "55.00 ± 7.07"
    assert printed(main_table(read_results(results)))[1][1] == "60.00†", "a copy stands for no run either"
    (results / "old/runs/zebra").rename(results / "old/runs/zebra_old")
    with pytest.raises(UserError, match=r"zebra_old/.* holds the record of runs/zebra/labels-05/fold-0/seed-0"):
        read_results(results / "old")


def test_a_run_whose_job_died_keeps_its_reason(results):
    folder = write_run(results, "zebra", 0.05, 2, 0.0)
    spec = json.loads((folder / "run.json").read_text())["spec"]
    reason = "Slurm job 17 ended as OUT_OF_MEMORY"
    (folder / "run.json").write_text(json.dumps({"spec": spec, "status": "failed", "reason": reason}))
    assert ["Zebra", "5 %", "2", "0", "failed", reason] in printed(left_out(read_results(results)))
    (write_run(results, "shapes", 0.0, 2, 0.0) / "run.json").write_text(
        json.dumps({"spec": spec | {"method": "shapes", "labels": 0.0}, "status": "failed", "reason": reason})
    )
    assert ["shapes", "0 %", "2", "0", "failed", reason] in printed(left_out(read_results(results)))


def test_warnings_and_unequal_conditions_are_on_the_page(results):
    write_run(results, "cat", 0.05, 0, 0.5, warnings=["few <images>"])
    assert "The runs differ" not in page_text(results)
    folder = write_run(results, "cat", 0.05, 1, 0.5)
    record = json.loads((folder / "run.json").read_text())
    record["data"]["hash"] = "another"
    (folder / "run.json").write_text(json.dumps(record))
    page = page_text(results)
    assert "few &lt;images&gt;" in page
    assert "The runs differ in their data" in page


def test_longer_trainings_that_the_benchmark_allows_are_no_warning_and_all_others_are(tmp_path):
    """A method may take the steps of a pre-training on top; whatever else decides a training must be that of all."""
    longer = {"dog": {"training": {"steps": 14}}}
    for number, (methods, starts, own, warned) in enumerate([
        (["cat", longer], ["s"], {"steps": 14, "size": [8, 8]}, []),
        (["cat", "dog"], [], {"steps": 14, "size": [8, 8]}, ["steps"]),
        (["cat", "dog"], [], {"steps": 7, "size": [16, 16]}, ["size"]),
        (["cat", "dog"], [], {"steps": 7, "size": [8, 8]}, []),
    ]):  # fmt: skip
        root = tmp_path / str(number)
        for method, training in (("cat", {"steps": 7, "size": [8, 8]}), ("dog", own)):
            file = write_run(root, method, 0.05, 0, 0.5) / "run.json"
            record = json.loads(file.read_text())
            file.write_text(json.dumps(record | {"spec": record["spec"] | {"training": training}}))
        content = {"name": "tiny", "dataset": "d", "methods": methods, "starts": starts}
        (root / "benchmark.yaml").write_text(json.dumps(content))
        rows = run_warnings(read_results(root)).rows
        assert [re.findall(r"training \((\w+)\)", str(row[0]))[0] for row in rows] == warned


def test_a_method_of_two_settings_in_one_table_is_a_warning(results):
    file = results / "runs/zebra/labels-05/fold-1/seed-0/run.json"
    record = json.loads(file.read_text())
    for run, weight in ((results / "runs/zebra/labels-05/fold-0/seed-0/run.json", 1), (file, 2)):
        run.write_text(
            json.dumps(record | {"spec": record["spec"] | {"fold": weight - 1, "config": {"weight": weight}}})
        )
    assert any("settings of zebra (weight)" in str(row[0]) for row in run_warnings(read_results(results)).rows)


def test_every_table_says_in_what_its_runs_differ_that_should_not(results):
    assert not any("Not comparable" in note for table in all_tables(read_results(results)) for note in table.notes)
    retell(results, part="spec", pattern="zebra/*/*/*/run.json", training={"steps": 1500})
    said = "Not comparable: the runs differ in their training (steps)."
    assert [t.name for t in all_tables(read_results(results)) if said not in t.notes] == ["papers"]


def test_what_the_benchmark_asks_for_and_nobody_began_is_said(results):
    for folder in results.glob("runs/*/labels-20"):
        shutil.rmtree(folder)
    asked = {"name": "tiny", "dataset": "d", "labels": [0.05], "folds": [0, 1], "seeds": [0]}
    asked["methods"] = ["plain", "zebra", "ant", "full"]

    def page(**more):
        (results / "benchmark.yaml").write_text(json.dumps(asked | more))
        return page_text(results)

    assert "Nothing: every run is finished" in page()
    more = page(methods=[*asked["methods"], "bird"], labels=[0.05, 0.2], folds=[0, 1, 4])
    assert "also asks for method bird; fold 4; 20 % labelled, for which no run was begun" in more
    for fold in (0, 1):
        write_run(results, "zebra", 0.2, fold, 0.5)
    (write_run(results, "zebra", 0.2, 2, 0.5) / "run.json").write_text("{")  # damaged, and begun all the same
    assert "also asks for 20 % labelled for plain, ant, for which no run was begun" in page(labels=[0.05, 0.2])
    for path in results.glob("runs/full/**/run.json"):  # as an upper bound that failed before it said what it is
        record = json.loads(path.read_text())
        del record["method"]
        path.write_text(json.dumps(record | {"status": "failed"}))
    assert "for full" not in page(labels=[0.05, 0.2])


def test_outlines_fit_their_picture_though_runs_pad_theirs_to_different_sizes(results):
    for number, file in enumerate(sorted(results.glob("runs/*/labels-05/*/*/examples.npz"))):
        with np.load(file) as stored:
            arrays = dict(stored)
        for name in ("images", "labels", "predictions"):
            array = arrays[name]
            arrays[name] = np.pad(array, [(0, 0)] * (array.ndim - 2) + [(0, number), (0, 2 * number)])
        height, width = array.shape[-2:]
        np.savez(file, **arrays)
    read = read_results(results)
    keys = cell_keys(read)
    pictures = case_data(read, keys, page_metrics([read]))["pictures"]
    of_some = {place for place, (_, labels) in enumerate(keys) if labels == 0.05}
    assert pictures
    for picture in pictures.values():
        assert picture["size"] == [width, height]
        encoded = base64.b64decode(picture["image"].partition(",")[2])
        assert Image.open(io.BytesIO(encoded)).size == (width, height)
        assert of_some <= picture["masks"].keys()
        assert all(sum(runs[1::2]) == width * height for runs in (*picture["masks"].values(), picture["reference"]))


def test_pictures_show_every_method_beside_one_that_learns_without_labels(results):
    file = write_run(results, "shapes", 0.05, 0, 0.4) / "run.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps(record | {"method": record["method"] | {"uses_labels": False}}))
    read = read_results(results)
    assert {title for title, *_ in overlays._examples(read)} == {entry.title for entry in read.entries}
    assert read.fewest == 0.05


def test_a_picture_with_the_fewest_labels_shows_no_method_with_more(results):
    write_run(results, "late", 0.2, 0, 0.4)
    read = read_results(results)
    assert {title for title, *_ in overlays._examples(read)} == {e.title for e in read.entries} - {"Late"}


def test_tables_of_an_earlier_report_do_not_stay(results, tmp_path):
    report(results, tmp_path / "out", str(shutil.copytree(results, tmp_path / "before")))
    (tmp_path / "out/tables/mine.csv").write_text("kept")
    assert (tmp_path / "out/tables/changes.md").exists()
    report(results, tmp_path / "out")
    assert not [*(tmp_path / "out/tables").glob("changes.*")]
    assert (tmp_path / "out/tables/mine.csv").exists()


def test_the_order_of_the_columns_of_scores_decides_nothing(results):
    before = printed(difference_table_of(results))
    for file in results.rglob("cases.csv"):
        frame = pd.read_csv(file, dtype=str)
        frame[[*frame.columns[::-1]]].to_csv(file, index=False)
    assert printed(difference_table_of(results)) == before


def difference_table_of(folder):
    """The comparison with the lower bound."""
    return next(table for table in all_tables(read_results(folder)) if table.name == "differences")


def test_a_predictor_that_some_runs_did_not_keep_is_marked(results):
    predicted(results, "zebra", {"second": 1}, [0.25])  # of one of two folds
    read = read_results(results)
    table = predictor_table(read, read.predictors)
    assert printed(table)[1][2] == "25.00†"
    assert any("not all finished runs have kept" in note for note in table.notes)


def test_every_table_says_what_was_measured(results):
    for table in all_tables(read_results(results)):
        if table.name != "papers":
            said = " ".join(table.notes)
            for fact in (
                "Phantom (synthetic data)",
                "2 folds",
                "1 seed",
                "groups unknown",
                "unet_small, 7 training steps",
            ):
                assert fact in said, (table.name, fact)
            assert ("standard deviation over the folds" in said) == ("±" in markdown(table))


def test_every_table_says_of_which_data_split_code_and_precision_it_is(results):
    retell(results, hash="d" * 64, split_hash="s" * 64)
    retell(results, part="spec", training={"steps": 7, "precision": "float32"})
    folder = next(results.glob("runs/zebra/labels-05/fold-1/*"))
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"git_commit": "f" * 40 + "-modified"}))
    said = f"Data {'d' * 12}; split {'s' * 12}; code abc, {'f' * 12} (modified); precision float32."
    assert [t.name for t in all_tables(read_results(results)) if said not in t.notes] == ["papers"]


def test_every_table_says_whether_there_is_room_for_a_difference(results):
    """The upper bound has 95 in both folds; of the lower bound's fractions the smaller one counts."""
    said = "Headroom: 5.00 points from Plain at 5 % to Full"
    tables = [t for t in all_tables(read_results(results)) if t.name != "papers"]
    assert all(f"{said}." in t.notes for t in tables)
    write_run(results, "plain", 0.05, 2, 0.5, role="lower")  # a fold without the upper bound says nothing
    write_run(results, "plain", 0.01, 0, 0.91, role="lower")
    room = next(note for note in main_table(read_results(results)).notes if "Headroom" in note)
    assert room == (
        "Headroom: 4.00 points from Plain at 1 % to Full; below 5, this data set cannot tell methods apart."
    )


def test_missed_structures_are_counted_once_each(results):
    write_run(results, "blind", 0.05, 0, [0.0, 0.5, 0.5, 0.0])
    summary = summary_frame(read_results(results)).set_index(["method", "labels"])
    assert summary.loc[("blind", 0.05), "empty_predictions"] == 2
    assert summary.loc[("ant", 0.05), "empty_predictions"] == 0
    assert summary.loc[("ant", 0.2), ["folds", "seeds", "seconds"]].tolist() == [1, 1, 1.5]


def test_secondary_predictors_stand_below_the_reported_one(results):
    folder = results / "runs/ant/labels-05/fold-0/seed-0"
    cases = pd.read_csv(folder / "cases.csv").assign(dice=0.25)
    cases.insert(0, "predictor", "student")
    cases.to_csv(folder / "predictors.csv", index=False)
    (results / "runs/zebra/labels-05/fold-0/seed-0/predictors.csv").write_text("")
    table = next(t for t in all_tables(read_results(results)) if t.name == "predictors")
    assert [row[:2] for row in table.rows] == [["Ant", "reported"], ["", "student"]]
    assert comma_separated(table).splitlines()[2].startswith(",student,25,")


def predicted(results, method, predictors, dice):
    """Let the first run of a method have more predictors: name and number of networks, if a file tells it."""
    folder = results / f"runs/{method}/labels-05/fold-0/seed-0"
    frames = []
    for (name, networks), value in zip(predictors.items(), dice, strict=True):
        frame = pd.read_csv(folder / "cases.csv").assign(dice=value)
        frame.insert(0, "predictor", name)
        frames.append(frame.assign(networks=networks) if networks else frame)
    pd.concat(frames).to_csv(folder / "predictors.csv", index=False)


def test_a_mean_of_networks_stands_beside_that_of_as_many_of_the_lower_bound(results):
    predicted(results, "zebra", {"second": 1, "both": 2, "all": 3}, [0.1, 0.2, 0.3])
    predicted(results, "ant", {"old": None}, [0.4])  # from before the number of networks was recorded
    predicted(results, "plain", {"ensemble_2": 2}, [0.5])
    tables = {table.name: table for table in all_tables(read_results(results))}
    assert [row[:2] for row in tables["predictors"].rows] == [
        ["Zebra", "reported"], ["", "second"], ["Ant", "reported"], ["", "old"],
    ]  # fmt: skip
    assert [[text(cell) for cell in row[:4]] for row in tables["ensembles"].rows] == [
        ["2", "Plain", "ensemble_2", "50.00†"], ["2", "Zebra", "both", "20.00†"], ["3", "Zebra", "all", "30.00†"],
    ]  # fmt: skip
    assert tables["ensembles"].rules == {2}
    missing = [note for note in tables["ensembles"].notes if note.startswith("No mean of")]
    assert missing == ["No mean of 3 networks of Plain was made, with which these compare."]


def test_a_single_class_needs_no_table_of_classes(tmp_path, results):
    assert "classes" in [table.name for table in all_tables(read_results(results))]
    write_run(tmp_path / "one", "m", 0.05, 0, 0.5, classes=["background", "tool"])
    tables = all_tables(read_results(tmp_path / "one"))
    assert "classes" not in [table.name for table in tables]
    assert "±" not in markdown(tables[0]).replace("no ±", "")  # a single training deviates from nothing


def test_the_same_results_give_the_same_bytes_on_another_day(results, tmp_path):
    command = (
        "import sys, pathlib, semiseg.report as r; r.report(*map(pathlib.Path, sys.argv[1:])); "
        "assert 'torch' not in sys.modules"
    )
    attempts = [
        subprocess.Popen(
            [sys.executable, "-c", command, str(results), str(tmp_path / seed)],
            env={**os.environ, "PYTHONHASHSEED": seed, "SOURCE_DATE_EPOCH": seed * 9},
        )
        for seed in ("1", "2")
    ]
    assert [attempt.wait() for attempt in attempts] == [0, 0]
    first, second = (
        {
            str(f.relative_to(tmp_path / seed)): f.read_bytes()
            for f in sorted((tmp_path / seed).rglob("*"))
            if f.is_file()
        }
        for seed in "12"
    )
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    expected = {"index.html", "summary.csv"}
    expected |= {
        f"plots/{n}.{s}"
        for n in ("label_efficiency", "quality_cost", "case_dice", "training_curves", "overlays")
        for s in ("png", "pdf")
    }
    expected |= {
        f"tables/{n}.{s}"
        for n in ("main", "differences", "differences_cases", "pairs", "ranking", "cost", "full", "classes", "papers")
        for s in ("md", "tex", "csv")
    }
    assert first.keys() == expected


def test_a_clone_without_example_files_keeps_the_committed_picture(reported, tmp_path):
    for file in reported.rglob("examples.npz"):
        file.unlink()
    report(reported, tmp_path / "elsewhere")
    for name in ("overlays.png", "overlays.pdf"):
        assert (tmp_path / "elsewhere/plots" / name).read_bytes() == (reported / "plots" / name).read_bytes()
    assert "Drawn by an earlier report" in (tmp_path / "elsewhere/index.html").read_text()


def test_a_plot_that_todays_numbers_do_not_draw_does_not_stay(results, monkeypatch):
    monkeypatch.setattr(plots, "quality_cost", lambda results: None)
    (results / "plots").mkdir()
    (results / "plots/quality_cost.png").write_bytes(b"of other numbers")
    assert "quality_cost" not in [plot.name for plot in plots.write_plots(read_results(results), results / "plots")]
    assert not (results / "plots/quality_cost.png").exists()


def test_the_page_says_which_command_makes_it_again(results, tmp_path):
    assert f"<pre>semiseg report {results}</pre>" in page_text(results)
    page = report(results, tmp_path / "out", "zebra").read_text()
    assert f"<pre>semiseg report {results} --against zebra --out {tmp_path / 'out'}</pre>" in page
    below = tmp_path / "elsewhere/results/tuning/it's tiny"
    shutil.copytree(results, below)
    command = escape(shlex.join(["semiseg", "report", "results/tuning/it's tiny"]))
    assert f"<pre>{command}</pre>" in page_text(below), "as from the folder that holds `results`"


def test_the_page_needs_nothing_but_itself_and_shows_text_as_text(reported):
    page = (reported / "index.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert "default-src 'none'" in page, "the browser keeps the page to itself"
    assert page.count('src="data:image/png;base64,') == page.count("src=") == 5
    assert page.count('href="#') == page.count("href=")
    assert "@import" not in page
    assert "url(" not in page
    open_tags = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag not in ("meta", "img"):
                open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Checker().feed(page)
    assert open_tags == []


def test_names_cannot_break_the_tables():
    rows = [["a|b & c_d #1 {x} \\ ~^", Score(50, 1, best=True)]]
    assert "\n[" not in latex(Table("t", "A", ["Method", "[left] core"], [["[b]", 1], ["*c", 2]], []))
    table = Table("t", "A_b", ["Method", "5 %"], rows, ["100 %"])
    assert r"a|b \& c\_d \#1 \{x\} \textbackslash{} \textasciitilde{}\textasciicircum{}" in latex(table)
    assert r"\textbf{50.00\,$\pm$\,1.00}" in latex(table)
    assert r"a\|b & c_d" in markdown(table)
    assert "a|b &amp; c_d" in html(table)
    assert comma_separated(table) == "Method,5 %,5 % sd\na|b & c_d #1 {x} \\ ~^,50,1\n"


def test_the_terminal_shows_the_main_table(results):
    write_run(results, "odd", 0.05, 0, 0.3, title="[odd] name")
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(terminal_table(results))
    shown = console.export_text()
    assert re.search(r"Ant\s+75.00 ± 0.00 \s+90.00†", shown)
    assert "[odd] name" in shown


def test_a_single_fraction_with_one_method_still_makes_a_page(tmp_path):
    write_run(tmp_path, "m", 0.05, 0, 0.5)
    assert "50.00" in report(tmp_path).read_text()


def test_only_all_labels_still_makes_a_page(tmp_path):
    write_run(tmp_path, "full", 1.0, 0, 0.5, role="upper")
    assert "50.00" in report(tmp_path).read_text()


def test_nothing_finished_is_said_in_one_line(tmp_path):
    write_run(tmp_path, "m", 0.05, 0, 0.5, status="running")
    for attempt in (report, terminal_table):
        with pytest.raises(UserError, match=r"^.*no finished run.*$") as error:
            attempt(tmp_path)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no such results folder"):
        report(tmp_path / "nowhere")


def test_runs_that_were_kept_although_made_otherwise_are_marked_in_every_table(tmp_path):
    make_results(tmp_path)
    folder = next(tmp_path.glob("runs/zebra/labels-05/fold-1/*"))
    record = json.loads((folder / "run.json").read_text())
    kept = {"because": "made with other code of the method", "as": {}}
    (folder / "run.json").write_text(json.dumps(record | {"kept": kept}))
    content = read_results(tmp_path)
    for table in all_tables(content):
        if table.name == "papers":
            continue
        marked = [row for row in table.rows if any("‡" in text(cell) for cell in row)]
        if table.name in ("main", "full", "differences", "differences_cases"):
            assert marked, table.name
            assert all("Zebra" in map(text, row) for row in marked)
        assert any("‡" in note and "other code of the method" in note for note in table.notes)
    assert "ddagger" in latex(all_tables(content)[0])


def test_captions_tell_the_steps_of_runs_that_were_all_kept_and_not_those_of_the_file(tmp_path):
    make_results(tmp_path)
    asked = {"name": "tiny", "dataset": "phantom", "methods": ["plain", "zebra"], "training": {"steps": 300}}
    (tmp_path / "benchmark.yaml").write_text(yaml.safe_dump(asked))
    assert ", 7 training steps" in wording.budget(read_results(tmp_path))
    retell(tmp_path, "spec", "runs/zebra/**/run.json", training={"steps": 9})
    assert ", 300 training steps" in wording.budget(read_results(tmp_path))
    asked["training"]["augmentation"] = "strong"
    (tmp_path / "benchmark.yaml").write_text(yaml.safe_dump(asked))
    assert wording.budget(read_results(tmp_path)).endswith("pixels"), "runs from before it had the customary one"
    retell(tmp_path, "spec", training={"steps": 300, "augmentation": "strong"})
    assert wording.budget(read_results(tmp_path)).endswith("pixels, strong augmentation")


def test_a_table_says_in_what_machines_and_libraries_its_runs_differ(tmp_path):
    make_results(tmp_path)
    assert not any("same" in note for note in all_tables(read_results(tmp_path))[0].notes)
    folder = next(tmp_path.glob("runs/zebra/labels-05/fold-1/*"))
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"environment": {"device": "cpu: another", "load": 3}}))
    assert "processor (cpu, cpu: another)" in all_tables(read_results(tmp_path))[0].notes[-1]


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """Two folds with 10 patients, 2 patients, 30 % (6 cases), 1 case and all cases labelled, and one run damaged."""
    root = tmp_path_factory.mktemp("counted")
    with_cases = {"10 patients": 20, "2 patients": 4, 0.3: 6, "1 case": 1}
    for fold in (0, 1):
        for labels, cases in with_cases.items():
            data = {"title": "Phantom", "classes": CLASSES, "grouping": "patient", "labeled": cases}
            write_run(root, "plain", labels, fold, 0.5 + 0.01 * cases, role="lower", data=data)
            write_run(root, "zebra", labels, fold, 0.6 + 0.01 * cases + 0.01 * fold, data=data)
        write_run(root, "all", 1.0, fold, 0.9, role="upper", data=data | {"labeled": 40})
    damaged = write_run(root, "zebra", "3 patients", 1, 0.5, status="failed")
    (damaged / "run.json").write_text("{")
    report(root)
    return root


def test_counts_stand_in_the_users_words_sorted_by_how_many_cases_they_label(counted):
    head, *_ = (line for line in (counted / "tables/main.md").read_text().splitlines() if line.startswith("|"))
    words = ["1 case", "2 patients", "30 %", "10 patients", "100 %"]
    assert [cell.strip() for cell in head.strip("|").split("|")][1:] == words
    for name in ("full", "classes", "differences"):
        rows = (counted / f"tables/{name}.csv").read_text().splitlines()[1:]
        assert list(dict.fromkeys(row.split(",")[0] for row in rows if row.split(",")[0] in words))[:4] == words[:4]
    assert list(dict.fromkeys(pd.read_csv(counted / "summary.csv").labels)) == ["1 case", "2 patients", "0.3",
                                                                                 "10 patients", "1.0"]  # fmt: skip
    page = (counted / "index.html").read_text()
    assert "labels 1 case, 2 patients, 30 %, 10 patients, 100 %" in page
    assert "by number of labelled training cases" in page
    assert "Headroom: 39.00 points from Plain at 1 case to All" in page


def test_counts_are_compared_within_the_same_labels(counted):
    table = pd.read_csv(counted / "tables/differences.csv")
    assert len(table) == 4
    assert set(table["Difference"]) == {10.5}


def test_a_damaged_run_with_a_count_is_named_by_its_folder(counted):
    assert re.search(r"3 patients</td>.*?run\.json is damaged", page_text(counted), re.DOTALL)
