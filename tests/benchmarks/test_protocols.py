"""The files of published protocols run on folders in their owners' layout, and have what the public scripts have."""

import csv
from math import sqrt
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from semiseg.benchmarks.expansion import expand, resolve
from semiseg.console.cli import app
from semiseg.contract import CPU
from semiseg.registry import find_methods
from semiseg.settings import RunSpec, load_benchmark
from semiseg.training.places import Places
from semiseg.training.run import execute

ROOT = Path(__file__).parents[2]
FILES = {file.stem: file for file in sorted((ROOT / "benchmarks/protocols").glob("*.yaml"))}
FULL = [name for name in FILES if not name.endswith("_scaled")]
FOUND = find_methods()
RNG = np.random.default_rng(0)


def runs_of(name: str, changes: dict[str, Any] | None = None) -> dict[str, RunSpec]:
    """Every run of a protocol by its method's name."""
    return {run.method: run for run in expand(resolve(load_benchmark(FILES[name], changes or {}), FOUND), FOUND)}


@pytest.mark.parametrize("name", FILES)
def test_every_protocol_is_valid_and_asks_for_one_fold_of_the_last_weights(name):
    runs = runs_of(name).values()
    assert {(run.benchmark, run.fold, run.seed) for run in runs} == {(name, 0, 0)}
    assert all(run.protocol and run.protocol.selected_on for run in runs)
    assert name.endswith("_scaled") or f"{name}_scaled" in FILES


@pytest.mark.parametrize("name", FULL)
def test_a_scaled_protocol_keeps_cases_and_rules(name):
    full, scaled = (load_benchmark(FILES[file], {}) for file in (name, f"{name}_scaled"))
    free = {"every": 1, "stride": None}
    one, other = (benchmark.protocol.model_copy(update=free) for benchmark in (full, scaled))
    assert one == other
    assert (full.labels, full.dataset) == (scaled.labels, scaled.dataset)


@pytest.mark.parametrize("name", FULL)
def test_a_scaled_protocol_shortens_the_schedule_of_every_method_alike(name):
    full, scaled = runs_of(name), runs_of(f"{name}_scaled")
    besides = {f"{method}_published" for method in full} & {*scaled}  # where trials chose something else
    assert list(full) == [method for method in scaled if method not in besides]
    assert all(scaled[method].config == full[method.removesuffix("_published")].config for method in besides)
    factor = full["supervised"].training.steps / scaled["supervised"].training.steps
    settings = load_benchmark(FILES[f"{name}_scaled"], {})
    tuned = {*scaled} - {*settings.untuned()} if settings.tuned else set()
    for method, run in full.items():
        one, other = run.training, scaled[method].training
        assert other.steps == round(one.steps / factor), method
        assert other.decay_every == (one.decay_every and round(one.decay_every / factor)), method
        assert other.poly_power == one.poly_power, method
        assert scaled[method].config.get("pretraining") == run.config.get("pretraining"), method
        assert method in tuned or scaled[method].config == run.config, method


ONE_RATE, POLYNOMIAL, TENTHS = (0, None), (0.9, None), (None, 2500)  # power, and steps after which a tenth is left
SCRIPTS = {  # steps, labelled images of a step, and what becomes of the rate of 0.01
    "acdc": {
        "mean_teacher": (30_000, 12, POLYNOMIAL),  # SSL4MIS, as the next five
        "ua_mt": (30_000, 12, POLYNOMIAL),
        "cps": (30_000, 12, POLYNOMIAL),
        "urpc": (30_000, 12, POLYNOMIAL),
        "fixmatch": (30_000, 12, POLYNOMIAL),
        "cross_teaching": (30_000, 8, POLYNOMIAL),
        "mcnet": (30_000, 12, ONE_RATE),  # train_mcnet_2d.py
        "ss_net": (30_000, 12, ONE_RATE),  # train_ss_2d.py
        "ad_mt": (30_000, 12, POLYNOMIAL),  # config_2d_aut.yml
        "abd": (30_000, 8, POLYNOMIAL),  # train_ACDC_Cross_Teaching.py
        "unimatch": (30_000, 12, POLYNOMIAL),  # 300 passes, about as many steps
        "bcp": (40_000, 12, ONE_RATE),  # ACDC_BCP_train.py
        "abd_bcp": (40_000, 12, ONE_RATE),  # train_ACDC_BCP.py
    },
    "la": {
        "ua_mt": (6_000, 2, TENTHS),  # train_LA_meanteacher_certainty_unlabel.py
        "mcnet": (15_000, 2, ONE_RATE),  # train_mcnet_3d.py
        "ss_net": (15_000, 2, TENTHS),  # train_ss_3d.py
        "ad_mt": (15_000, 2, POLYNOMIAL),  # config_3d_la_aut.yml
        "bcp": (17_000, 4, TENTHS),  # LA_BCP_train.py
    },
}


@pytest.mark.parametrize("name", FULL)
def test_methods_have_the_steps_batches_and_rates_of_their_public_scripts(name):
    runs = runs_of(name)
    for method, expected in SCRIPTS[name.split("_")[0]].items():
        own = runs[method].training
        rate = (None if own.decay_every else own.poly_power, own.decay_every)
        assert (own.steps, own.labeled_batch, rate) == expected, method
        assert (own.learning_rate, own.labeled_batch) == (0.01, own.unlabeled_batch), method


@pytest.mark.parametrize("name", FULL)
def test_a_pretraining_ends_at_the_published_step(name):
    runs = runs_of(name)
    pretrained = {m: (run.config["pretraining"], run.training.steps) for m, run in runs.items() if "bcp" in m}
    published = {"acdc": {"bcp": 10_000, "abd_bcp": 10_000}, "la": {"bcp": 2_000}}[name.split("_")[0]]
    assert {method: round(share * steps) for method, (share, steps) in pretrained.items()} == published


@pytest.mark.parametrize("name", FULL)
def test_the_adversarial_noise_has_its_published_norm_in_an_image(name):
    run = runs_of(name)["ss_net"]
    pixels = sqrt(np.prod(run.training.size))
    published = {"acdc": (6, 10), "la": (10, 10)}[name.split("_")[0]]
    assert (run.config["magnitude"] * pixels, run.config["guess"] * pixels) == pytest.approx(published, rel=0.005)


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


OWNERS = {"acdc": (acdc, "ssl4mis_folder"), "la": (atria, "ua_mt_folder")}
SMALL = {"dataset": "source", "training.steps": 2, "training.precision": "float32", "protocol.every": 4}
SMALLER = {
    "acdc": {"network": "unet_small", "training.size": [16, 16]},
    "la": {"network": "vnet_small", "training.size": [8, 16, 16], "protocol.stride": [8, 16, 16]},
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder of prepared data of an owner."""
    folders = {}

    def prepare(owner):
        if owner not in folders:
            (write, recipe), folder = OWNERS[owner], tmp_path_factory.mktemp(owner)
            write(folder / "source")
            asked = ["prepare", recipe, "--source", str(folder / "source"), "--out", str(folder / "data")]
            done = CliRunner().invoke(app, asked)
            assert done.exit_code == 0, done.output
            folders[owner] = folder / "data"
        return folders[owner]

    return prepare


def test_a_protocol_is_run_and_reported_by_the_command(tmp_path, prepared):
    out, sets = tmp_path / "results", {**SMALL, **SMALLER["acdc"]}
    given = [part for key, value in sets.items() for part in ("--set", f"{key}={value}")]
    asked = ["run", str(FILES["acdc_3"]), *given, "--data-dir", str(prepared("acdc")), "--out", str(out)]
    done = CliRunner().invoke(app, [*asked, "--methods", "supervised", "--jobs", "1", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    (scores,) = out.glob("runs/supervised/*/fold-0/seed-0/predictors.csv")
    rules = {"selected on validation", "selected on validation and test"}
    assert {row["predictor"] for row in rows_of(scores)} == rules
    table = (out / "tables/predictors.md").read_text()
    assert all(rule in table for rule in rules)
    assert "The fold is the data set's own: its lists" in table


@pytest.mark.parametrize("name", ["acdc_3", "acdc_3_scaled", "la_4", "la_4_scaled"])
def test_a_method_in_stages_trains_and_is_compared_on_the_owners_folder(tmp_path, prepared, name):
    owner, steps = name.split("_")[0], 9  # as few as leave one for the pre-training
    run = runs_of(name, {**SMALL, **SMALLER[owner]})["bcp"]
    run = run.model_copy(update={"training": run.training.model_copy(update={"steps": steps})})
    record = execute(run, Places(tmp_path, prepared(owner), tmp_path / "splits"), CPU)
    assert record["status"] == "finished", record["reason"]
    rules = {"acdc": {"validation", "validation and test"}, "la": {"test"}}[owner]
    assert record["selection"].keys() == rules
    compared = [int(row["step"]) for row in rows_of(tmp_path / run.folder / "selection.csv")]
    assert compared == [4, 8, 9]
    told = rows_of(tmp_path / run.folder / "predictors.csv")
    assert {row["predictor"] for row in told} >= {f"selected on {rule}" for rule in rules}


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
