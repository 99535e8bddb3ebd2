"""The shared trainer: schedule, averages, records on disk, and the same images for all."""

import csv
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from semiseg.contract import CPU, Interrupted, tiny_dataset
from semiseg.data.splits import make_splits
from semiseg.data.store import Case, DatasetInfo, write_dataset
from semiseg.method import Method, Paper, Progress, Task
from semiseg.networks import Output
from semiseg.registry import find_methods
from semiseg.seeding import derive_seed
from semiseg.settings import BenchmarkSettings, RunSpec, TrainingSettings
from semiseg.strong_augmentation import augment_strongly
from semiseg.training.assembly import partition_for
from semiseg.training.curve import Curve, Diverged
from semiseg.training.places import Places
from semiseg.training.run import execute
from semiseg.training.sampling import TrainingSet
from semiseg.training.trainer import Stopped, Trainer
from semiseg.views import warp

SETTINGS = TrainingSettings(
    steps=8, size=(16, 16), labeled_batch=2, unlabeled_batch=2, learning_rate=0.1, precision="float32", log_every=2,
    checkpoint_every=3,
)  # fmt: skip


class Pixelwise(nn.Module):
    """The smallest network there is."""

    def __init__(self, dims):
        super().__init__()
        self.layer = (nn.Conv2d if dims == 2 else nn.Conv3d)(1, 3, 1)

    def forward(self, images):
        return Output(self.layer(images))


class Toy(Method):
    """Two losses, a note, a teacher, and a memory of what it was shown."""

    title = "Toy"
    paper = Paper("Toy", "Nobody", "Nowhere")
    views = ("plain", "strong")
    breaks_at = 10**9

    def build(self):
        self.student = Pixelwise(self.task.dims)
        self.teacher = self.moving_average(self.student, 0.9)
        self.rates, self.batches, self.history = [], [], []

    def losses(self, batch, progress):
        self.batches.append((batch.images().clone(), batch.images("strong").clone(), batch.labels.clone()))
        logits = self.student(batch.images()).logits
        self.note("luck", torch.rand(()))
        loss = logits[: len(batch.labels)].square().mean()
        return {
            "supervised": loss * (float("nan") if progress.step >= self.breaks_at else 1),
            "consistency": 0.5 * loss,
        }

    def after_step(self, progress):
        self.history.append(
            [p.detach().clone() for p in (self.student.layer.weight, self.teacher.network.layer.weight)]
        )

    def predictors(self):
        return {"teacher": self.teacher}


def trainer(folder, settings=SETTINGS, method=Toy, seed=0, dims=2):
    folder.mkdir(parents=True, exist_ok=True)
    dataset = tiny_dataset(folder.parent / f"tiny{dims}.h5", dims)
    groups = {name: name for name in dataset.records}
    partition = make_splits(dataset).partition(0, 0.25, groups)
    data = TrainingSet(dataset, partition, settings.size, CPU, seed, settings.labeled_batch, settings.unlabeled_batch)
    return Trainer(method(Task(1, 3, settings.size, "none", seed)), data, settings, seed, CPU, folder)


def curve(folder):
    with (folder / "curve.csv").open() as rows:
        return list(csv.DictReader(rows))


def test_the_learning_rate_decays_by_the_poly_rule(tmp_path):
    fitted = trainer(tmp_path / "run", SETTINGS.model_copy(update={"log_every": 1}))
    fitted.fit()
    expected = [0.1 * (1 - t / 8) ** 0.9 for t in range(8)]
    assert [row["learning_rate"] for row in fitted.curve.rows] == pytest.approx(expected)
    assert expected[0] == 0.1
    assert expected[4] == pytest.approx(0.1 * 0.5**0.9)


def test_the_first_step_is_plain_gradient_descent_on_the_sum_of_the_losses(tmp_path):
    fitted = trainer(tmp_path / "run", SETTINGS.model_copy(update={"weight_decay": 0.0}))
    before = fitted.method.student.layer.weight.detach().clone()
    fitted.fit()
    images, _, labels = fitted.method.batches[0]
    fresh = Toy(fitted.method.task)
    assert torch.equal(fresh.student.layer.weight, before)
    (1.5 * fresh.student(images[: len(labels)]).logits.square().mean()).backward()
    after = before - 0.1 * fresh.student.layer.weight.grad
    assert torch.allclose(fitted.method.history[0][0], after, atol=1e-6)


def test_the_teacher_follows_after_every_step(tmp_path):
    fitted = trainer(tmp_path / "run")
    fitted.fit()
    teacher = None
    for step, (student, actual) in enumerate(fitted.method.history):
        alpha = min(1 - 1 / (step + 1), 0.9)
        teacher = student if teacher is None else alpha * teacher + (1 - alpha) * student
        assert torch.allclose(actual, teacher, atol=1e-6), f"step {step}"
    assert not torch.equal(teacher, student)


def test_every_loss_note_rate_and_speed_is_on_disk_and_in_tensorboard(tmp_path):
    trainer(tmp_path / "run").fit()
    rows = curve(tmp_path / "run")
    names = {"loss", "supervised", "consistency", "luck", "learning_rate", "images_per_second"}
    assert set(rows[0]) == names | {"step"}
    assert [int(row["step"]) for row in rows] == [2, 4, 6, 8]
    for row in rows:
        assert float(row["loss"]) == pytest.approx(float(row["supervised"]) + float(row["consistency"]))
        assert float(row["images_per_second"]) > 0
    assert len(list((tmp_path / "run").glob("events.out.tfevents.*"))) == 1
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert set(events.Tags()["scalars"]) == names
    assert events.Tags()["images"], "sample predictions are shown"
    for name in names:
        logged = {event.step: event.value for event in events.Scalars(name)}
        assert logged == pytest.approx({int(row["step"]): float(row[name]) for row in rows}, rel=1e-5)


def test_the_last_step_is_logged_whatever_the_interval(tmp_path):
    trainer(tmp_path / "run", SETTINGS.model_copy(update={"steps": 5, "log_every": 50})).fit()
    assert [int(row["step"]) for row in curve(tmp_path / "run")] == [5]


@pytest.mark.parametrize("stopped_after", [2, 4, 6, 8])
def test_a_run_stopped_anywhere_resumes_to_the_same_weights_and_curve(tmp_path, stopped_after):
    whole = trainer(tmp_path / "whole")
    whole.fit()
    first = trainer(tmp_path / "stopped")

    def interrupt(step, steps, loss):
        if step == stopped_after:
            raise Interrupted

    first.report = interrupt
    with pytest.raises(Interrupted):
        first.fit()
    second = trainer(tmp_path / "stopped")
    second.fit()
    assert len(second.method.batches) == 8 - 3 * ((stopped_after - 1) // 3), "it goes on from the last checkpoint"
    for key, value in whole.method.state_dict().items():
        assert torch.equal(value, second.method.state_dict()[key]), key
    columns = ("step", "loss", "supervised", "learning_rate", "luck")
    one, other = ([[row[c] for c in columns] for row in curve(tmp_path / name)] for name in ("whole", "stopped"))
    assert one == other


def test_a_run_stopped_while_its_first_checkpoint_is_saved_can_resume(tmp_path, monkeypatch):
    def interrupt(self):
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(Curve, "save", interrupt)
        with pytest.raises(Interrupted):
            trainer(tmp_path / "run").fit()
    trainer(tmp_path / "run").fit()


def test_a_loss_that_is_no_number_ends_the_training_with_its_name(tmp_path):
    class Breaking(Toy):
        breaks_at = 3

    with pytest.raises(Diverged, match="supervised is no longer finite at step 4"):
        trainer(tmp_path / "run", method=Breaking).fit()


@pytest.mark.parametrize(("factor", "message"), [
    ("nan", "supervised is no longer finite at step 4"), ("1e9", r"supervised exploded \(.*\) at step 4"),
])  # fmt: skip
def test_the_step_at_which_a_loss_went_astray_is_named_however_rarely_losses_are_looked_at(tmp_path, factor, message):
    class Breaking(Toy):
        def losses(self, batch, progress):
            losses = super().losses(batch, progress)
            return losses | {"supervised": losses["supervised"] * (float(factor) if progress.step == 3 else 1)}

    with pytest.raises(Diverged, match=message):
        trainer(tmp_path / "run", SETTINGS.model_copy(update={"log_every": 100}), method=Breaking).fit()


def test_a_method_may_name_its_losses_otherwise_in_every_step(tmp_path):
    class Changing(Toy):
        def losses(self, batch, progress):
            losses = super().losses(batch, progress)
            return losses if progress.step % 3 else {"supervised": losses["supervised"]}

    trainer(tmp_path / "run", SETTINGS.model_copy(update={"log_every": 4}), method=Changing).fit()


def test_a_training_that_is_asked_to_stop_keeps_the_step_that_it_reached(tmp_path):
    whole = trainer(tmp_path / "whole")
    whole.fit()
    first = trainer(tmp_path / "stopped")
    first.stop = lambda: len(first.method.batches) == 5
    with pytest.raises(Stopped, match="step 5"):
        first.fit()
    second = trainer(tmp_path / "stopped")
    second.fit()
    assert len(second.method.batches) == 3
    for key, value in whole.method.state_dict().items():
        assert torch.equal(value, second.method.state_dict()[key]), key


def test_a_checkpoint_is_never_much_older_than_two_minutes(tmp_path, monkeypatch):
    monkeypatch.setattr("semiseg.training.trainer.CHECKPOINT_SECONDS", 0.0)
    first = trainer(tmp_path / "run", SETTINGS.model_copy(update={"checkpoint_every": 500}))

    def interrupt(step, steps, loss):
        if step == 5:
            raise Interrupted

    first.report = interrupt
    with pytest.raises(Interrupted):
        first.fit()
    second = trainer(tmp_path / "run")
    second.fit()
    assert len(second.method.batches) == 4


def test_two_halves_of_a_batch_give_the_gradient_of_the_whole(tmp_path):
    whole = trainer(tmp_path / "whole", SETTINGS.model_copy(update={"steps": 1}))
    halves = trainer(tmp_path / "halves", SETTINGS.model_copy(update={"steps": 1}))
    halves.micro_batches = 2
    for one in (whole, halves):
        one.fit()
    assert [len(images) for images, *_ in halves.method.batches] == [2, 2]
    assert halves.curve.rows[0]["loss"] == pytest.approx(whole.curve.rows[0]["loss"], rel=1e-5)
    for key, value in whole.method.state_dict().items():
        torch.testing.assert_close(value, halves.method.state_dict()[key])


def test_the_order_of_randomness_is_the_same_for_every_method(tmp_path):
    class Greedy(Toy):
        views = ("strong", "weak", "plain")

        def losses(self, batch, progress):
            torch.rand(1000)  # a method that draws much must not disturb the images
            return super().losses(batch, progress)

    runs = []
    for name, method in (("modest", Toy), ("greedy", Greedy)):
        fitted = trainer(tmp_path / name, method=method)
        fitted.fit()
        runs.append(fitted.method.batches)
    for modest, greedy in zip(*runs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(modest, greedy, strict=True))
    plain = [batch[0] for batch in runs[0]]
    assert not torch.equal(plain[0], plain[1])


def labeled_images(name, dataset, folder):
    """The labelled images of the first steps as a method found by name is shown them."""
    method = find_methods()[name]
    spec = RunSpec(benchmark="b", dataset="tiny", method=name, implementation=name, config={}, labels=0.25, fold=0,
                   seed=0, network="unet_small", weights=None, training=SETTINGS)  # fmt: skip
    partition = partition_for(method, make_splits(dataset), spec, dataset)
    data = TrainingSet(dataset, partition, (16, 16), CPU, 0, 2, 2)
    toy = type("Shown", (Toy,), {})(Task(1, 3, (16, 16), "none"))
    fitted = Trainer(toy, data, SETTINGS, 0, CPU, folder)
    return [fitted.batch(step).labeled() for step in range(4)]


def test_two_draws_of_a_view_differ_and_so_do_those_of_two_steps(tmp_path):
    class Twice(Toy):
        views = ("plain", "strong", "strong-2")

    fitted = trainer(tmp_path / "run", method=Twice)
    fitted.fit()
    first, second = (fitted.batch(step) for step in (0, 1))
    assert not torch.equal(first.images("strong"), first.images("strong-2"))
    assert not torch.equal(first.images("strong-2"), second.images("strong-2"))


def test_a_benchmark_without_turns_trains_on_none(tmp_path):
    class Marked(Toy):
        views = ("plain",)

    upright = trainer(tmp_path / "run", SETTINGS.model_copy(update={"turns": False}), method=Marked)
    ramp = torch.linspace(0, 1, 16).expand(32, 1, 16, 16)
    for part in ("labeled", "unlabeled"):
        looks, *_ = upright.showing.looks(part, ("plain",), 0, ramp)
        plain = looks["plain"]()
        assert (plain[:, 0, 8, 12] > plain[:, 0, 8, 4] + 0.3).all()


@pytest.mark.parametrize(("setting", "own", "expected"), [
    ("customary", None, warp), ("strong", None, augment_strongly), ("customary", "strong", augment_strongly),
])  # fmt: skip
def test_a_benchmark_may_augment_strongly_and_a_method_always(tmp_path, setting, own, expected):
    class Plain(Toy):
        views = ("plain",)
        augmentation = own

    chosen = trainer(tmp_path / "run", SETTINGS.model_copy(update={"augmentation": setting}), method=Plain)
    assert chosen.showing.augment is expected
    images = torch.rand(4, 1, 16, 16)
    looks, *_ = chosen.showing.looks("labeled", ("plain",), 0, images)
    generator = torch.Generator().manual_seed(derive_seed(chosen.seed, "labeled", "geometry", 0))
    assert torch.equal(looks["plain"](), expected(images, generator, True)[0])


def test_the_lower_bound_sees_the_labeled_images_of_the_other_methods(tmp_path):
    dataset = tiny_dataset(tmp_path / "tiny.h5", 2)
    one, other = (labeled_images(name, dataset, tmp_path) for name in ("supervised", "mean_teacher"))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("precision", ["bfloat16", "auto"])
def test_reduced_precision_trains_and_keeps_its_weights_in_full(tmp_path, precision):
    fitted = trainer(tmp_path / "run", SETTINGS.model_copy(update={"precision": precision}))
    fitted.fit()
    rows = curve(tmp_path / "run")
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert all(p.dtype == torch.float32 for p in fitted.method.parameters())


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_of_any_number_of_channels_are_trained_to_the_end_and_shown(tmp_path, channels):
    info = DatasetInfo("many", "Many channels", "generated", ("background", "dot"), "MIT", "generated")
    random, cases = np.random.default_rng(0), []
    for number in range(10):
        image, label = random.random((channels, 16, 16), np.float32), random.integers(0, 2, (16, 16), np.uint8)
        cases.append(Case(f"c{number}", f"c{number}", image, label, (1.0, 1.0)))
    write_dataset(tmp_path / "data" / "many.h5", info, cases)
    spec = RunSpec(
        benchmark="b", dataset="many", method="supervised", implementation="supervised", config={}, labels=0.25, fold=0,
        seed=0, network="unet_small", weights=None, training=SETTINGS,
    )  # fmt: skip
    places = Places(tmp_path / "results", tmp_path / "data", tmp_path / "splits")
    record = execute(spec, places, CPU)
    assert record["status"] == "finished", record.get("reason")
    events = EventAccumulator(str(places.results / spec.folder), {"images": 0}).Reload()
    picture = np.asarray(Image.open(BytesIO(events.Images("prediction")[0].encoded_image_string)))
    assert np.ptp(picture, axis=-1).any() == (channels == 3), "colours where there are three channels, else gray"


def test_volumes_go_through_the_same_loop(tmp_path):
    fitted = trainer(tmp_path / "run", SETTINGS.model_copy(update={"size": (4, 16, 16)}), dims=3)
    fitted.fit()
    images, strong, labels = fitted.method.batches[0]
    assert images.shape == strong.shape == (4, 1, 4, 16, 16)
    assert labels.shape == (2, 4, 16, 16)


PLUGIN = '''
import torch
from semiseg.methods.supervised import Supervised

class Broken(Supervised):
    """Its loss breaks."""
    def losses(self, batch, progress):
        {how}
'''
FAILURES = {
    "diverged": ('return {"supervised": super().losses(batch, progress)["supervised"] * float("inf")}', "finite"),
    "nothing is returned": ("pass", "Broken.losses returns nothing; it should be named losses"),
    "no names": ("return torch.zeros((), requires_grad=True)", "Broken.losses returns a Tensor; it should be named"),
    "no scalar": ('return {"a": torch.zeros(3, requires_grad=True)}', "the loss 'a' is of shape [3]; it should be"),
    "a number": ('return {"supervised": 0.5}', "the loss 'supervised' is a float; it should be a tensor"),
    "detached": ('return {"supervised": torch.zeros(())}', "no loss has a gradient, so nothing would be learned"),
    "misspelt view": ('batch.unlabeled("plian")', "asked for the view 'plian', did you mean 'plain'? it has plain"),
    "raised": ('raise RuntimeError("first line\\\\nsecond line")', "RuntimeError: first line"),
}


@pytest.fixture
def failed(tmp_path):
    """Carry out a run whose method fails; gives its folder and record."""

    def carry_out(how):
        (tmp_path / "plugins").mkdir()
        (tmp_path / "plugins" / "broken.py").write_text(PLUGIN.format(how=how))
        (tmp_path / "data").mkdir()
        tiny_dataset(tmp_path / "data" / "tiny.h5", 2)
        places = Places(tmp_path / "results", tmp_path / "data", tmp_path / "splits", Path(tmp_path / "plugins"))
        settings = BenchmarkSettings(name="b", dataset="tiny", methods=("broken",), training=SETTINGS)
        spec = RunSpec(benchmark="b", dataset="tiny", method="broken", implementation="broken", config={}, labels=0.25,
                       fold=0, seed=0, network="unet_small", weights=None, training=settings.training)  # fmt: skip
        return places.results / spec.folder, execute(spec, places, CPU)

    return carry_out


@pytest.mark.parametrize(("how", "reason"), FAILURES.values(), ids=FAILURES)
def test_a_failed_run_says_why_and_leaves_no_result(failed, how, reason):
    folder, record = failed(how)
    assert record["status"] == "failed"
    assert reason in record["reason"]
    assert "\n" not in record["reason"]
    assert not (folder / "cases.csv").exists()
    assert not (folder / "model.safetensors").exists()


def test_progress_ramps_from_nearly_nothing_to_one():
    assert Progress(0, 100).ramp_up() == pytest.approx(0.0067, abs=1e-4)
    assert Progress(100, 100).ramp_up() == Progress(50, 100).ramp_up(0.5) == 1
    ramp = [Progress(t, 100).ramp_up(0.4) for t in range(101)]
    assert ramp == sorted(ramp)
    assert [t for t in range(10) if Progress(t, 10).every(3)] == [2, 5, 8]


def test_images_of_a_scanner_are_not_spoilt_like_those_of_a_camera(tmp_path):
    """What recorded the images is told by their channels, unless the benchmark says it."""
    shown = {}
    for imaging in ("auto", "scan", "camera"):
        fitted = trainer(tmp_path / imaging, SETTINGS.model_copy(update={"imaging": imaging}))
        fitted.fit()
        shown[imaging] = fitted.method.batches[0][1]
    assert torch.equal(shown["auto"], shown["scan"])
    assert not torch.equal(shown["scan"], shown["camera"])


def test_an_average_that_takes_no_images_costs_nobody_the_whole_training(tmp_path):
    """Statistics are taken at the very end, of what predicts; a momentum projection head reads features."""

    class Projected(Toy):
        def build(self):
            super().build()
            self.head = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
            self.momentum_head = self.moving_average(self.head, 0.9)

        def losses(self, batch, progress):
            logits = self.student(batch.images()).logits
            gap = (self.head(logits) - self.momentum_head(logits.detach())).square().mean()
            return {**super().losses(batch, progress), "projection": gap}

    trainer(tmp_path / "run", method=Projected).fit()
