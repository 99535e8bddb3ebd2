"""The data set file: what is refused, and that nothing changes behind its hash."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from semiseg.contract import tiny_dataset
from semiseg.data.store import Case, Dataset, DatasetInfo, write_dataset
from semiseg.errors import UserError

INFO = DatasetInfo("toy", "Toy", "none", ("background", "thing"), "CC0", "")


def case(name="a", **changes):
    image = np.random.default_rng(0).integers(0, 255, (1, 6, 8), dtype=np.uint8)
    return replace(Case(name, name, image, image[0] // 128, (1.0, 1.0)), **changes)


def refusal(call):
    """The message of a UserError, which must be one line."""
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def floats(**changes):
    image = np.full((1, 6, 8), 0.5, np.float32)
    for position, value in changes.values():
        image[position] = value
    return image


BAD = {
    "unknown class": ({"label": np.full((6, 8), 2, np.uint8)}, r"values [2]"),
    "size": ({"label": np.zeros((8, 6), np.uint8)}, "(6, 8) and its mask (8, 6)"),
    "nan": ({"image": floats(at=((0, 0, 0), np.nan))}, "NaN"),
    "infinite": ({"image": floats(at=((0, 5, 7), np.inf))}, "infinite"),
    "range": ({"image": floats(at=((0, 0, 0), 1.5))}, "[0, 1]"),
    "type": ({"image": np.zeros((1, 6, 8), np.float64)}, "float64"),
    "signed mask": ({"label": np.zeros((6, 8), np.int64)}, "int64"),
    "empty": ({"image": np.zeros((1, 0, 8), np.uint8), "label": np.zeros((0, 8), np.uint8)}, "empty"),
    "no channel axis": ({"image": np.zeros((6, 8), np.uint8)}, "shape (6, 8)"),
    "spacing": ({"spacing": (1.0,)}, "spacing"),
    "zero spacing": ({"spacing": (1.0, 0.0)}, "spacing"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_a_case_that_would_mislead_is_refused_by_name(tmp_path, changes, message):
    said = refusal(lambda: write_dataset(tmp_path / "toy.h5", INFO, [case("good"), case("wrong", **changes)]))
    assert message in said
    assert "'wrong'" in said
    assert list(tmp_path.iterdir()) == []


def test_two_cases_of_one_name_are_refused(tmp_path):
    assert "two cases are called 'a'" in refusal(lambda: write_dataset(tmp_path / "toy.h5", INFO, [case(), case()]))


def test_a_data_set_without_cases_is_refused(tmp_path):
    assert "at least one" in refusal(lambda: write_dataset(tmp_path / "toy.h5", INFO, []))


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "toy.h5"
    write_dataset(path, INFO, [case()])
    before = path.read_bytes()

    def breaks():
        yield case("b")
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError):
        write_dataset(path, INFO, breaks())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_cases_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_dataset(tmp_path / f"{name}.h5", INFO, [case("a"), case("b")])
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_the_hash_ignores_the_order_of_cases_but_no_pixel_and_no_group(tmp_path):
    def digest(*cases):
        return write_dataset(tmp_path / "toy.h5", INFO, cases)

    reference = digest(case("a"), case("b"))
    assert digest(case("b"), case("a")) == reference
    image, label = case().image.copy(), case().label.copy()
    image[0, 0, 0] ^= 1
    label[0, 0] ^= 1
    for changes in ({"image": image}, {"label": label}, {"group": "b"}, {"spacing": (2.0, 1.0)}):
        assert digest(case("a", **changes), case("b")) != reference


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_what_is_written_is_read(tmp_path, dtype):
    image = np.random.default_rng(1).random((3, 4, 6, 8)).astype(dtype)
    label = np.random.default_rng(1).integers(0, 2, (4, 6, 8), dtype=np.uint8)
    written = case(image=image, label=label, group="patient", spacing=(3.0, 1.5, 1.5))
    digest = write_dataset(tmp_path / "toy.h5", INFO, [written])
    dataset = Dataset(tmp_path / "toy.h5")
    assert dataset.hash == digest
    assert dataset.info == INFO
    assert (dataset.channels, dataset.is_volumetric) == (3, True)
    assert np.array_equal(dataset.image("a"), written.image)
    assert dataset.image("a").dtype == dtype
    assert np.array_equal(dataset.label("a"), written.label)
    record = dataset.records["a"]
    assert (record.group, record.spacing, record.shape) == ("patient", (3.0, 1.5, 1.5), (3, 4, 6, 8))


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, kept):
    path = tiny_dataset(tmp_path / "tiny.h5", 2).path
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert "prepare the data again" in refusal(lambda: Dataset(path))


def test_a_file_of_another_kind_is_refused(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = [1, 2, 3]
    assert "not a readable semiseg data set" in refusal(lambda: Dataset(tmp_path / "other.h5"))
    assert "absent.h5: there is no such data set" in refusal(lambda: Dataset(tmp_path / "absent.h5"))


@pytest.mark.parametrize("key", ["image", "label"])
def test_a_pixel_changed_behind_the_hash_is_noticed(tmp_path, key):
    dataset = tiny_dataset(tmp_path / "tiny.h5", 2)
    with h5py.File(dataset.path, "r+") as file:
        pixels = file[f"cases/case03/{key}"]
        pixels[..., 0, 0] = 1
    dataset = Dataset(dataset.path)  # listing reads no pixels
    assert f"{key} of case 'case03' was changed" in refusal(lambda: getattr(dataset, key)("case03"))
    assert getattr(dataset, key)("case04").any()


def test_a_case_removed_behind_the_hash_is_noticed(tmp_path):
    path = tiny_dataset(tmp_path / "tiny.h5", 2).path
    with h5py.File(path, "r+") as file:
        del file["cases/case03"]
    assert "list of cases was changed" in refusal(lambda: Dataset(path))


def test_a_file_written_by_another_version_is_refused(tmp_path):
    path = tiny_dataset(tmp_path / "tiny.h5", 2).path
    with h5py.File(path, "r+") as file:
        file.attrs["format"] = 99
    assert "another version" in refusal(lambda: Dataset(path))


def test_damaged_pixels_are_refused_in_one_line(tmp_path):
    dataset = tiny_dataset(tmp_path / "tiny.h5", 2)
    with h5py.File(dataset.path, "r") as file:
        chunk = file["cases/case03/image"].id.get_chunk_info(0)
    with dataset.path.open("r+b") as file:
        file.seek(chunk.byte_offset + 2)
        file.write(b"\xff" * 64)
    assert "case03" in refusal(lambda: dataset.image("case03"))


@pytest.mark.parametrize("name", ["patient1/frame2", ".", "", "two\nlines", "not-UTF-8-\udce4", "..\\up", "C:x"])
def test_a_name_that_the_file_cannot_hold_is_refused_when_written(tmp_path, name):
    message = refusal(lambda: write_dataset(tmp_path / "toy.h5", INFO, [case("good"), case(name)]))
    assert "use a readable name" in message.encode().decode()


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc/x", "..", "a\\b", ".hidden", ""])
def test_a_data_set_from_elsewhere_cannot_choose_where_its_splits_are_written(tmp_path, name):
    path = tiny_dataset(tmp_path / "tiny.h5", 2).path
    with h5py.File(path, "r+") as file:
        file.attrs["info"] = json.dumps(json.loads(file.attrs["info"]) | {"name": name})
    said = refusal(lambda: Dataset(path))
    assert said.startswith(f"{path}: {name!r} cannot be the name of a file; use")
    assert "cannot be the name" in refusal(lambda: write_dataset(tmp_path / "x.h5", replace(INFO, name=name), [case()]))


def test_a_case_from_elsewhere_cannot_choose_a_path(tmp_path):
    path = tiny_dataset(tmp_path / "tiny.h5", 2).path
    with h5py.File(path, "r+") as file:
        record = json.loads(file["cases/case03"].attrs["record"]) | {"id": "../case03"}
        file["cases/case03"].attrs["record"] = json.dumps(record)
    assert "'../case03' cannot be the name of a file" in refusal(lambda: Dataset(path))


def test_a_prepared_file_tells_its_recipe(tmp_path):
    for origin, recipe in (("acdc", "acdc"), ("nifti_folder, /home/someone/a, b", "nifti_folder")):
        write_dataset(tmp_path / "toy.h5", INFO, [case()], {"origin": origin})
        assert Dataset(tmp_path / "toy.h5").recipe == recipe
    write_dataset(tmp_path / "toy.h5", INFO, [case()])
    assert Dataset(tmp_path / "toy.h5").recipe == ""


def test_cases_that_no_network_takes_together_are_refused_when_written(tmp_path):
    color = case("b", image=np.zeros((3, 6, 8), np.uint8))
    with pytest.raises(UserError):
        write_dataset(tmp_path / "toy.h5", INFO, [case("a"), color])


def marked(case="one", text="a nodule", shift=0.0, label=False):
    """A case with points and a text beside its image."""
    image = np.zeros((1, 20, 30), np.uint8)
    points = np.array([[4.0, 6.0], [10.0, 15.5]], np.float32) + np.float32(shift)
    mask = np.zeros((20, 30), np.uint8) if label else None
    return Case(case, case, image, mask, (1.0, 1.0), {"points": points, "text": text})


def test_fields_beside_the_image_are_read_as_they_were_written_and_belong_to_the_hash(tmp_path):
    info = replace(INFO, task="localization")
    write_dataset(tmp_path / "a.h5", info, [marked()])
    dataset = Dataset(tmp_path / "a.h5")
    assert dataset.info.task == "localization"
    with pytest.raises(UserError, match="has no mask; a task with other labels says in `labels` what is learned"):
        dataset.label("one")
    assert np.array_equal(dataset.field("one", "points"), [[4.0, 6.0], [10.0, 15.5]])
    assert dataset.field("one", "text") == "a nodule"
    with pytest.raises(UserError, match="has no field 'sound'; known: points, text"):
        dataset.field("one", "sound")
    hashes = {dataset.hash}
    for number, case in enumerate([marked(text="none"), marked(shift=0.5), marked(label=True)]):
        hashes.add(write_dataset(tmp_path / f"{number}.h5", info, [case]))
    assert len(hashes) == 4


def test_a_field_changed_behind_the_hash_is_noticed(tmp_path):
    write_dataset(tmp_path / "a.h5", INFO, [marked()])
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["cases/one/fields/points"][0, 0] = 5
    with pytest.raises(UserError, match="the fields/points of case 'one' was changed"):
        Dataset(tmp_path / "a.h5").field("one", "points")


def test_a_case_with_nothing_to_learn_or_to_score_is_refused(tmp_path):
    bare = replace(marked(), fields={})
    with pytest.raises(UserError, match="no case has a mask or any other field"):
        write_dataset(tmp_path / "a.h5", INFO, [bare])
    nowhere = replace(marked(), fields={"points": np.array([[np.nan, 1.0]])})
    with pytest.raises(UserError, match="points holds NaN"):
        write_dataset(tmp_path / "a.h5", INFO, [nowhere])
