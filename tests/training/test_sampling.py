"""Training items: what is never read, and what a batch is made of."""

from collections import Counter

import h5py
import numpy as np
import pytest
import torch

from semiseg.contract import tiny_dataset
from semiseg.data.cropping import Crop
from semiseg.data.scale import absolute, resize
from semiseg.data.splits import Partition, make_splits
from semiseg.data.store import Case, Dataset, DatasetInfo, write_dataset
from semiseg.errors import UserError
from semiseg.training.sampling import Chain, TrainingSet, disjoint_parts

CPU = torch.device("cpu")


def numbered(path, count, space, channels=1):
    """Cases whose pixels all hold the case's number, and whose mask holds it modulo 2."""
    info = DatasetInfo("toy", "Toy", "none", ("background", "thing"), "CC0", "")
    shape = (channels, *space)
    cases = [
        Case(f"{i:02d}", f"{i:02d}", np.full(shape, i, np.uint8), np.full(space, i % 2, np.uint8), (1.0,) * len(space))
        for i in range(count)
    ]
    write_dataset(path, info, cases)
    return Dataset(path)


def training(dataset, labeled, unlabeled, size=(8, 8), seed=0, batches=(2, 3), parts=1):
    names = sorted(dataset.records)
    partition = Partition(tuple(names[:labeled]), tuple(names[labeled : labeled + unlabeled]), ())
    return TrainingSet(dataset, partition, size, CPU, seed, *batches, parts)


def shown(data, step):
    """The case number of every image of a batch of `numbered` cases."""
    return [int(image.max()) for image in data.batch(step)[0]]


@pytest.mark.parametrize(("dims", "volumes"), [(2, False), (2, True), (3, True)])
def test_hidden_labels_and_test_cases_are_never_read(tmp_path, dims, volumes, monkeypatch):
    dataset = tiny_dataset(tmp_path / "tiny.h5", 3 if volumes else 2)
    partition = make_splits(dataset).partition(0, 0.25, {name: name for name in dataset.records})
    original = Dataset._read

    def guarded(self, case, key, expected):
        assert case not in partition.test, f"the {key} of a test case was read"
        assert key == "image" or case in partition.labeled, "the label of an unlabeled case was read"
        return original(self, case, key, expected)

    monkeypatch.setattr(Dataset, "_read", guarded)
    data = TrainingSet(dataset, partition, (16, 16) if dims == 2 else (8, 16, 16), CPU, 0, 2, 2)
    images, labels = data.batch(0)
    assert (len(images), len(labels)) == (4, 2)


def test_hidden_labels_may_even_be_missing(tmp_path):
    dataset = tiny_dataset(tmp_path / "tiny.h5", 2)
    partition = make_splits(dataset).partition(0, 0.25, {name: name for name in dataset.records})
    with h5py.File(dataset.path, "r+") as file:
        for case in partition.unlabeled:
            del file[f"cases/{case}/label"]
        for case in partition.test:
            del file[f"cases/{case}/label"], file[f"cases/{case}/image"]
    assert len(TrainingSet(dataset, partition, (16, 16), CPU, 0, 2, 2).batch(5)[0]) == 4


@pytest.mark.parametrize(("count", "batch"), [(7, 3), (1, 4), (5, 5), (3, 8)])
def test_every_item_is_shown_once_per_epoch(count, batch):
    stream = Chain(count, "seed")
    items = [i for step in range(count * 4) for i in stream.take(step * batch, batch)]
    assert len(items) == 4 * count * batch
    for start in range(0, len(items), count):
        assert sorted(items[start : start + count]) == list(range(count))


def test_the_stream_is_a_function_of_position_alone():
    forward = [Chain(6, "a").take(p, 1)[0] for p in range(60)]
    stream = Chain(6, "a")
    backward = [stream.take(p, 1)[0] for p in reversed(range(60))]
    assert backward[::-1] == forward
    assert stream.take(13, 20) == forward[13:33]
    assert Chain(6, "b").take(0, 60) != forward
    assert len({tuple(forward[e : e + 6]) for e in range(0, 60, 6)}) > 5, "every epoch has an order of its own"


def test_a_batch_does_not_depend_on_the_batches_before(tmp_path):
    dataset = numbered(tmp_path / "toy.h5", 9, (8, 8))
    one, other = training(dataset, 3, 6), training(dataset, 3, 6)
    for step in range(7):
        one.batch(step)
    assert all(torch.equal(a, b) for a, b in zip(one.batch(3), other.batch(3), strict=True))
    third = training(dataset, 3, 6, seed=1)
    assert [shown(one, s) for s in range(5)] != [shown(third, s) for s in range(5)]


def test_one_labeled_image_fills_its_share_of_every_batch(tmp_path):
    data = training(numbered(tmp_path / "toy.h5", 5, (8, 8)), 1, 4, batches=(4, 2))
    for step in range(5):
        images = shown(data, step)
        assert images[:4] == [0, 0, 0, 0]
        assert set(images[4:]) <= {1, 2, 3, 4}
        assert data.batch(step)[1].shape == (4, 8, 8)


def test_labels_belong_to_their_images_and_labeled_items_come_first(tmp_path):
    data = training(numbered(tmp_path / "toy.h5", 12, (8, 8)), 5, 7, batches=(3, 4))
    for step in range(20):
        images, labels = data.batch(step)
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.long
        assert labels[:, 0, 0].tolist() == [i % 2 for i in shown(data, step)[:3]]
        assert all(i < 5 for i in shown(data, step)[:3])
        assert all(i >= 5 for i in shown(data, step)[3:])


def test_a_pass_over_the_unlabeled_images_takes_the_stated_steps(tmp_path):
    data = training(numbered(tmp_path / "toy.h5", 9, (8, 8)), 2, 7, batches=(1, 3))
    assert data.unlabeled_steps == 3
    counts = Counter(i for step in range(7) for i in shown(data, step)[1:])
    assert counts == dict.fromkeys(range(2, 9), 3)


def test_without_unlabeled_images_a_batch_is_the_labeled_ones(tmp_path):
    data = training(numbered(tmp_path / "toy.h5", 3, (8, 8)), 3, 0)
    assert (len(data.batch(0)[0]), data.unlabeled_count, data.unlabeled_steps) == (2, 0, 1)


def test_networks_that_learn_from_parts_never_share_a_label(tmp_path):
    data = training(numbered(tmp_path / "toy.h5", 12, (8, 8)), 7, 5, batches=(4, 2), parts=2)
    halves = [{i for step in range(20) for i in shown(data, step)[part]} for part in (slice(0, 2), slice(2, 4))]
    assert not halves[0] & halves[1]
    assert halves[0] | halves[1] == set(range(7))


def test_parts_of_a_single_labeled_image_are_that_image(tmp_path):
    data = training(numbered(tmp_path / "toy.h5", 5, (8, 8)), 1, 4, batches=(4, 2), parts=2)
    assert shown(data, 0)[:4] == [0, 0, 0, 0]


def test_a_volume_is_trained_slice_by_slice_in_2d(tmp_path):
    dataset = tiny_dataset(tmp_path / "tiny.h5", 3)
    data = training(dataset, 2, 3, size=(32, 32))
    assert (data.labeled_count, data.unlabeled_count) == (20, 30)
    volume, mask = dataset.image("case00"), dataset.label("case00")
    for index in range(10):
        assert np.array_equal(data.images[index].numpy(), volume[:, index])
        assert np.array_equal(data.labels[index][0].numpy(), mask[index])


def test_3d_patches_lie_within_the_volume_and_reach_all_of_it(tmp_path):
    shape = (5, 6, 7)
    values = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    info = DatasetInfo("toy", "Toy", "none", ("background", "thing"), "CC0", "")
    write_dataset(tmp_path / "toy.h5", info, [Case("a", "a", values[None], values % 2, (1.0,) * 3)])
    data = training(Dataset(tmp_path / "toy.h5"), 1, 0, size=(2, 3, 4))
    corners = set()
    for step in range(300):
        images, labels = data.batch(step)
        for patch, mask in zip(images, labels, strict=True):
            z, y, x = np.unravel_index(int(patch[0, 0, 0, 0]), shape)
            assert np.array_equal(patch[0].numpy(), values[z : z + 2, y : y + 3, x : x + 4])
            assert np.array_equal(mask.numpy(), values[z : z + 2, y : y + 3, x : x + 4] % 2)
            corners.add((int(z), int(y), int(x)))
    assert len(corners) == 4 * 4 * 4


def test_a_volume_smaller_than_the_patch_is_padded_on_both_sides(tmp_path):
    data = training(numbered(tmp_path / "toy.h5", 4, (3, 8, 5)), 2, 2, size=(6, 8, 8))
    images, labels = data.batch(0)
    assert images.shape == (5, 1, 6, 8, 8)
    assert labels.shape == (2, 6, 8, 8)
    case = int(images[-1].max())
    inside = torch.zeros(6, 8, 8, dtype=torch.bool)
    inside[1:4, :, 1:6] = True
    assert torch.equal(images[-1, 0] == case, inside)


def test_images_of_all_shapes_are_brought_to_one_anisotropic_size(tmp_path):
    info = DatasetInfo("toy", "Toy", "none", ("background", "thing"), "CC0", "")
    gradient = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (20, 1))
    cases = [
        Case("wide", "wide", gradient[None], gradient // 128, (1.0, 1.0)),
        Case("tall", "tall", gradient.T[None].copy(), gradient.T.copy() // 128, (1.0, 1.0)),
    ]
    write_dataset(tmp_path / "toy.h5", info, cases)
    data = training(Dataset(tmp_path / "toy.h5"), 2, 0, size=(12, 30))
    images, labels = data.batch(0)
    assert images.shape == (2, 1, 12, 30)
    for image, label in zip(images[:, 0].float(), labels, strict=True):
        assert set(label.unique().tolist()) <= {0, 1}
        agree = (image >= 128).long() == label
        assert agree[(image - 128).abs() > 12].all(), "the mask has left its image"


def test_resizing_keeps_types_and_invents_no_class():
    masks = torch.tensor([0, 3])[torch.randint(2, (2, 1, 37, 23))].to(torch.uint8)
    small = resize(masks, (16, 16), is_label=True)
    assert small.dtype == torch.uint8
    assert set(small.unique().tolist()) <= {0, 3}
    assert resize(masks, (16, 16)).dtype == torch.uint8
    assert resize(torch.rand(1, 1, 9, 9), (9, 9)).shape == (1, 1, 9, 9)


@pytest.mark.parametrize("items", [2, 3, 8])
def test_networks_with_parts_of_their_own_share_no_label(items):
    first, second = disjoint_parts(items, 2, seed=3)
    assert sorted(first + second) == list(range(items))
    assert abs(len(first) - len(second)) <= 1


def test_networks_with_parts_of_their_own_know_every_labeled_patient(tmp_path):
    data = training(tiny_dataset(tmp_path / "tiny.h5", 3), 2, 2, size=(32, 32), batches=(2, 2), parts=2)
    slices = data.labeled_count // 2  # of each of the two
    for part in data.parts:
        assert {item // slices for item in part} == {0, 1}


def test_a_single_labeled_image_goes_to_every_part():
    assert disjoint_parts(1, 2, seed=0) == [[0], [0]]


def pointed(path, shapes):
    """Cases with one point each, in the middle of their bottom row."""
    info = DatasetInfo("pointed", "Pointed", "none", ("background", "tip"), "CC0", "", task="localization")
    cases = []
    for number, (height, width) in enumerate(shapes):
        image = np.full((1, height, width), number, np.uint8)
        point = np.array([[height - 1.0, (width - 1) / 2]], np.float32)
        cases.append(Case(f"{number:02d}", f"{number:02d}", image, None, (1.0, 1.0), {"points": point}))
    write_dataset(path, info, cases)
    return Dataset(path)


@pytest.mark.parametrize("crop", [None, Crop(window=(20, 20))])
def test_points_are_labels_in_the_frame_that_is_trained_and_come_back_to_the_pixel(tmp_path, crop):
    dataset = pointed(tmp_path / "p.h5", [(16, 40), (30, 10)])
    data = TrainingSet(dataset, Partition(("00", "01"), (), ()), (8, 8), CPU, 0, 2, 0, crop=crop)
    images, points = data.batch(0)
    assert points.shape == (2, 1, 2)
    for image, point in zip(images, points, strict=True):
        shape = dataset.records[f"{int(image.max()):02d}"].shape[1:]
        length = shape[0] if crop is None else 20  # the middle of the bottom row, of an image that is padded or cut
        below = (shape[0] - length) // 2 if shape[0] >= length else -((length - shape[0]) // 2)
        expected = 2 * (shape[0] - 0.5 - below) / length - 1
        assert point.tolist() == [[pytest.approx(expected), pytest.approx(0, abs=0.11)]]
        pixels = [shape[0] - 1, (shape[1] - 1) / 2]
        assert absolute(point, shape, crop).tolist() == [pytest.approx(pixels, abs=1e-4)]


def test_points_in_patches_are_refused_rather_than_misplaced(tmp_path):
    dataset = pointed(tmp_path / "p.h5", [(16, 16)] * 2)
    with pytest.raises(UserError, match="localization is learned from whole images or their centre"):
        TrainingSet(dataset, Partition(("00",), (), ()), (8, 8), CPU, 0, 1, 0, crop=Crop(window=(8, 8), at="anywhere"))


@pytest.mark.parametrize("size", [(8, 8), (4, 8, 8)])
def test_points_in_volumes_are_refused_rather_than_given_to_other_slices(tmp_path, size):
    info = DatasetInfo("deep", "Deep", "none", ("background", "tip"), "CC0", "", task="localization")
    volume, point = np.zeros((1, 4, 16, 16), np.uint8), {"points": np.ones((1, 3), np.float32)}
    write_dataset(tmp_path / "p.h5", info, [Case(name, name, volume, None, (1.0,) * 3, point) for name in "ab"])
    with pytest.raises(UserError, match="points are learned from images, not from slices of volumes"):
        TrainingSet(Dataset(tmp_path / "p.h5"), Partition(("a",), ("b",), ()), size, CPU, 0, 1, 1)


def test_labelled_images_are_all_shown_before_one_comes_again(tmp_path):
    data = training(numbered(tmp_path / "toy.h5", 12, (8, 8)), 6, 6)
    known = [shown(data, step)[:2] for step in range(6)]
    for passed in (known[:3], known[3:]):
        assert {item for items in passed for item in items} == set(range(6))
