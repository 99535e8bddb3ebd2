"""The files of published protocols run on folders in their owners' layout."""

import csv
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from semiseg.benchmarks.expansion import expand, resolve
from semiseg.console.cli import app
from semiseg.registry import find_methods
from semiseg.settings import load_benchmark

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "benchmarks/protocols").glob("*.yaml"))
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_protocol_is_valid_and_asks_for_one_fold_of_the_last_weights(file):
    found = find_methods()
    runs = expand(resolve(load_benchmark(file, {}), found), found)
    assert {(run.benchmark, run.fold, run.seed) for run in runs} == {(file.stem, 0, 0)}
    assert all(run.protocol and run.protocol.selected_on for run in runs)
    scaled = file.with_name(f"{file.stem}_scaled.yaml")
    assert file.stem.endswith("_scaled") or scaled.exists()


def test_a_scaled_protocol_keeps_cases_and_rules():
    for file in FILES:
        if not file.stem.endswith("_scaled"):
            full, scaled = (load_benchmark(f, {}) for f in (file, file.with_name(f"{file.stem}_scaled.yaml")))
            free = {"every": 1, "stride": None}
            one, other = (benchmark.protocol.model_copy(update=free) for benchmark in (full, scaled))
            assert one == other
            assert (full.labels, full.dataset) == (scaled.labels, scaled.dataset)


def save(path: Path, shape: tuple[int, ...], classes: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["image"] = RNG.random(shape, np.float32)
        file["label"] = RNG.integers(0, classes, shape).astype(np.uint8)


def acdc(folder: Path) -> None:
    """Nine patients in SSL4MIS's layout."""
    names = [f"patient00{number}_frame0{frame}" for number in range(1, 10) for frame in (1, 2)]
    for name in names:
        save(folder / f"data/{name}.h5", (2, 20, 24), 4)
    slices = [f"{name}_slice_{number}" for name in names[:12] for number in (2, 1)]
    for name, lines in {"train_slices": slices, "val": names[12:14], "test": names[14:]}.items():
        (folder / f"{name}.list").write_text("\n".join(lines))


def atria(folder: Path) -> None:
    """Eight scans in UA-MT's layout."""
    names = [f"SCAN{number}" for number in range(8)]
    for name in names:
        save(folder / f"{name}/mri_norm2.h5", (18, 20, 12), 2)
    (folder / "train.list").write_text("\n".join(names[:6]))
    (folder / "test.list").write_text("\n".join(names[6:]))


SMALL = {
    "acdc_3": (acdc, "ssl4mis_folder", "unet_small", "[16,16]", "null", {"validation", "validation and test"}),
    "la_4": (atria, "ua_mt_folder", "vnet_small", "[8,16,16]", "[2,2,2]", {"test"}),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_protocol_runs_on_the_owners_folder(tmp_path, name):
    write, recipe, network, size, stride, rules = SMALL[name]
    write(tmp_path / "source")
    data = ["--data-dir", str(tmp_path / "data")]
    prepared = CliRunner().invoke(app, ["prepare", recipe, "--source", str(tmp_path / "source"), "--out", data[1]])
    assert prepared.exit_code == 0, prepared.output
    changes = {"dataset": "source", "network": network, "training.size": size, "training.steps": 2,
               "training.precision": "float32", "protocol.every": 1, "protocol.stride": stride}  # fmt: skip
    file = next(file for file in FILES if file.stem == name)
    sets = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    out = tmp_path / "results"
    asked = ["run", str(file), *sets, *data, "--out", str(out), "--methods", "supervised", "--jobs", "1"]
    done = CliRunner().invoke(app, [*asked, "--device", "cpu"])
    assert done.exit_code == 0, done.output
    (scores,) = out.glob("runs/supervised/*/fold-0/seed-0/predictors.csv")
    with scores.open(newline="") as rows:
        assert {row["predictor"] for row in csv.DictReader(rows)} == {f"selected on {rule}" for rule in rules}
    table = (out / "tables/predictors.md").read_text()
    assert all(f"selected on {rule}" in table for rule in rules)
    assert "The fold is the data set's own: its lists" in table


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as rows:
        return list(csv.DictReader(rows))


PAGE = (ROOT / "docs/protocols.md").read_text(encoding="utf-8").splitlines()
PUBLISHED = rows_of(ROOT / "results/published.csv")


def table(*header: str) -> list[list[str]]:
    """The rows of the page's table with this header."""
    start = PAGE.index(f"| {' | '.join(header)} |") + 2
    return [line.strip("| ").split(" | ") for line in PAGE[start : PAGE.index("", start)]]


def test_the_page_says_of_every_published_number_which_rule_chose_it():
    page = {(labels, rule): told.split(", ") for labels, rule, told in table("Data, labels", "Rule", "Methods")}
    assert len(PUBLISHED) > 100
    for row in PUBLISHED:
        told = page[f"{row['dataset']}, {row['labelled']}", row["protocol"]]
        assert f"{row['method']} {row['dice']}" in told
    assert sum(map(len, page.values())) <= len(PUBLISHED), "numbers that are not published"


def test_the_page_names_every_method_of_which_sources_have_different_numbers():
    numbers: dict[tuple[str, str], set[str]] = {}
    for row in PUBLISHED:
        told = f"{row['dice']} ({row['protocol']}, {'/'.join(row['source'].split()[0].split('/')[1:3])})"
        numbers.setdefault((f"{row['dataset']}, {row['labelled']}", row["method"]), set()).add(told)
    several = {key: told for key, told in numbers.items() if len({float(one.split()[0]) for one in told}) > 1}
    page = table("Data, labels", "Method", "Dice (%), rule, source")
    assert len(several) > 20
    assert {(labels, method): {*told.split("; ")} for labels, method, told in page} == several
