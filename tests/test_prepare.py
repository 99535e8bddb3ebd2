"""From a recipe to a data set file."""

import importlib
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

import semiseg.data_prep
from semiseg.data import prepare as preparation
from semiseg.data.discovery import recipe, recipes
from semiseg.data.prepare import code_of, prepare
from semiseg.data.recipe import Recipe
from semiseg.data.store import Case, Dataset, DatasetInfo
from semiseg.errors import UserError, UserErrors


class Generated(Recipe):
    """Three cases made from nothing."""

    name = "generated"
    summary = "for tests"
    version = "1"
    ids: tuple[str, ...] = ("c", "a", "b")

    def info(self) -> DatasetInfo:
        return DatasetInfo("made", "Made", "none", ("background", "thing"), "CC0", "", version=self.version)

    def items(self) -> list[Any]:
        return list(self.ids)

    def load(self, item: Any) -> Case:
        if item == "bad":
            raise UserError("bad: is bad; make it good.")
        pixels = np.random.default_rng(len(item)).integers(0, 255, (1, 8, 8), dtype=np.uint8)
        return Case(item, item, pixels, pixels[0] // 128, (1.0, 1.0))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Ten good images with masks."""
    for folder in ("images", "masks"):
        (tmp_path / "mine" / folder).mkdir(parents=True)
        for case in range(10):
            Image.fromarray(np.full((4, 5), case % 2, np.uint8)).save(tmp_path / f"mine/{folder}/{case}.png")
    return tmp_path / "mine"


def test_a_second_call_does_nothing(source: Path, tmp_path: Path) -> None:
    path, written = prepare(recipe("image_folder")(source), tmp_path)
    before = path.stat()
    assert written
    assert prepare(recipe("image_folder")(source), tmp_path) == (path, False)
    assert path.stat().st_ino == before.st_ino
    assert path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("change", ["content", "new file", "version", "damage"])
def test_changed_inputs_are_noticed(source: Path, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Generated if change == "version" else lambda: recipe("image_folder")(source)
    path, _ = prepare(make(), tmp_path)
    if change == "content":
        os.utime(source / "images/0.png", (0, 0))
    elif change == "new file":
        (source / "classes.txt").write_text("background\npolyp\n")
    elif change == "version":
        monkeypatch.setattr(Generated, "version", "2")
    else:
        path.write_bytes(path.read_bytes()[:500])
    assert prepare(make(), tmp_path) == (path, True)
    Dataset(path)


@pytest.mark.parametrize(
    "statement", ["from .shared import VALUE", "import semiseg.data_prep.shared", "from . import shared"]
)
def test_a_change_in_what_recipes_share_is_noticed(
    tmp_path: Path, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text(
        "from semiseg.data.prepare import Recipe\nfrom .between import VALUE\nclass Own(Recipe):\n    'Own.'\n"
    )
    (tmp_path / "between.py").write_text(f"def late():\n    {statement}\nVALUE = 1\n")
    (tmp_path / "shared.py").write_text("VALUE = 1\n")
    monkeypatch.setattr(semiseg.data_prep, "__path__", [*semiseg.data_prep.__path__, str(tmp_path)])
    kind = importlib.import_module("semiseg.data_prep.own").Own
    before = code_of(kind)
    (tmp_path / "shared.py").write_text("VALUE = 2\n")
    after = code_of(kind)
    for file in ("own", "between"):
        sys.modules.pop(f"semiseg.data_prep.{file}")
    assert {name for name in after if before[name] != after[name]} == {"semiseg.data_prep.shared"}


def test_a_change_elsewhere_is_no_reason_to_prepare_everything_again() -> None:
    volumes, pictures = code_of(recipe("acdc")), code_of(recipe("image_folder"))
    assert {f"semiseg.{name}" for name in ("data.itk", "data.formats", "data_prep.volumes")} <= volumes.keys()
    assert all(name.startswith("semiseg.data") for name in volumes)
    assert not {"semiseg.data_prep.acdc", "semiseg.data_prep.volumes"} & pictures.keys()


def test_a_file_written_into_its_own_source_is_not_a_change(source: Path) -> None:
    prepare(recipe("image_folder")(source), source)
    assert not prepare(recipe("image_folder")(source), source)[1]


def test_linked_images_are_watched_too(source: Path, tmp_path: Path) -> None:
    (source / "images").rename(tmp_path / "disk")
    (source / "images").symlink_to(tmp_path / "disk")
    (source / "circle").symlink_to(source)
    prepare(recipe("image_folder")(source), tmp_path)
    os.utime(tmp_path / "disk/0.png", (0, 0))
    assert prepare(recipe("image_folder")(source), tmp_path)[1]


def test_two_preparations_are_equal_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = prepare(Generated(), tmp_path / "one")
    monkeypatch.setattr(time, "time", lambda: 1e9)
    second, _ = prepare(Generated(), tmp_path / "two")
    assert first.read_bytes() == second.read_bytes()


def test_several_processes_write_what_one_does(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    pool = preparation.ProcessPoolExecutor
    monkeypatch.setattr(preparation, "ProcessPoolExecutor", lambda *args: started.append(args) or pool(*args))
    one, _ = prepare(recipe("image_folder")(source), tmp_path / "one", jobs=1)
    prepare(recipe("image_folder")(source), tmp_path / "few", jobs=2)
    assert not started, "starting processes takes longer than ten tiny images"
    monkeypatch.setattr(preparation, "WORTH_PROCESSES", 0.0)
    seen: list[tuple[int, int]] = []
    two, _ = prepare(recipe("image_folder")(source), tmp_path / "two", lambda *at: seen.append(at), jobs=2)
    assert started
    assert one.read_bytes() == two.read_bytes()
    assert seen == [(done, 10) for done in range(1, 11)]


def test_errors_of_other_processes_arrive(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "WORTH_PROCESSES", 0.0)
    for case in (0, 3, 5):
        (source / f"images/{case}.png").write_bytes(b"")
    with pytest.raises(UserErrors) as caught:
        prepare(recipe("image_folder")(source), tmp_path, jobs=2)
    (message,) = caught.value.messages
    assert re.search(r"0\.png \(one of 3, like 3\.png and 5\.png\): not a readable image", message)


def test_few_cases_are_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Instant:
        """A pool that loads at once and counts what was not collected yet."""

        flying = most = 0

        def __init__(self, *args: Any) -> None: ...
        def __enter__(self) -> "Instant":
            return self

        def __exit__(self, *args: Any) -> None: ...
        def shutdown(self, **options: Any) -> None: ...

        def submit(self, load: Any, *args: Any) -> "Instant":
            self.case = load(*args)
            Instant.flying += 1
            Instant.most = max(Instant.most, Instant.flying)
            return self

        def result(self) -> Any:
            Instant.flying -= 1
            return [f"{self.flying}"]

    monkeypatch.setattr(preparation, "WORTH_PROCESSES", 0.0)
    monkeypatch.setattr(preparation, "ProcessPoolExecutor", Instant)
    monkeypatch.setattr(Generated, "ids", tuple(f"{number:03}" for number in range(100)))
    with pytest.raises(UserErrors):
        prepare(Generated(), tmp_path, jobs=3)
    assert Instant.most == 6
    assert Instant.flying == 0


def test_a_failed_preparation_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = prepare(Generated(), tmp_path)
    before = path.read_bytes()
    monkeypatch.setattr(Generated, "ids", ("a", "bad", "b", "a", "bad"))
    monkeypatch.setattr(Generated, "version", "2")
    with pytest.raises(UserErrors) as caught:
        prepare(Generated(), tmp_path)
    assert caught.value.messages == [
        "bad: is bad; make it good.",
        "made: two cases are called 'a'; rename one of them.",
    ]
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_what_a_killed_process_left_does_not_fill_the_disk_forever(tmp_path: Path) -> None:
    left, running = tmp_path / ".made.h5.1.partial", tmp_path / ".made.h5.2.partial"
    for file in (left, running):
        file.write_bytes(b"half")
    os.utime(left, (0, 0))
    prepare(Generated(), tmp_path)
    assert not left.exists()
    assert running.exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"made\.h5: cannot be written"):
        prepare(Generated(), tmp_path / "file")


def test_the_order_of_items_is_the_order_of_writing(tmp_path: Path) -> None:
    path, _ = prepare(Generated(), tmp_path)
    with h5py.File(path) as file:
        assert sorted(file["cases"]) == ["a", "b", "c"]
        offsets = {case: file[f"cases/{case}/image"].id.get_chunk_info(0).byte_offset for case in "abc"}
    assert sorted(offsets, key=offsets.__getitem__) == ["c", "a", "b"]


def test_another_folder_of_the_same_name_does_not_replace_what_was_prepared(source: Path, tmp_path: Path) -> None:
    path, _ = prepare(recipe("image_folder")(source), tmp_path)
    before = path.read_bytes()
    other = tmp_path / "elsewhere" / source.name
    shutil.copytree(source, other)
    os.utime(other / "images/0.png", ns=(0, 0))
    with pytest.raises(UserError, match=r"was made of other files .*image_folder, .*rename the folder"):
        prepare(recipe("image_folder")(other), tmp_path)
    assert path.read_bytes() == before
    os.utime(source / "images/0.png", ns=(0, 0))
    assert prepare(recipe("image_folder")(source), tmp_path)[1], "the same folder may change"


def test_generated_data_may_be_made_again_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(Generated(), tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(Generated, "version", "2")
    assert prepare(Generated(), tmp_path)[1]


def test_a_broken_file_does_not_hide_the_other_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_one.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "importer.py").write_text("from semiseg.data_prep.image_folder import ImageFolder\n")
    (tmp_path / "zcopy.py").write_text(
        "from semiseg.data_prep.image_folder import ImageFolder\n"
        "class Again(ImageFolder):\n    '''Same name.'''\n"
        "class Other(ImageFolder):\n    '''New name.'''\n    name = 'other'\n"
        "from semiseg.data.pairs import PairedPictures\n"
        "class Shared(PairedPictures):\n    '''What two recipes share has no name.'''\n    licence = 'CC0'\n"
    )
    monkeypatch.setattr(semiseg.data_prep, "__path__", [*semiseg.data_prep.__path__, str(tmp_path)])
    found = recipes()
    assert {"image_folder", "nifti_folder", "ssl4mis_folder", "ua_mt_folder", "other"} <= set(found)
    assert list(found) == sorted(found)
    assert found["image_folder"].__module__ == "semiseg.data_prep.image_folder"
    with pytest.raises(UserError, match=r"broken_one\.py.*nothing_of_this_name.*zcopy\.py") as caught:
        recipe("broken_one")
    assert "\n" not in str(caught.value)
    assert "importer.py" not in str(caught.value)
    for file in ("importer", "zcopy"):
        sys.modules.pop(f"semiseg.data_prep.{file}")


@pytest.mark.parametrize("kind", recipes().values(), ids=recipes())
def test_a_recipe_says_what_a_list_of_data_sets_needs(kind: type[Recipe]) -> None:
    assert kind.task or not kind.layout
    assert kind.licence or not (kind.downloads or kind.registration)
    for item in kind.downloads:
        assert re.fullmatch(r"https?://\S+", item.url)
        assert re.fullmatch(r"[\w.-]+", item.file)
        assert re.fullmatch("([0-9a-f]{64})?", item.sha256.lower())
        assert re.fullmatch("([0-9a-f]{32})?", item.md5.lower())
    assert re.match("https?://|$", kind.registration)
