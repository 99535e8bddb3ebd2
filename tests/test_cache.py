"""Items at the scale of a training: made once for a machine, the same wherever they lie, and never of other data."""

import errno
import os

import numpy as np
import pytest
import torch

from semiseg.contract import CPU, tiny_dataset
from semiseg.data.cache import ItemCache, item_cache, training_items
from semiseg.data.cropping import Crop
from semiseg.data.splits import Partition
from semiseg.data.store import Case, Dataset, DatasetInfo, write_dataset
from semiseg.errors import UserError
from semiseg.training import sampling
from semiseg.training.sampling import TrainingSet

SIZES = {
    "slices": (2, (16, 16), None),
    "centres": (2, (16, 16), Crop(window=(24, 24))),
    "windows": (2, (16, 16), Crop(window=(20, 20), at="anywhere")),
    "slices of volumes": (3, (16, 16), None),
    "volumes": (3, (8, 16, 16), None),
    "padded volumes": (3, (16, 32, 48), None),
}


@pytest.fixture
def no_reading(monkeypatch):
    """From now on no pixel may be read from a data set's file."""

    def forbid():
        def refuse(self, case, key, expected):
            raise AssertionError(f"the {key} of {case} was read")

        monkeypatch.setattr(Dataset, "_read", refuse)

    return forbid


@pytest.mark.parametrize("kind", ["image", "label"])
@pytest.mark.parametrize("name", SIZES)
def test_items_are_those_of_the_case(tmp_path, name, kind):
    dims, size, crop = SIZES[name]
    dataset = tiny_dataset(tmp_path / "tiny.h5", dims)
    cases = ["case03", "case00", "case03"]
    for case, items in zip(cases, ItemCache(dataset, size, crop, kind).items(cases), strict=True):
        array = dataset.image(case) if kind == "image" else dataset.label(case)[None]
        wanted = training_items(torch.from_numpy(array), size, kind == "label", crop)
        assert items.dtype == wanted.dtype
        assert torch.equal(items, wanted)


def test_another_process_reads_and_resizes_nothing_again(tmp_path, no_reading):
    dataset = tiny_dataset(tmp_path / "tiny.h5", 3)
    first = ItemCache(dataset, (16, 16), None, "image").items(["case00", "case01"])
    no_reading()
    second = ItemCache(Dataset(dataset.path), (16, 16), None, "image").items(["case01", "case00"])
    assert torch.equal(first[0], second[1])
    assert torch.equal(first[1], second[0])
    with pytest.raises(AssertionError, match="case02 was read"):  # nobody has asked for it
        ItemCache(dataset, (16, 16), None, "image").items(["case02"])


def test_what_a_killed_process_left_half_made_is_made_again(tmp_path):
    dataset = tiny_dataset(tmp_path / "tiny.h5", 2)
    cache = ItemCache(dataset, (16, 16), None, "image")
    (made,) = cache.items(["case00"])
    wanted = made.clone()
    made.zero_()
    cache.bytes[cache.number["case00"]] = 0
    assert torch.equal(ItemCache(dataset, (16, 16), None, "image").items(["case00"])[0], wanted)


def test_items_of_earlier_data_are_not_taken_and_their_space_is_freed(tmp_path):
    dataset = tiny_dataset(tmp_path / "tiny.h5", 2)
    ItemCache(dataset, (16, 16), None, "label").items(["case00"])
    ItemCache(dataset, (24, 24), None, "label").items(["case00"])
    before = set((tmp_path / "cache" / "tiny").iterdir())
    assert len(before) == 2
    changed = tiny_dataset(tmp_path / "tiny.h5", 2, kept={"case00"})
    (items,) = ItemCache(changed, (40, 40), None, "label").items(["case00"])
    assert np.array_equal(items[0, 0].numpy(), changed.label("case00"))
    after = set((tmp_path / "cache" / "tiny").iterdir())
    assert len(after) == 1
    assert not after & before


def test_images_of_another_type_are_refused_not_cut_to_that_of_the_others(tmp_path):
    info = DatasetInfo("toy", "Toy", "none", ("background", "thing"), "CC0", "")
    mask = np.zeros((8, 8), np.uint8)
    bytes_, shares = np.full((1, 8, 8), 200, np.uint8), np.full((1, 8, 8), 0.8, np.float32)
    cases = [Case(name, name, image, mask, (1.0, 1.0)) for name, image in (("a", bytes_), ("b", shares))]
    write_dataset(tmp_path / "toy.h5", info, cases)
    cache = ItemCache(Dataset(tmp_path / "toy.h5"), (8, 8), None, "image")
    assert cache.items(["a"])[0].max() == 200
    with pytest.raises(UserError, match="case 'b' holds float32, others uint8"):
        cache.items(["a", "b"])
    assert not cache.bytes[cache.number["b"]]


def test_a_file_that_was_cut_off_is_made_again(tmp_path):
    dataset = tiny_dataset(tmp_path / "tiny.h5", 2)
    (items,) = ItemCache(dataset, (16, 16), None, "image").items(["case00"])
    wanted = items.clone()
    (path,) = (tmp_path / "cache" / "tiny").iterdir()
    size = path.stat().st_size
    os.truncate(path, 5000)
    assert torch.equal(ItemCache(dataset, (16, 16), None, "image").items(["case00"])[0], wanted)
    assert path.stat().st_size == size


@pytest.mark.parametrize("lacking", ["posix_fallocate", "link"])
def test_systems_and_disks_that_lack_a_call_share_the_file_all_the_same(tmp_path, monkeypatch, lacking):
    """macOS and Windows set no space aside, and exFAT and some network shares have no hard links."""
    dataset = tiny_dataset(tmp_path / "tiny.h5", 2)

    def unsupported(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if lacking == "link":
        monkeypatch.setattr(os, "link", unsupported)
    else:
        monkeypatch.delattr(os, "posix_fallocate")
    cache = ItemCache(dataset, (16, 16), None, "image")
    assert isinstance(cache.bytes, np.memmap)
    wanted = training_items(torch.from_numpy(dataset.image("case00")), (16, 16), False, None)
    assert torch.equal(cache.items(["case00"])[0], wanted)
    (path,) = (tmp_path / "cache" / "tiny").iterdir()
    assert path.stat().st_size == len(cache.bytes)
    assert path.stat().st_blocks * 512 >= len(cache.bytes), "a hole would kill who writes into it on a full disk"


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_where_no_file_can_be_written_memory_takes_its_place(tmp_path, monkeypatch, trouble):
    dataset = tiny_dataset(tmp_path / "tiny.h5", 2)

    def refuse(*_):
        raise OSError({"full": errno.ENOSPC, "read-only": errno.EROFS}[trouble], os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    cache = ItemCache(dataset, (16, 16), None, "image")
    assert not isinstance(cache.bytes, np.memmap)
    wanted = training_items(torch.from_numpy(dataset.image("case00")), (16, 16), False, None)
    assert torch.equal(cache.items(["case00"])[0], wanted)
    assert not list(tmp_path.rglob("*.partial"))


def test_the_next_run_of_a_process_finds_everything_in_place(tmp_path, no_reading):
    dataset = tiny_dataset(tmp_path / "tiny.h5", 2)
    names = tuple(dataset.records)
    partition = Partition(names[:2], names[2:5], names[5:])
    first = TrainingSet(dataset, partition, (16, 16), CPU, 0, 2, 2).batch(3)
    no_reading()
    second = TrainingSet(Dataset(dataset.path), partition, (16, 16), CPU, 0, 2, 2).batch(3)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    item_cache.cache_clear()
    third = TrainingSet(dataset, partition, (16, 16), CPU, 0, 2, 2).batch(3)
    assert all(torch.equal(a, b) for a, b in zip(first, third, strict=True))


def test_nothing_is_copied_on_a_processor(tmp_path):
    dataset = tiny_dataset(tmp_path / "tiny.h5", 2)
    names = tuple(dataset.records)
    data = TrainingSet(dataset, Partition(names[:2], names[2:], ()), (16, 16), CPU, 0, 2, 2)
    (file,) = (tmp_path / "cache" / "tiny").glob("*.images")
    places = [image.data_ptr() for image in data.images]
    assert max(places) - min(places) < file.stat().st_size, "the items do not lie in one piece of memory"
    assert isinstance(item_cache(dataset.path.resolve(), dataset.hash, (16, 16), None, "image").bytes, np.memmap)


def test_a_gpu_holds_the_items_only_if_they_take_a_part_of_what_is_free(monkeypatch):
    items = [torch.zeros(10, 1, 16, 16, dtype=torch.uint8)] * 2  # 5120 bytes
    for free, fits in ((5120 / sampling.SHARE, True), (5119 / sampling.SHARE, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 0))
        assert sampling.fits(torch.device("cuda"), items) is fits


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_it_is_said_that_images_do_not_fit_on_the_gpu(tmp_path, monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 0))
    dataset = tiny_dataset(tmp_path / "tiny.h5", 2)
    names = tuple(dataset.records)
    data = TrainingSet(dataset, Partition(names[:2], names[2:], ()), (16, 16), torch.device(device), 0, 2, 2)
    assert not data.resident
    assert len(data.notes) == (device == "cuda")
    assert all("more than 25%" in note for note in data.notes)


def test_data_that_were_prepared_again_meanwhile_are_not_taken_for_those_of_the_run(tmp_path):
    """A run says in its identity which data it learned from, long before it reads them if a start comes first."""
    dataset = tiny_dataset(tmp_path / "tiny.h5", 2)
    item_cache.cache_clear()
    tiny_dataset(tmp_path / "tiny.h5", 2, ())  # other labels
    assert Dataset(dataset.path).hash != dataset.hash
    with pytest.raises(UserError, match="prepared again since this run began"):
        item_cache(dataset.path, dataset.hash, (16, 16), None, "image")
