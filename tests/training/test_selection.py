"""What published rules would have chosen stands beside the last weights, and changes nothing of the training."""

import csv
from itertools import product
from math import ceil
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from semiseg.benchmarks.state import standing
from semiseg.contract import CPU, Interrupted, tiny_dataset
from semiseg.data.protocol import Protocol
from semiseg.data.store import Dataset
from semiseg.method import Task
from semiseg.metrics import class_metrics, foreground_dice
from semiseg.networks import Output
from semiseg.settings import RunSpec, TrainingSettings
from semiseg.training import trainer as trainers
from semiseg.training.evaluation import predict_case
from semiseg.training.identity import Identity
from semiseg.training.places import Places
from semiseg.training.run import execute
from semiseg.training.selection import Selection

LISTS = {"train": range(5, 0, -1), "val": (6, 7), "test": (8, 9)}
RULES = ("validation", "validation and test", "test")
LIST_ONLY = Protocol(validation="val")
SELECTED = Protocol(validation="val", selected_on=RULES, every=3)
TRAINING = TrainingSettings(
    steps=8, size=(16, 16), labeled_batch=4, unlabeled_batch=4, learning_rate=0.1, precision="float32",
    log_every=1, checkpoint_every=2,
)  # fmt: skip

PLUGIN = '''
"""Its reported teacher gives targets in evaluation mode, so that its statistics count during the training."""
from semiseg.losses import supervised_loss
from semiseg.method import Method, Paper, predict

class Follower(Method):
    """A student learns from its moving average."""
    title = "Follower"
    paper = Paper("None", "Nobody", "Nowhere")
    views = ("plain",)

    def build(self):
        self.student = self.network()
        self.teacher = self.moving_average(self.student, 0.9)

    def losses(self, batch, progress):
        labeled, unlabeled = batch.split(self.student(batch.images()).logits)
        target = predict(self.teacher, batch.unlabeled()).logits.softmax(1)
        distance = (unlabeled.softmax(1) - target).square().mean()
        return {"supervised": supervised_loss(labeled, batch.labels), "consistency": distance}

    def predictors(self):
        return {"teacher": self.teacher}
'''


def with_lists(path, dims=2):
    tiny_dataset(path, dims)
    with h5py.File(path, "a") as file:
        for name, numbers in LISTS.items():
            lines = [f"case{number:02d}" for number in numbers]
            file.create_dataset(f"lists/{name}", data=lines, dtype=h5py.string_dtype())
    return Dataset(path)


@pytest.fixture
def places(tmp_path):
    (tmp_path / "data").mkdir()
    with_lists(tmp_path / "data" / "tiny.h5")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "follower.py").write_text(PLUGIN)
    return Places(tmp_path / "results", tmp_path / "data", tmp_path / "splits", tmp_path / "plugins")


def spec(protocol=SELECTED, method="mean_teacher", **training):
    content = {"benchmark": "b", "dataset": "tiny", "method": method, "implementation": method, "config": {},
               "labels": "2 cases", "fold": 0, "seed": 0, "network": "unet_small", "weights": None,
               "training": TRAINING.model_copy(update=training), "protocol": protocol}  # fmt: skip
    return RunSpec.model_validate(content)


def carried_out(run, places, name="results"):
    elsewhere = Places(places.results.with_name(name), places.data, places.splits, places.methods_dir)
    record = execute(run, elsewhere, CPU)
    assert record["status"] == "finished", record["reason"]
    return record, elsewhere.results / run.folder


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def dice(scores, predictor=None):
    return np.mean([float(row["dice"]) for row in scores if predictor in (None, row.get("predictor"))])


@pytest.mark.parametrize("method", ["supervised", "bcp", "deep_adversarial", "follower"])
def test_looking_at_cases_changes_no_weight_and_no_reported_score(places, method):
    _, plain = carried_out(spec(LIST_ONLY, method), places)
    _, selected = carried_out(spec(SELECTED, method), places, "selected")
    one, other = load_file(plain / "model.safetensors"), load_file(selected / "model.safetensors")
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert (plain / "cases.csv").read_bytes() == (selected / "cases.csv").read_bytes()


def test_a_run_reports_the_last_weights_and_what_every_rule_chose(places):
    record, folder = carried_out(spec(steps=12, learning_rate=0.4, checkpoint_every=50), places)
    looked_at = rows(folder / "selection.csv")
    assert [int(row["step"]) for row in looked_at] == [3, 6, 9, 12]
    reported, others = rows(folder / "cases.csv"), rows(folder / "predictors.csv")
    assert {row["case"] for row in reported} == {"case08", "case09"}
    for rule in RULES:
        best = max(looked_at, key=lambda row: float(row[rule]))
        assert record["selection"][rule]["step"] == int(best["step"])
        assert record["selection"][rule]["dice"] == pytest.approx(float(best[rule]), abs=1e-5)
        assert {row["case"] for row in others if row["predictor"] == f"selected on {rule}"} == {"case08", "case09"}
    # The test list's rule is measured on what it chose by, and the last weights are among those that it compared.
    assert dice(others, "selected on test") == pytest.approx(record["selection"]["test"]["dice"], abs=1e-5)
    assert dice(reported) == pytest.approx(float(looked_at[-1]["test"]), abs=1e-5)
    both = [float(row["validation"]) + float(row["test"]) for row in looked_at]
    assert [2 * float(row["validation and test"]) for row in looked_at] == pytest.approx(both, abs=1e-5)


def test_a_resumed_run_chooses_what_an_uninterrupted_one_does(places):
    with pytest.MonkeyPatch.context() as patch:
        fetch = trainers.Trainer._fetch

        def killed(self, losses, step):
            if step == 6:
                raise Interrupted
            return fetch(self, losses, step)

        patch.setattr(trainers.Trainer, "_fetch", killed)
        assert execute(spec(), places, CPU)["status"] == "failed"
    record, folder = carried_out(spec(), places)
    assert record["warnings"] == []
    expected, whole = carried_out(spec(), places, "whole")
    assert record["selection"] == expected["selection"]
    for name in ("selection.csv", "predictors.csv"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("killed_at", [None, 6], ids=["whole", "resumed"])
def test_looking_at_cases_is_no_cost_of_the_training(places, monkeypatch, killed_at):
    """By a clock that moves by 1 s in every step, and by 10 s whenever rules look."""
    now = [0.0]

    def slowed(kind, name, took):
        act = getattr(kind, name)

        def acts(self, *given):
            now[0] += took
            return act(self, *given)

        monkeypatch.setattr(kind, name, acts)

    monkeypatch.setattr(trainers, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    slowed(trainers.Trainer, "step", 1.0)
    slowed(Selection, "consider", 10.0)
    if killed_at:
        with monkeypatch.context() as patch:
            fetch = trainers.Trainer._fetch

            def killed(self, losses, step):
                if step == killed_at:
                    raise Interrupted
                return fetch(self, losses, step)

            patch.setattr(trainers.Trainer, "_fetch", killed)
            assert execute(spec(), places, CPU)["status"] == "failed"
    record, folder = carried_out(spec(), places)
    assert (record["seconds"], record["selection_seconds"]) == (8.0, 30.0), "after 3, 6 and 8 steps"
    assert record["images_per_second"] == 8.0
    assert {float(row["images_per_second"]) for row in rows(folder / "curve.csv")} == {8.0}
    assert standing(spec(), Identity({}), folder).seconds == 38.0, "for which further runs are waited for"
    plain, _ = carried_out(spec(LIST_ONLY), places, "plain")
    assert "selection_seconds" not in plain


def test_rules_choose_among_the_weights_of_the_last_stage(places):
    _, folder = carried_out(spec(method="self_training", steps=12), places)
    assert [int(row["step"]) for row in rows(folder / "selection.csv")] == [9, 12]  # of 4 + 4 + 4


def test_the_first_of_equally_good_weights_are_kept():
    network, values = nn.Linear(1, 1), iter([0, 1, 1, 0])
    reference = np.array([0, 1], np.uint8)
    selection = Selection({"test": ("a",)}, 1, lambda network, case: (reference * next(values), reference), 2)
    for step in range(1, 5):
        nn.init.constant_(network.weight, step)
        selection.consider(step, network)
    assert selection.chosen() == {"test": {"step": 2, "dice": 1.0}}
    assert selection.best["test"]["weight"].item() == 2


def test_the_quick_dice_is_that_of_the_tables():
    random = np.random.default_rng(0)
    for _ in range(20):
        prediction, reference = random.integers(0, random.integers(1, 5), (2, 5, 6)).astype(np.uint8)
        classes = ("background", "a", "b", "c", "d")
        scores = class_metrics(prediction, reference, classes, (1.0, 1.0))
        assert foreground_dice(prediction, reference, 5) == pytest.approx(np.mean([s["dice"] for s in scores]))


class Corner(nn.Module):
    """Calls a whole window foreground with a probability that depends on where it lies."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        corners = images[:, :, 0, 0, 0]  # three channels with a voxel's place
        self.seen += [tuple(round(float(x) * 100) for x in corner) for corner in corners]
        p = self.probability(torch.round(corners * 100)).view(-1, 1, 1, 1, 1).expand(-1, 1, *images.shape[2:])
        return Output(torch.cat([1 - p, p], 1).log())

    @staticmethod
    def probability(corner):
        return 0.5 + 0.4 * torch.sin(corner @ torch.tensor([1.0, 2.0, 5.0]))


@pytest.mark.parametrize(
    ("shape", "stride"), [((10, 20, 25), (2, 3, 7)), ((9, 15, 18), (2, 3, 7)), ((10, 20, 25), (8, 15, 18))]
)
def test_windows_lie_where_public_scripts_lay_them_and_count_alike(shape, stride):
    size, network = (8, 15, 18), Corner()  # 15 and 18 are rounded down without care
    image = np.stack(np.meshgrid(*(np.arange(n) / 100 for n in shape), indexing="ij")).astype(np.float32)
    task = Task(3, 2, size, "none", stride=stride)
    (found,) = predict_case([network], image, task, CPU, "float32")
    starts = [
        [min(step * number, have - want) for number in range(ceil((have - want) / step) + 1)]
        for have, want, step in zip(shape, size, stride, strict=True)
    ]
    corners = [*product(*starts)]
    assert sorted(set(network.seen)) == sorted(corners)
    total, count = np.zeros(shape), np.zeros(shape)
    for corner in corners:
        window = tuple(slice(c, c + n) for c, n in zip(corner, size, strict=True))
        total[window] += float(Corner.probability(torch.tensor([corner], dtype=torch.float32)))
        count[window] += 1
    sure = np.abs(total / count - 0.5) > 1e-4
    assert np.array_equal(found[sure], (total / count > 0.5)[sure])


@pytest.mark.parametrize("stride", [(4, 4), (1, 4, 4), (4, 32)])
def test_a_stride_that_no_window_has_is_refused(places, stride):
    record = execute(spec(SELECTED.model_copy(update={"stride": stride})), places, CPU)
    assert "it is the distance of windows in 3D" in record["reason"]
