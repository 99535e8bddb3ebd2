"""Alignment: ranks, chance and the bound against what can be counted by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from semiseg.contract import CPU, tiny_dataset, tiny_task
from semiseg.data.cropping import Crop
from semiseg.data.scale import as_trained
from semiseg.data.splits import Partition
from semiseg.data.store import Case, Dataset, DatasetInfo, write_dataset
from semiseg.errors import UserError
from semiseg.tasks import task_kind
from semiseg.tasks.alignment import chance, inside, mutual_information, ranked, same_study, seen
from semiseg.texts import sentences
from semiseg.training.sampling import TrainingSet

KIND = task_kind("alignment")


class Oracle(nn.Module):
    """Knows which text belongs to which image, by the number in the text and in the image's mean."""

    def forward(self, images, texts):
        shown = images.flatten(1).mean(1) * 100
        told = torch.tensor([float(text.split()[-1]) for text in texts])
        return -(shown[:, None] - told).abs()

    def locate(self, images, told):
        return torch.nn.functional.adaptive_avg_pool2d(images, 4)[:, 0]


class Method:
    def __init__(self, predictor):
        self.task, self.predictor = tiny_task(2), predictor

    def predictors(self):
        return {"oracle": self.predictor}


@pytest.fixture
def dataset(tmp_path):
    """Five images with their numbers; the first two are of one study, the last two have one text."""
    cases = []
    for number in range(5):
        image = np.full((1, 32, 32), number / 100, np.float32)
        image[0, 20:24, 4:8] = 0.5
        image *= number / 100 / max(image.mean(), 1e-9)
        fields = {"text": f"this image is number {min(number, 3)}", "study": f"s{max(number, 1)}"}
        fields |= {"regions": np.array([[20 / 32, 4 / 32, 24 / 32, 8 / 32]], np.float32)}
        cases.append(Case(f"c{number}", f"c{number}", image.astype(np.float32), None, (1.0, 1.0), fields))
    info = DatasetInfo("n", "N", "none", ("background", "a", "b", "c"), "CC0", "", task="alignment")
    write_dataset(tmp_path / "n.h5", info, cases)
    return Dataset(tmp_path / "n.h5")


def test_whoever_knows_ranks_first_in_every_direction_and_place(dataset):
    rows = KIND.evaluate(Method(Oracle()), dataset, [*dataset.records], CPU, "float32").cases
    pairs = [row for row in rows if row["class"] < 3]
    assert len(pairs) == 10
    assert {row["rank"] for row in pairs} == {1.0}
    assert {row["recall_1"] for row in pairs} == {1.0}
    assert sorted({row["chance_1"] for row in pairs}) == [0.2, 0.4]  # a study or a text may be shared
    places = [row for row in rows if row["class"] == 3]
    assert len(places) == 5
    assert [row["rank"] for row in places[1:]] == [1.0] * 4
    assert places[0]["chance_1"] == pytest.approx(1 / 16)


def test_cases_of_one_study_or_one_text_are_right_answers_for_each_other(dataset):
    expected = np.eye(5, dtype=bool)
    expected[0, 1] = expected[1, 0] = expected[3, 4] = expected[4, 3] = True
    assert np.array_equal(same_study(dataset, [*dataset.records]), expected)


@pytest.mark.parametrize(("scores", "right", "rank"), [
    ([3, 2, 1], [True, False, False], 1.0),
    ([3, 2, 1], [False, False, True], 3.0),
    ([3, 2, 1], [False, True, True], 2.0),
    ([1, 1, 1], [True, False, False], 2.0),
])  # fmt: skip
def test_the_rank_counts_wrong_answers_that_score_higher_and_half_of_equal_ones(scores, right, rank):
    assert ranked(np.array(scores, float), np.array(right)) == rank


@pytest.mark.parametrize(("right", "answers", "depth"), [(1, 6, 1), (1, 6, 3), (2, 6, 2), (3, 6, 5), (6, 6, 1)])
def test_chance_is_the_share_of_all_orders(right, answers, depth):
    orders = [*itertools.permutations(range(answers))]
    found = sum(next(k for k, answer in enumerate(order) if answer < right) < depth for order in orders)
    assert chance(right, answers, depth) == pytest.approx(found / len(orders))


def test_the_bound_is_the_mean_of_logarithms_and_never_more_than_that_of_the_number_of_pairs():
    generator = np.random.default_rng(0)
    scores, right = generator.normal(0, 2, (6, 6)), np.eye(6, dtype=bool)
    right[0, 1] = right[1, 0] = True
    terms = []
    for matrix in (scores, scores.T):
        for i in range(6):
            total = sum(math.exp(matrix[i, j]) for j in range(6) if j == i or not right[i, j])
            counted = 6 - right[i].sum() + 1
            terms.append(math.log(counted) + matrix[i, i] - math.log(total))
    assert mutual_information(scores, right) == pytest.approx(np.mean(terms))
    assert mutual_information(np.zeros((6, 6)), right) == pytest.approx(0), "who knows nothing has nothing"
    assert mutual_information(1000 * np.eye(6), np.eye(6, dtype=bool)) == pytest.approx(math.log(6))


@pytest.mark.parametrize(("shape", "window"), [((100, 100), (50, 50)), ((40, 100), (50, 50)), ((20, 40), (40, 20))])
def test_a_place_is_where_its_pixels_are_seen(shape, window):
    """A box that is painted into an image, cropped as trainings crop it, is found where `seen` says."""
    crop, size, box = Crop(window=window, at="centre"), (20, 20), np.array([0.4, 0.45, 0.6, 0.6])
    image = np.zeros((1, *shape), np.float32)
    top, left, bottom, right = (box * [*shape, *shape]).round().astype(int)
    image[:, top:bottom, left:right] = 1
    cells = as_trained(image, size, crop, CPU)[0, 0].numpy() > 0.5
    assert np.array_equal(inside(seen(box, shape, crop), size), cells)
    assert np.array_equal(seen(box, shape, None), box)


def test_windows_anywhere_are_refused_before_anything_is_trained(tmp_path):
    dataset = tiny_dataset(tmp_path / "a.h5", 2, kind=KIND)
    with pytest.raises(UserError, match="alignment is learned from whole images or their centre"):
        TrainingSet(
            dataset, Partition((), tuple(dataset.records), ()), (16, 16), CPU, 0, 0, 2,
            crop=Crop(window=(20, 20), at="anywhere"),
        )  # fmt: skip


def test_a_box_smaller_than_a_cell_is_in_the_cell_of_its_middle():
    assert np.argwhere(inside(np.array([0.0, 0.5, 0.5, 1.0]), (4, 4))).tolist() == [[0, 2], [0, 3], [1, 2], [1, 3]]
    assert np.argwhere(inside(np.array([0.9, 0.05, 0.92, 0.06]), (4, 4))).tolist() == [[3, 0]]


@pytest.mark.parametrize(("text", "expected"), [
    ("One two three. Four five six!", ["One two three.", "Four five six!"]),
    ("Too short. This one is long; so is this one", ["This one is long;", "so is this one"]),
    ("No findings.", ["No findings."]),
    ("Lungs of 3.5 cm are seen.\nNothing else is seen.", ["Lungs of 3.5 cm are seen.", "Nothing else is seen."]),
])  # fmt: skip
def test_texts_are_cut_where_sentences_end(text, expected):
    assert sentences(text) == expected


def test_tiny_cases_change_what_they_say_and_nothing_that_is_seen(tmp_path):
    one, other = tiny_dataset(tmp_path / "a.h5", 2, kind=KIND), tiny_dataset(tmp_path / "b.h5", 2, (), KIND)
    assert np.array_equal(one.image("case03"), other.image("case03"))
    assert one.field("case03", "text") != other.field("case03", "text")
