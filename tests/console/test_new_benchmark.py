"""`semiseg new-benchmark`: a file that runs as it is, chosen without labels, and what it says about the data."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from commands import call, carried_out, in_this_process
from semiseg.benchmarks.expansion import expand
from semiseg.benchmarks.proposal import LEAST, MOST, Pace, budget, fractions, seconds, set_up
from semiseg.console import new_benchmark as command
from semiseg.contract import tiny_dataset
from semiseg.data.census import Outline, count_classes
from semiseg.data.splits import make_splits
from semiseg.data.store import Case, Dataset, DatasetInfo, write_dataset
from semiseg.errors import UserError
from semiseg.executors import local
from semiseg.registry import find_methods
from semiseg.report.sheet import draw_sheet, spread
from semiseg.settings import BenchmarkSettings, load_benchmark
from semiseg.training import timing

DRAWN = np.zeros((24, 32), np.uint8)
DRAWN[4:12, 4:12] = 1


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder to work in, on a machine whose speed is known."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEMISEG_DATA", raising=False)
    monkeypatch.setattr(local.Local, "carry_out", in_this_process)
    monkeypatch.setattr(command, "time_run", lambda *_: (0.02, 0.1))
    monkeypatch.setattr(command, "draw_sheet", lambda *_: None)
    carried_out.clear()


def dataset(labels=None, name="mine", cases=20, per_group=1, grouping="patient", unit="pixels", channels=1):
    """A data set of cases of noise; `labels` gives the mask of each."""
    labels = labels or [DRAWN] * cases
    pixels = [
        np.random.default_rng(c).integers(0, 255, (channels, *x.shape)).astype(np.uint8) for c, x in enumerate(labels)
    ]
    spacing = (1.0,) * labels[0].ndim
    classes = ("background", "polyp", "instrument")
    info = DatasetInfo(name, name, "none", classes, "CC0", "", grouping=grouping, unit=unit)
    cases = [Case(f"{c:03}", f"g{c // per_group}", pixels[c], label, spacing) for c, label in enumerate(labels)]
    write_dataset(Path(f"data/{name}.h5"), info, cases)
    return Dataset(Path(f"data/{name}.h5"))


def written(*options, name="mine"):
    assert call("new-benchmark", name, "--data", "mine", "--device", "cpu", *options) == 0
    return Path(f"benchmarks/{name}.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("dims", [2, 3])
def test_the_file_runs_as_it_is_and_what_comes_next_is_printed(dims, capfd, monkeypatch):
    monkeypatch.setattr(command, "time_run", timing.time_run)
    monkeypatch.setattr(command, "draw_sheet", draw_sheet)
    tiny_dataset(Path("my data/tiny.h5"), dims)
    made = ["new-benchmark", "2026", "--data", "tiny", "--data-dir", "my data", "--device", "cpu"]
    assert call(*made) == 0
    out = capfd.readouterr().out
    assert Image.open("my data/tiny.png").width > 500
    assert "Pictures with outlines: my data/tiny.png" in out
    assert re.search(r"about .* on this machine.*\d+ ms for a step of Supervised", out)
    (following,) = re.findall(r"Next: semiseg (.*)", out)
    assert "splits" not in {path.name for path in Path("benchmarks").iterdir()}, "nothing is frozen by looking"
    less = ["--device", "cpu", "--methods", "supervised", "--labels", "50%", "--folds", "0"]
    monkeypatch.setattr("semiseg.report.report", lambda _: None)  # takes longer than all of this
    assert call(*shlex.split(following), *less, "--set", "training.steps=1", "--set", "training.size=[16,16]") == 0
    assert carried_out == ["runs/supervised/labels-50/fold-0/seed-0"]


def test_images_without_masks_let_all_others_be_labelled_and_are_trained_on(capfd, monkeypatch):
    monkeypatch.setattr(command, "draw_sheet", draw_sheet)
    pixels = np.random.default_rng(0).integers(0, 255, (25, 1, 24, 32)).astype(np.uint8)
    info = DatasetInfo("mine", "Mine", "none", ("background", "polyp"), "CC0", "", unit="pixels")
    cases = [Case(f"{n:02}", f"{n:02}", pixels[n], DRAWN if n < 10 else None, (1.0, 1.0)) for n in range(25)]
    write_dataset(Path("data/mine.h5"), info, cases)
    text = written()
    out = capfd.readouterr().out
    assert "mine: 25 images, 15 of them without a mask, groups unknown" in out
    assert "in 10 of 10 images" in out
    assert "missing from" not in out
    assert "# Of 8 training cases of a fold, in whole groups: 20 % are 2, 50 % are 4, 100 % are 8." in text
    assert "# Beside them methods learn from up to 15 images without a mask." in text
    assert "labels: [20%, 50%, 100%]" in text
    monkeypatch.setattr("semiseg.report.report", lambda _: None)
    less = ["--methods", "mean_teacher", "--labels", "100%", "--folds", "1", "--set", "training.steps=1"]
    assert call("run", "benchmarks/mine.yaml", "--device", "cpu", *less) == 0
    (folder,) = carried_out
    record = json.loads(Path("results/mine", folder, "run.json").read_text())
    assert {key: record["data"][key] for key in ("labeled", "unlabeled", "test")} == {
        "labeled": 8, "unlabeled": 15, "test": 2,
    }  # fmt: skip


def test_labels_choose_nothing():
    dataset()
    first = written()
    for number, label in enumerate((DRAWN * 0, DRAWN[::-1] * 2, np.ones_like(DRAWN))):
        dataset([label] * 20)
        other = written(name=f"other{number}")
        assert other.replace(f"name: other{number}", "name: mine") == first


def test_earlier_work_is_not_replaced(capfd):
    dataset()
    Path("benchmarks").mkdir()
    Path("benchmarks/mine.yaml").write_text("my work")
    assert call("new-benchmark", "mine", "--data", "mine", "--device", "cpu") == 2
    assert "mine.yaml exists already" in capfd.readouterr().err
    assert call("new-benchmark", "mine", "--data", "mien", "--device", "cpu") == 2
    both = capfd.readouterr().err
    assert "mine.yaml exists already" in both
    assert "mien.h5: there is no such data set" in both
    assert Path("benchmarks/mine.yaml").read_text() == "my work"
    assert call("new-benchmark", "../mine", "--data", "mine", "--device", "cpu") == 2
    assert written("--out", "elsewhere.yaml", name="mine") == "my work"
    assert load_benchmark(Path("elsewhere.yaml"), {}).dataset == "mine"


def test_data_that_were_not_prepared_are_answered_with_how(capfd):
    assert call("new-benchmark", "mine", "--data", "mine", "--device", "cpu") == 2
    assert "semiseg prepare image_folder --source DIR/mine" in capfd.readouterr().err


def test_a_newcomer_learns_what_the_data_are(capfd):
    labels = [DRAWN] * 20
    labels[3] = np.where(np.arange(32) > 27, 2, DRAWN).astype(np.uint8)
    dataset(labels, per_group=2, channels=3)
    written()
    out = capfd.readouterr().out
    assert "mine: 20 images, of 10 groups (patient); RGB" in out
    assert "Size: 24 × 32 pixels, usually 24 × 32; spacing: unknown" in out
    assert re.search(r"Class polyp +8\.3 % of all pixels, in 20 of 20 images", out)
    assert re.search(r"Class instrument +0\.62 % of all pixels, in 1 of 20 images", out)
    assert "Note: instrument is missing from 19 of 20 cases" in out
    assert "groups are unknown" not in out
    assert "less than one" in out


def test_what_may_mislead_is_said(capfd):
    dot = np.zeros((24, 32), np.uint8)
    dot[3, 3:6] = 1
    dataset([dot] * 30, cases=30, grouping="")
    written()
    notes = re.findall("Note: (.*)", capfd.readouterr().out)
    assert [note[:20] for note in notes] == ["groups are unknown: ", "polyp is tiny: where", "no case shows instru"]


def test_classes_are_counted_where_they_are():
    volume = np.zeros((4, 5, 5), np.uint8)
    volume[1, :2, :] = 1
    counts = count_classes(data := dataset([volume, volume * 0]), data.records)
    assert [(c.name, c.share, c.cases, c.share_where_shown) for c in counts] == [
        ("polyp", 10 / 200, 1, 10 / 25), ("instrument", 0, 0, 0),
    ]  # fmt: skip


def test_a_fraction_that_labels_no_more_than_a_smaller_one_costs_no_training():
    def kept(cases, per_group):
        data = dataset(cases=cases, per_group=per_group)
        found = fractions(make_splits(data), {r.id: r.group for r in data.records.values()})
        return {fraction: len(labeled) for fraction, labeled in found.items()}

    assert kept(100, 1) == {0.05: 4, 0.2: 16, 0.5: 40}
    assert kept(10, 1) == {0.2: 2, 0.5: 4}
    assert kept(25, 5) == {0.2: 5, 0.5: 10}


def test_a_group_that_holds_everything_is_refused_before_hours_are_spent():
    data = dataset(cases=20)
    groups = {r.id: r.group for r in data.records.values()}
    splits = make_splits(data)
    lump = dict.fromkeys(splits.folds[0].train, "one")
    with pytest.raises(UserError, match="name finer groups"):
        fractions(splits, groups | lump)


def outline(*size, spacing=None, cases=100):
    return Outline(cases, 0, cases, 1, tuple((length, length) for length in size), size, spacing)


@pytest.mark.parametrize(
    ("about", "gpu", "network", "size"),
    [
        (outline(480, 640), False, "unet_small", (80, 112)),
        (outline(480, 640), True, "unet", (224, 304)),
        (outline(40, 50), True, "unet", (32, 48)),
        (outline(31, 35), False, "unet_small", (32, 32)),
        (outline(10, 256, 216, spacing=(10, 1.5, 1.5)), False, "unet_small", (96, 80)),
        (outline(36, 50, 35, spacing=(1, 1, 1)), False, "unet_3d_small", (32, 48, 32)),
        (outline(88, 272, 180, spacing=(0.6, 0.6, 0.6)), True, "unet_3d", (48, 160, 96)),
        (outline(40, 512, 512, spacing=(5, 0.7, 0.7)), True, "unet", (256, 256)),
    ],
)
def test_sizes_suit_images_and_machine(about, gpu, network, size):
    setup = set_up(about, gpu)
    assert (setup.network, setup.size) == (network, size)


def test_the_crop_that_is_offered_comes_from_sizes_and_stays_a_comment():
    dataset([np.zeros((300, 400), np.uint8)] * 20)
    text = written()
    assert "# crop: {window: [150, 200], at: centre}" in text
    content = yaml.safe_load(text)
    assert "crop" not in content["training"]
    with_crop = yaml.safe_load(text.replace("# crop:", "crop:"))
    BenchmarkSettings.model_validate(with_crop)


def test_the_steps_fit_the_hours():
    settings = BenchmarkSettings.model_validate(
        {
            "name": "a",
            "dataset": "a",
            "methods": ["supervised", "cps", "fully_supervised"],
            "folds": [0],
            "labels": [0.2],
        }
    )
    found = find_methods()
    runs = expand(settings, found)
    per_step, beside = seconds(settings, runs, found, Pace(0.1, 2.0, jobs=2), tests=10)
    assert per_step == pytest.approx((0.1 + 2 * 2 * 0.1 + 0.1) / 2)  # CPS: two networks, twice the images
    assert beside == pytest.approx((1 + 2 + 1) * 10 * 2.0 / 2)
    assert budget(1, per_step, beside, 2) == 11000  # (3600 - 40) / 0.3 = 11866
    assert budget(0.01, per_step, beside, 2) == LEAST[2]
    assert budget(1000, per_step, beside, 3) == MOST


def test_a_slow_machine_leaves_folds_out_and_says_so(monkeypatch):
    dataset()
    all_folds = yaml.safe_load(written("--hours", "1"))
    monkeypatch.setattr(command, "time_run", lambda *_: (1.0, 0.1))
    text = written("--hours", "1", name="slow")
    assert all_folds["folds"] == [0, 1, 2, 3, 4]
    assert yaml.safe_load(text)["folds"] == [0]
    assert "all take too long here" in text


def test_hours_that_cannot_be_kept_are_not_passed_over(monkeypatch, capfd):
    dataset()
    monkeypatch.setattr(command, "time_run", lambda *_: (1.0, 0.1))
    written("--hours", "0.5")
    assert "Note: it does not fit 30 minutes: even one fold with 300 steps" in capfd.readouterr().out
    written("--hours", "100", name="long")
    assert "does not fit" not in capfd.readouterr().out


def test_pictures_show_as_many_patients_as_possible():
    data = dataset(cases=60, per_group=20)
    assert [f"{int(case) // 20}" for case in spread(data)] == ["0"] * 4 + ["1"] * 4 + ["2"] * 4
    data = dataset(cases=60, per_group=4)
    assert len({data.records[case].group for case in spread(data)}) == 12
    assert spread(dataset(cases=60)) == [f"{5 * number:03}" for number in range(12)]
    assert spread(dataset(cases=3)) == ["000", "001", "002"]


def test_a_step_and_a_test_are_measured_without_a_trace_and_threads_stay(monkeypatch):
    data = tiny_dataset(Path("data/tiny.h5"), 2)
    content = {"name": "a", "dataset": "tiny", "methods": ["supervised"], "network": "unet_small", "labels": ["25%"]}
    training = {"size": [16, 16], "labeled_batch": 2, "unlabeled_batch": 2}
    settings = BenchmarkSettings.model_validate(content | {"training": training})
    found = find_methods()
    (run, *_), splits = expand(settings, found), make_splits(data)
    partition = splits.partition(0, 0.25, {r.id: r.group for r in data.records.values()})
    read = []
    monkeypatch.setattr(
        Dataset, "label", lambda self, case, read_it=Dataset.label: read.append(case) or read_it(self, case)
    )
    threads = []
    monkeypatch.setattr(timing.torch, "set_num_threads", threads.append)
    step, test = timing.time_run(found["supervised"], run, data, partition, timing.torch.device("cpu"), 7)
    assert 0 < step < 5
    assert 0 < test < 5
    assert threads == [7, timing.torch.get_num_threads()]
    assert set(read) <= set(partition.labeled), "hidden labels have no say in how many steps there are"
    assert {path.name for path in Path().glob("**/*") if "cache" not in path.parts} == {"data", "tiny.h5"}
