"""Streams: further images for a loss that asks for them, of these data or of others, and views that lie elsewhere."""

import numpy as np
import pytest
import torch
from torch import nn

from semiseg.contract import CPU, MethodContract, assert_equal, tiny_dataset
from semiseg.data.splits import Partition, make_splits
from semiseg.data.store import Case, Dataset, DatasetInfo, write_dataset
from semiseg.errors import UserError
from semiseg.losses import supervised_loss
from semiseg.method import Batch, Method, Paper, Stream, Task
from semiseg.training.assembly import partition_for
from semiseg.training.identity import identify
from semiseg.training.sampling import TrainingSet


class Streaming(Method):
    """Learns from labels, from masks of other data, and from a moved view; remembers what it was shown."""

    title = "Streaming"
    paper = Paper("Streams", "Nobody", "Nowhere")
    views = ("plain", "moved-weak")

    class Config(Method.Config):
        shapes: str = "others"

    @classmethod
    def streams(cls, config):
        return [
            Stream("shapes", 3, data=config.shapes),
            Stream("all", 4, views=("weak",)),
            Stream("support", 1, "labeled", still=True),
            Stream("hidden", 2, "unlabeled"),
        ]

    def build(self) -> None:
        self.model = self.network()
        self.shown: list[dict[str, Batch]] = []

    def losses(self, batch, progress):
        self.shown.append({"": batch, **{name: batch[name] for name in ("shapes", "all", "support", "hidden")}})
        shares = batch["shapes"].labels.float().mean()
        return {
            "supervised": supervised_loss(self.model(batch.labeled()).logits, batch.labels),
            "shapes": (self.model(batch["all"].images("weak")).logits.softmax(1)[:, 1].mean() - shares).square(),
        }

    def predictors(self) -> dict[str, nn.Module]:
        return {"model": self.model}


@pytest.fixture(scope="module")
def contract(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    renamed(tiny_dataset(folder / "whole.h5", 2, first=20), folder / "others.h5", "other")
    return MethodContract("streaming", Streaming, 2, folder)


def renamed(dataset: Dataset, path, start: str) -> Dataset:
    """The same cases by other names."""
    info = DatasetInfo(path.stem, "Others", "generated", dataset.info.classes, "MIT", "generated")
    cases = [
        Case(f"{start}{number}", f"{start}{number}", dataset.image(case), dataset.label(case), (1.0, 1.0))
        for number, case in enumerate(dataset.records)
    ]
    write_dataset(path, info, cases)
    return Dataset(path)


class Misspelt(Streaming):
    """One of its streams is shown as nothing that there is."""

    @classmethod
    def streams(cls, config):
        return [Stream("all", 4), Stream("support", 1, views=("plain", "stong"))]


def test_a_misspelt_view_of_a_stream_is_named_before_anything_is_trained():
    with pytest.raises(UserError, match=r"stream 'support' of Misspelt shows .*: there is no view 'stong'") as error:
        Misspelt(Task(1, 2, (16, 16), "unet_small"))
    assert "\n" not in str(error.value)


def test_every_stream_draws_what_it_says_and_tells_whose_images_they_are(contract):
    partition = partition_for(Streaming, make_splits(contract.dataset), contract.spec(), contract.dataset)
    seen = {name: set() for name in ("", "shapes", "all", "support", "hidden")}
    for step in contract.trained.method.shown:
        for name, batch in step.items():
            seen[name] |= {*batch.cases}
            assert len(batch.cases) == len(batch.images("weak" if name == "all" else "plain"))
        assert set(step[""].cases[:2]) <= set(partition.labeled)
        assert set(step[""].cases[2:]) <= set(partition.unlabeled)
        assert [len(step[name].labels) for name in ("shapes", "all", "support", "hidden")] == [3, 0, 1, 0]
    assert all(case.startswith("other") for case in seen["shapes"])
    assert seen["all"] <= {*partition.labeled, *partition.unlabeled}
    assert seen["all"] & {*partition.unlabeled}
    assert seen["support"] <= {*partition.labeled}
    assert seen["hidden"] <= {*partition.unlabeled}
    assert not (seen["all"] | seen[""]) & {*partition.test}


def test_what_keeps_still_is_shown_as_it_is_stored(contract):
    size = contract.trained.settings.size
    for step in contract.trained.method.shown:
        (case,) = step["support"].cases
        stored = TrainingSet(contract.dataset, Partition((case,), (), ()), size, CPU, 0, 1, 0).batch(0)[0]
        assert torch.equal(step["support"].images(), stored.float())
        assert not torch.equal(step["shapes"].images()[:1], stored.float())


def test_streams_resume_and_repeat_bit_for_bit(contract):
    contract.check_an_interrupted_run_resumes_bit_for_bit()
    contract.check_same_seed_gives_the_same_weights_and_another_seed_does_not()
    contract.check_labels_of_unlabeled_and_test_cases_cannot_change_a_weight()


def test_an_unknown_stream_names_those_that_there_are(contract):
    with pytest.raises(UserError, match="asks for the stream 'nothing'; its `streams` has shapes, all"):
        contract.trained.batch(0)["nothing"]


def test_a_data_set_that_is_not_there_is_named(contract):
    spec = contract.spec().model_copy(update={"config": {"shapes": "absent"}})
    with pytest.raises(UserError, match=r"absent\.h5: there is no such data set"):
        contract.trainer("absent", spec)


def test_a_data_set_of_the_same_images_is_refused_since_its_labels_would_be_those_of_test_cases(contract):
    renamed(contract.dataset, contract.folder / "same.h5", "same")
    for name in ("same", "contract"):
        spec = contract.spec().model_copy(update={"config": {"shapes": name}})
        with pytest.raises(UserError, match=f"{name}.h5: 10 of its 10 images belong to tiny, which is tested"):
            contract.trainer(name, spec)


def test_other_data_make_another_run(contract):
    spec, partition = contract.spec(), Partition(("case00",), (), ())
    first = identify(spec, Streaming, contract.dataset, partition)
    assert first == identify(spec, Streaming, contract.dataset, partition)
    others = contract.dataset.path.with_name("others.h5")
    kept = others.read_bytes()
    renamed(Dataset(contract.dataset.path.with_name("whole.h5")), others, "changed")
    try:
        assert identify(spec, Streaming, contract.dataset, partition).differences(first.record()) == [
            "another data set drawn from"
        ]
    finally:
        others.write_bytes(kept)


def test_a_moved_view_is_the_plain_one_moved_by_its_geometry(contract):
    trainer = contract.trainer("moved", contract.spec())
    trainer.fit()
    batch = trainer.batch(3)
    ramps = torch.rand(4, 1, *trainer.settings.size)
    there = batch.geometry("moved-weak").images(ramps)
    assert not torch.allclose(there, ramps, atol=0.1)
    plain, moved = batch.images("plain"), batch.images("moved-weak")
    expected = batch.geometry("moved-weak").images(plain)
    seen = expected > 0.02  # what was moved in from outside is black
    correlation = np.corrcoef(expected[seen], moved[seen])[0, 1]
    assert correlation > 0.98


def test_streams_and_geometry_are_the_same_within_mixed_precision(contract):
    trainer = contract.trainer("precise", contract.spec())
    ramps, points = torch.rand(4, 1, *trainer.settings.size), torch.rand(4, 5, len(trainer.settings.size))

    def told(batch):
        moved = batch.geometry("moved-weak")
        seen = [batch["shapes"].images(), batch["shapes"].labels, batch.images("moved-weak")]
        return [*seen, moved.images(ramps), moved.inverse().matrix, moved.points(points)]

    with torch.autocast("cpu", torch.bfloat16):
        within = told(trainer.batch(3))
    assert all(torch.equal(a, b) for a, b in zip(within, told(trainer.batch(3)), strict=True))


def test_half_a_batch_has_half_of_everything(contract):
    batch = contract.trained.batch(0)
    first, second = batch.part(0, 2), batch.part(1, 2)
    assert [*first.cases, *second.cases] == [batch.cases[i] for i in (0, 2, 1, 3)]
    assert torch.equal(second.geometry("moved-weak").matrix, batch.geometry("moved-weak").matrix[[1, 3]])
    assert first["all"].cases == batch["all"].cases[::2]
    assert_equal({"": batch["all"].images("weak")[1::2]}, {"": second["all"].images("weak")})
