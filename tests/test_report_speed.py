"""A report on many runs, and their status, take seconds that grow with the runs and not with their square.

All times are of the processor, which do not depend on what else the machine does; both use one core.
"""

import json
import time

import numpy as np
import pandas as pd

from semiseg.benchmarks.expansion import expand
from semiseg.benchmarks.state import survey
from semiseg.labels import folder_of
from semiseg.metrics import TABLE
from semiseg.registry import find_methods
from semiseg.report.page_data import page_data
from semiseg.report.reading import read_results
from semiseg.report.tables import all_tables
from semiseg.settings import BenchmarkSettings
from semiseg.training.places import Places

CASES, CLASSES = 25, ["background", "wall", "cavity"]


def make_many(root, methods, folds):
    """Runs of some methods and the lower bound at three shares of labels, and of the upper bound; how many they are."""
    random, runs = np.random.default_rng(0), 0
    rows = pd.DataFrame(
        [
            {"case": f"c{case:03}", "group": f"g{case // 2}", "class": number, "class_name": CLASSES[number]}
            for case in range(CASES)
            for number in (1, 2)
        ]
    )
    names = {"plain": (False, False), "full": (False, True)} | {f"m{i:02}": (True, False) for i in range(methods)}
    for name, (unlabeled, everything) in names.items():
        for labels in (1.0,) if everything else (0.05, 0.2, 0.5):
            for fold in range(folds):
                folder = root / "runs" / name / folder_of(labels) / f"fold-{fold}/seed-0"
                folder.mkdir(parents=True)
                described = {"title": name, "uses_unlabeled": unlabeled, "uses_all_labels": everything, "networks": 1}
                data = {"title": "Many", "classes": CLASSES, "grouping": "patient", "hash": "1", "split_hash": "2"}
                spec = {"benchmark": "many", "method": name, "labels": labels, "fold": fold, "seed": 0}
                spec |= {"network": "unet_small", "training": {"steps": 3000}}
                record = {"spec": spec, "method": described | {"paper": {}}, "data": data, "status": "finished"}
                seconds = float(random.uniform(10, 90))
                (folder / "run.json").write_text(json.dumps(record | {"seconds": seconds, "images_per_second": 9.0}))
                scores = {metric: random.uniform(0.3, 0.95, len(rows)).round(6) for metric in TABLE}
                cases = rows.assign(**scores, predicted_voxels=9, reference_voxels=9)
                cases["case"] += f"-{fold % 5}"
                cases["group"] += f"-{fold % 5}"
                cases.to_csv(folder / "cases.csv", index=False)
                loss = random.uniform(0.1, 1, 60)
                pd.DataFrame({"step": range(0, 3000, 50), "supervised": loss}).to_csv(folder / "curve.csv", index=False)
                runs += 1
    return runs


def test_the_numbers_of_a_report_are_there_in_a_few_hundredths_of_a_second_a_run(tmp_path):
    """The whole report of `make_many(root, 21, 15)`, 1,005 runs with 50,250 rows: 32 s and 324 MB on a slow core."""
    runs = make_many(tmp_path, 3, 15)
    begin = time.process_time()
    results = read_results(tmp_path)
    assert len(results.finished) == runs == 195
    assert all_tables(results)
    assert page_data([results])
    assert time.process_time() - begin < 0.06 * runs


def test_the_status_of_a_thousand_runs_is_there_at_once(tmp_path):
    content = {"name": "many", "dataset": "none", "methods": ["supervised"], "labels": [0.05], "network": "unet_small"}
    settings = BenchmarkSettings(**content, repeats=3, seeds=list(range(67)))
    found = find_methods()
    specs = expand(settings, found)
    for spec in specs:
        folder = tmp_path / spec.folder
        folder.mkdir(parents=True)
        record = {"spec": spec.model_dump(mode="json"), "status": "finished"}
        (folder / "run.json").write_text(json.dumps(record))
    begin = time.process_time()
    runs = survey(specs, Places(tmp_path, tmp_path, tmp_path, None), found, None)
    assert time.process_time() - begin < 2
    assert len(runs) == 1005
