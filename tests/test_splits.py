"""Splits: no leak between their sides, nested label sets, and frozen once made."""

import hashlib
import json
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest

from semiseg.contract import PluginContract, tiny_dataset
from semiseg.data import splits as splits_module
from semiseg.data.protocol import OfficialPartition
from semiseg.data.splits import Fold, Splits, load_or_freeze, make_splits
from semiseg.data.store import Case, Dataset, DatasetInfo, write_dataset
from semiseg.errors import UserError
from semiseg.registry import find_methods
from semiseg.training.assembly import partition_for

INFO = DatasetInfo("toy", "Toy", "none", ("background", "thing"), "CC0", "")
FRACTIONS = (0.05, 0.2, 0.5, 1.0)
SIZES = {"single": [1] * 20, "even": [4] * 12, "uneven": [30, 1, 1, 2, 7, 3, 12, 1, 5, 9], "fewest": [3, 1, 1, 1, 1]}


def grouped(path, sizes, label=0):
    """A data set with groups of these sizes."""
    images = iter(np.arange(256, dtype=np.uint8)[:, None, None, None].repeat(2, 2).repeat(2, 3))
    cases = [
        Case(f"g{g}c{c}", f"group{g}", next(images), np.full((2, 2), label, np.uint8), (1.0, 1.0))
        for g, size in enumerate(sizes)
        for c in range(size)
    ]
    write_dataset(path, INFO, cases)
    return Dataset(path)


@pytest.fixture(params=SIZES)
def dataset(request, tmp_path):
    return grouped(tmp_path / "toy.h5", SIZES[request.param])


def groups(dataset):
    return {r.id: r.group for r in dataset.records.values()}


def test_every_case_is_tested_exactly_once(dataset):
    tests = [set(fold.test) for fold in make_splits(dataset).folds]
    assert len(tests) == 5
    assert all(tests)
    assert not any(a & b for a, b in combinations(tests, 2))
    assert set().union(*tests) == set(dataset.records)


@pytest.mark.parametrize("labels", FRACTIONS)
def test_no_group_is_on_two_sides(dataset, labels):
    group = groups(dataset)
    for fold in range(5):
        parts = make_splits(dataset).partition(fold, labels, group)
        sides = [{group[c] for c in part} for part in (parts.labeled, parts.unlabeled, parts.test)]
        assert not any(a & b for a, b in combinations(sides, 2))
        together = parts.labeled + parts.unlabeled + parts.test
        assert sorted(together) == sorted(dataset.records)


def test_smaller_label_sets_are_contained_in_larger_ones(dataset):
    splits = make_splits(dataset)
    for fold in range(5):
        labeled = [set(splits.partition(fold, f, groups(dataset)).labeled) for f in np.linspace(0.01, 1, 40)]
        assert labeled[0]
        assert all(a <= b for a, b in pairwise(labeled))
        assert labeled[-1] == set(splits.folds[fold].train)


def test_the_fraction_is_met_where_groups_allow(tmp_path):
    dataset = grouped(tmp_path / "toy.h5", [1] * 100)
    counts = [len(make_splits(dataset).partition(0, f, groups(dataset)).labeled) for f in FRACTIONS]
    assert counts == [4, 16, 40, 80]


def test_a_count_of_groups_labels_the_first_of_the_order_whole_and_nested(dataset):
    splits, group = make_splits(dataset, repeats=2), groups(dataset)
    for fold, frozen in enumerate(splits.folds):
        order = list(dict.fromkeys(group[case] for case in frozen.train))
        for number in range(1, len(order) + 1):
            parts = splits.partition(fold, f"{number} patients", group)
            assert list(dict.fromkeys(group[case] for case in parts.labeled)) == order[:number]
            assert parts.labeled + parts.unlabeled == frozen.train
            assert not {group[case] for case in parts.labeled} & {group[case] for case in parts.unlabeled}
            assert parts == splits.partition(fold, f"{number} groups", group)


def test_a_count_labels_the_very_cases_of_the_share_that_comes_to_it(tmp_path):
    dataset = grouped(tmp_path / "toy.h5", [2] * 50)
    splits, group = make_splits(dataset), groups(dataset)
    for fold in range(5):
        share = splits.partition(fold, 0.05, group)
        assert share == splits.partition(fold, "2 patients", group) == splits.partition(fold, "4 cases", group)


def test_a_count_that_a_fold_cannot_give_is_refused_in_one_line(tmp_path):
    dataset = grouped(tmp_path / "toy.h5", [2] * 10)
    splits, group = make_splits(dataset), groups(dataset)
    assert len(splits.partition(3, "8 groups", group).labeled) == 16
    for labels, message in (
        ("9 patients", "fold 3 has 8 groups of training cases, not 9 patients"),
        ("5 cases", "fold 3 cannot label 5 cases, since groups are labelled whole; choose 4 or 6."),
        ("1 case", "choose 2."),
        ("17 cases", "choose 16."),
    ):
        with pytest.raises(UserError) as error:
            splits.partition(3, labels, group)
        assert message in str(error.value)
        assert "\n" not in str(error.value)


def test_a_split_that_comes_with_semiseg_serves_the_data_it_was_made_for_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(splits_module, "SPLITS", tmp_path / "embedded")
    dataset, own = grouped(tmp_path / "toy.h5", [2] * 10), tmp_path / "own" / "toy.json"
    load_or_freeze(tmp_path / "embedded" / "toy.json", dataset)
    stored = json.loads((tmp_path / "embedded" / "toy.json").read_text())
    stored["folds"][0]["train"].reverse()  # as it would not be frozen today
    (tmp_path / "embedded" / "toy.json").write_text(json.dumps(stored))
    embedded = (tmp_path / "embedded" / "toy.json").read_bytes()
    assert load_or_freeze(own, dataset).folds[0].train == tuple(stored["folds"][0]["train"])
    assert not own.exists(), "what is there need not be frozen"
    both = load_or_freeze(own, dataset, repeats=2)
    assert both.folds[0].train == tuple(stored["folds"][0]["train"])
    assert load_or_freeze(own, dataset, repeats=2) == both
    assert (tmp_path / "embedded" / "toy.json").read_bytes() == embedded, "an installed package is not written to"
    other = grouped(tmp_path / "other.h5", [2] * 11)
    assert load_or_freeze(tmp_path / "elsewhere" / "toy.json", other).data_hash == other.hash


def test_folds_are_even(tmp_path):
    splits = make_splits(grouped(tmp_path / "toy.h5", [2] * 13))
    sizes = [len(fold.test) for fold in splits.folds]
    assert max(sizes) - min(sizes) <= 2


def test_splits_do_not_depend_on_labels(tmp_path):
    one, other = (make_splits(grouped(tmp_path / f"{v}.h5", [2] * 9, label=v)) for v in (0, 1))
    assert one.data_hash != other.data_hash
    assert one.folds == other.folds


def test_labels_are_nested_and_groups_whole_in_every_repeat(dataset):
    splits, group = make_splits(dataset, repeats=3), groups(dataset)
    assert splits.repeats == 3
    for fold in range(15):
        few, more = (splits.partition(fold, f, group) for f in (0.1, 0.5))
        assert set(few.labeled) <= set(more.labeled)
        for parts in (few, more):
            sides = [{group[c] for c in part} for part in (parts.labeled, parts.unlabeled, parts.test)]
            assert not any(a & b for a, b in combinations(sides, 2))
    for repeat in range(3):
        tested = [case for fold in splits.folds[5 * repeat : 5 * repeat + 5] for case in fold.test]
        assert sorted(tested) == sorted(dataset.records)


def test_repeats_differ_in_folds_and_in_draws_of_labels(tmp_path):
    splits = make_splits(grouped(tmp_path / "toy.h5", [1] * 40), repeats=3)
    assert len({fold.test for fold in splits.folds}) == 15
    assert len({fold.train[:4] for fold in splits.folds}) == 15


def test_the_first_repeat_is_what_it_was_before_there_were_repeats(tmp_path):
    """The digest was taken with the code that froze the committed splits."""
    (first,) = {make_splits(grouped(tmp_path / f"{n}.h5", [2] * 9), repeats=n).folds[:5] for n in (1, 3)}
    digest = hashlib.sha256(repr([(fold.test, fold.train) for fold in first]).encode()).hexdigest()
    assert digest[:12] == "da74452f42b7"


def test_repeats_that_are_appended_leave_those_before_as_they_were(tmp_path):
    dataset, path = tiny_dataset(tmp_path / "tiny.h5", 2), tmp_path / "tiny.json"
    load_or_freeze(path, dataset)
    content = json.loads(path.read_text())
    content["folds"].reverse()  # frozen by other code, say
    path.write_text(json.dumps(content, indent=1) + "\n")
    before, first = path.read_text(), load_or_freeze(path, dataset)
    splits = load_or_freeze(path, dataset, repeats=3)
    assert path.read_text().startswith(before.removesuffix("\n ]\n}\n") + ",\n")
    assert splits == load_or_freeze(path, dataset) == load_or_freeze(path, dataset, repeats=2)
    assert splits.folds == first.folds + make_splits(dataset, repeats=3).folds[5:]
    assert splits.hash(3) == first.hash(0)
    assert len({splits.hash(fold) for fold in range(15)}) == 3


def test_a_command_that_asks_for_fewer_repeats_and_comes_last_costs_nothing(tmp_path):
    """Both read the file, then both replace it; the one that misses its repeat finds it again."""
    dataset, path = tiny_dataset(tmp_path / "tiny.h5", 2), tmp_path / "tiny.json"
    fewer = load_or_freeze(path, dataset, repeats=2) and path.read_bytes()
    all_three = load_or_freeze(path, dataset, repeats=3)
    path.write_bytes(fewer)
    assert load_or_freeze(path, dataset, repeats=3) == all_three
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize("edit", ["leak", "tested twice", "a fold short"])
def test_a_repeat_edited_by_hand_is_refused(tmp_path, edit):
    dataset, path = tiny_dataset(tmp_path / "tiny.h5", 2), tmp_path / "tiny.json"
    load_or_freeze(path, dataset, repeats=2)
    content = json.loads(path.read_text())
    match edit:
        case "leak":
            content["folds"][7]["train"] += content["folds"][7]["test"][:1]
        case "tested twice":
            content["folds"][7] = content["folds"][8]
        case _:
            del content["folds"][7]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"tiny\.json: (fold 7|repeat 1|holds 9 folds)"):
        load_or_freeze(path, dataset)


def test_a_fold_of_a_repeat_that_was_not_frozen_is_refused_in_one_line(dataset):
    with pytest.raises(UserError, match=r"^.*fold 7 is not frozen.*`repeats: 2`.*$"):
        make_splits(dataset).partition(7, 0.2, groups(dataset))


def test_folds_do_not_share_one_order_of_labels(tmp_path):
    splits = make_splits(grouped(tmp_path / "toy.h5", [1] * 40))
    first = {fold.train[:4] for fold in splits.folds}
    assert len(first) == 5
    assert make_splits(grouped(tmp_path / "toy.h5", [1] * 40), seed=1).folds != splits.folds


def test_too_few_groups_are_refused(tmp_path):
    with pytest.raises(UserError, match="at least 5 groups, there are 4"):
        make_splits(grouped(tmp_path / "toy.h5", [3] * 4))


def test_frozen_splits_stay_what_they_were(tmp_path):
    dataset, path = tiny_dataset(tmp_path / "tiny.h5", 2), tmp_path / "splits" / "tiny.json"
    frozen = load_or_freeze(path, dataset)
    before = path.read_bytes()
    again = load_or_freeze(path, dataset)
    assert path.read_bytes() == before
    assert again == frozen == make_splits(dataset)
    assert again.hash(0) == frozen.hash(0)


def test_the_frozen_file_counts_not_the_code_that_made_it(tmp_path):
    dataset, path = tiny_dataset(tmp_path / "tiny.h5", 2), tmp_path / "tiny.json"
    frozen = load_or_freeze(path, dataset)
    content = json.loads(path.read_text())
    content["folds"].reverse()
    path.write_text(json.dumps(content))
    assert load_or_freeze(path, dataset).folds == frozen.folds[::-1]
    assert load_or_freeze(path, dataset).hash(0) != frozen.hash(0)


def test_changed_data_are_refused_and_the_frozen_file_kept(tmp_path):
    path = tmp_path / "tiny.json"
    load_or_freeze(path, tiny_dataset(tmp_path / "tiny.h5", 2))
    before = path.read_bytes()
    changed = tiny_dataset(tmp_path / "tiny.h5", 2, kept=set())
    with pytest.raises(UserError, match="frozen for other data"):
        load_or_freeze(path, changed)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["", "{", "[]", "5", '{"folds": []}', '{"folds": [{"test": []}]}', "\xff\xfe"])
def test_a_damaged_split_file_is_refused(tmp_path, content):
    path = tmp_path / "tiny.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"tiny\.json"):
        load_or_freeze(path, tiny_dataset(tmp_path / "tiny.h5", 2))
    assert path.read_bytes() == content.encode("latin-1")


def test_a_split_file_edited_into_a_leak_is_refused(tmp_path):
    dataset, path = tiny_dataset(tmp_path / "tiny.h5", 2), tmp_path / "tiny.json"
    load_or_freeze(path, dataset)
    content = json.loads(path.read_text())
    content["folds"][0]["train"] += content["folds"][0]["test"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError):
        load_or_freeze(path, dataset)


def test_results_that_come_with_the_project_come_with_the_split_that_they_were_made_on():
    folders = sorted((Path(__file__).parents[1] / "results").glob("*/runs"))
    assert len(folders) > 5
    for folder in folders:
        record = json.loads(next(folder.glob("*/*/*/*/run.json")).read_text(encoding="utf-8"))
        if record["spec"].get("protocol"):
            continue  # the lists of the data set itself
        file = splits_module.SPLITS / f"{record['spec']['dataset']}.json"
        stored = json.loads(file.read_text(encoding="utf-8"))
        folds = tuple(Fold(tuple(f["test"]), tuple(f["train"])) for f in stored.pop("folds"))
        assert Splits(folds=folds, **stored).hash(record["spec"]["fold"]) == record["data"]["split_hash"], folder.parent


def with_bare(path, bare):
    """Ten groups of two cases with a mask each, and images without one, of these groups."""
    images = np.random.default_rng(0).integers(0, 255, (20 + len(bare), 1, 2, 2), np.uint8)
    label = np.zeros((2, 2), np.uint8)
    cases = [Case(f"c{n}", f"group{n // 2}", images[n], label, (1.0, 1.0)) for n in range(20)]
    cases += [Case(f"b{n}", group, images[20 + n], None, (1.0, 1.0)) for n, group in enumerate(bare)]
    write_dataset(path, INFO, cases)
    return Dataset(path)


def test_images_without_masks_are_unlabelled_in_every_fold_that_does_not_test_their_patient(tmp_path):
    dataset = with_bare(tmp_path / "toy.h5", ["group0", "group3", "elsewhere"])
    splits, group = make_splits(dataset), groups(dataset)
    for fold in range(5):
        parts = splits.partition(fold, 0.2, group)
        tested = {group[case] for case in parts.test}
        expected = {b for b in ("b0", "b1", "b2") if group[b] not in tested}
        assert {case for case in parts.unlabeled if case.startswith("b")} == expected
        assert not any(case.startswith("b") for case in (*parts.labeled, *parts.test))
        for inner in range(5):
            chosen = splits.partition(fold, 0.2, group, inner)
            hidden = tested | {group[case] for case in chosen.test}
            assert {b for b in chosen.unlabeled if b.startswith("b")} == {b for b in expected if group[b] not in hidden}


def test_images_without_masks_change_neither_the_folds_nor_how_many_cases_a_share_labels(tmp_path):
    plain, more = with_bare(tmp_path / "a.h5", []), with_bare(tmp_path / "b.h5", ["group0", "elsewhere"])
    assert make_splits(plain).folds == make_splits(more).folds
    for labels in (0.2, 1.0, "3 groups"):
        few, many = (make_splits(d).partition(0, labels, groups(d)) for d in (plain, more))
        assert few.labeled == many.labeled
        assert {"b1"} <= {*many.unlabeled} - {*few.unlabeled} <= {"b0", "b1"}


def test_a_frozen_split_knows_the_images_without_masks_and_refuses_an_edit(tmp_path):
    dataset, path = with_bare(tmp_path / "toy.h5", ["group0", "elsewhere"]), tmp_path / "toy.json"
    splits = load_or_freeze(path, dataset)
    assert load_or_freeze(path, dataset) == splits == make_splits(dataset)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"bare": ["b0"]}))
    with pytest.raises(UserError, match="images without labels was edited"):
        load_or_freeze(path, dataset)


def test_a_pretraining_sees_images_without_masks_and_a_method_of_labels_alone_does_not(tmp_path):
    dataset = with_bare(tmp_path / "toy.h5", ["elsewhere"])
    found, spec = find_methods(), PluginContract("supervised", find_methods()["supervised"], 2, tmp_path).spec()
    start, supervised = (
        partition_for(method, make_splits(dataset), spec, dataset)
        for method in (found.starts["local_discrimination"], found["supervised"])
    )
    assert "b0" in start.unlabeled
    assert not start.labeled
    assert supervised.unlabeled == ()


@pytest.fixture
def twins(tmp_path):
    """A data set of fifteen groups, two of which, c03 and c07, hold the same image."""
    image, other = np.zeros((1, 2, 2), np.uint8), np.arange(4, dtype=np.uint8).reshape(1, 2, 2)
    twins = {"c03": image, "c07": image, "c05": other}
    cases = [
        Case(f"c{n:02d}", f"c{n:02d}", twins.get(f"c{n:02d}", np.full((1, 2, 2), 9 + n, np.uint8)),
             np.full((2, 2), n % 2, np.uint8), (1.0, 1.0))
        for n in range(15)
    ]  # fmt: skip
    write_dataset(tmp_path / "toy.h5", INFO, cases)
    return Dataset(tmp_path / "toy.h5")


@pytest.mark.parametrize("labels", FRACTIONS)
def test_nobody_is_tested_on_an_image_that_is_trained_on_under_another_name(twins, labels, tmp_path):
    assert twins.twins == [("c03", "c07")]
    splits, found, tested = make_splits(twins), find_methods(), []
    for fold in range(5):
        of_fold = []
        for name in ("supervised", "mean_teacher"):
            spec = (
                PluginContract(name, found[name], 2, tmp_path)
                .spec()
                .model_copy(update={"labels": labels, "fold": fold})
            )
            parts = partition_for(found[name], splits, spec, twins)
            assert not {*parts.test} & {*parts.labeled, *parts.unlabeled}
            of_fold.append(parts.test)
        assert of_fold[0] == of_fold[1], "methods are tested on the same cases"
        together = {"c03", "c07"} <= {*splits.folds[fold].test}
        assert {*splits.folds[fold].test} - {*of_fold[0]} <= {"c03", "c07"}
        assert {*of_fold[0]} & {"c03", "c07"} == ({"c03", "c07"} if together else set())
        tested += of_fold[0]
    assert {*twins.records} - {"c03", "c07"} <= {*tested}


def test_nobody_is_tested_on_an_image_that_weights_are_chosen_by_under_another_name(twins, tmp_path):
    class Lists:
        def partition(self, *_):
            return OfficialPartition(("c00",), ("c01",), ("c03", "c05"), ("c07", "c08"))

    method = find_methods()["mean_teacher"]
    parts = partition_for(method, Lists(), PluginContract("mean_teacher", method, 2, tmp_path).spec(), twins)
    assert parts.test == ("c05",)
    assert parts.validation == ("c07", "c08")
