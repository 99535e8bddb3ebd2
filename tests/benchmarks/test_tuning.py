"""How settings are chosen: as many trials for every method, and never on a test case."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from semiseg.benchmarks.expansion import expand, resolve, write_benchmark
from semiseg.benchmarks.readiness import check
from semiseg.benchmarks.state import strays, survey
from semiseg.benchmarks.tuning import Outcome, benchmark_of, choose, draw, draw_all, outcomes, record
from semiseg.data.splits import FOLDS, make_splits
from semiseg.errors import UserError
from semiseg.registry import find_methods
from semiseg.report.wording import budget, choices
from semiseg.settings import BenchmarkSettings, TrainingSettings, Variant, load_benchmark
from semiseg.source_code import without_comments
from semiseg.training.assembly import partition_for
from semiseg.training.identity import identify

FOUND = find_methods()
TRAINING = {"steps": 2, "size": [16, 16], "labeled_batch": 2, "unlabeled_batch": 2, "precision": "float32"}
COMMON = TrainingSettings(**TRAINING, learning_rate=0.04)


def benchmark(**changes):
    content = {"name": "b", "dataset": "tiny", "methods": ["supervised", "ict", "bcp", "fully_supervised"],
               "labels": [0.25, 0.5], "folds": [0], "inner_folds": [0, 1], "network": "unet_small",
               "training": COMMON.model_dump()}  # fmt: skip
    return BenchmarkSettings.model_validate(content | changes)


def refusal(call):
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def drawn(number=6, **changes):
    settings = resolve(benchmark(**changes), FOUND)
    return draw_all(settings, FOUND, number)


# Where settings are tried


@pytest.mark.parametrize("fold", range(FOLDS))
def test_no_test_case_of_a_fold_is_in_any_of_its_inner_folds(places, fold):
    dataset = places.dataset("tiny")
    splits = make_splits(dataset)
    groups = {record.id: record.group for record in dataset.records.values()}
    outer = splits.folds[fold]
    tested = []
    for inner in range(FOLDS):
        partition = splits.partition(fold, 0.25, groups, inner)
        everything = partition.labeled + partition.unlabeled + partition.test
        assert not set(outer.test) & set(everything)
        assert sorted(everything) == sorted(outer.train)
        order = [case for case in outer.train if case not in partition.test]
        assert list(partition.labeled + partition.unlabeled) == order, "labels are given in the fold's order"
        assert partition.labeled
        tested += partition.test
        assert partition == splits.partition(fold, 0.25, groups, inner)
    assert sorted(tested) == sorted(outer.train), "every training case is tested once"


def test_inner_folds_do_not_cut_through_a_group(places):
    dataset = places.dataset("tiny")
    splits = make_splits(dataset)
    fold = splits.folds[0]
    groups = {case: str(number // 2) for number, case in enumerate(fold.train)} | dict.fromkeys(fold.test, "tested")
    message = refusal(lambda: splits.partition(0, 0.25, groups, 0))
    assert "4 groups" in message
    groups |= {fold.train[0]: "first"}
    for inner in range(FOLDS):
        partition = splits.partition(0, 0.25, groups, inner)
        assert not {groups[c] for c in partition.test} & {groups[c] for c in partition.labeled + partition.unlabeled}


def test_every_trial_is_a_run_in_a_folder_of_its_own_where_all_tools_look(places):
    trials = [trial for tried in drawn(3).values() for trial in tried]
    specs = expand(benchmark_of(benchmark(), trials), FOUND)
    folders = {spec.folder.as_posix() for spec in specs}
    assert len(folders) == len(specs) == 3 * (3 * 2 * 2 + 2)
    assert "runs/bcp.02/labels-25/fold-0.inner-1/seed-0" in folders
    assert all(Path(folder, "run.json").match("runs/*/*/*/*/run.json") for folder in folders)
    dataset, splits = check(specs, FOUND, places)
    for spec in specs:
        partition = partition_for(FOUND[spec.implementation], splits, spec, dataset)
        assert not set(splits.folds[0].test) & {*partition.labeled, *partition.unlabeled, *partition.test}


# What is tried


def test_every_method_has_as_many_trials_the_published_setting_first():
    for name, trials in drawn().items():
        published = FOUND[name].Config().model_dump()
        assert len({json.dumps(t.settings) for t in trials}) == len(trials) == 6
        assert [t.number for t in trials] == list(range(6))
        assert all(published[key] == value for key, value in trials[0].variant.config.items())
        assert trials[0].variant.training == {"learning_rate": 0.04, "weight_decay": 1e-4}
        searched = {*FOUND[name].space, "training.learning_rate", "training.weight_decay"}
        assert all(set(t.settings) == searched for t in trials)


def test_a_few_trials_try_every_value_of_every_setting_equally_often():
    """Independent draws may never try the learning rate that a method needs, and so favour another one."""
    for name in ("bcp", "unimatch", "supervised", "mutual_exemplar"):
        trials = draw(name, Variant(name, {}, {}), FOUND[name], COMMON, 8)
        rates = [trial.variant.training["learning_rate"] for trial in trials]
        assert len(set(rates[:4])) == 4, rates
        assert max(rates.count(rate) for rate in rates) <= 3, rates


def test_trials_depend_on_the_name_and_their_number_alone():
    few, many = drawn(3), drawn(9, methods=["bcp", "supervised", "fully_supervised", "ict"], labels=[0.5])
    for name, trials in few.items():
        assert many[name][:3] == trials
    assert drawn(12)["supervised"] != [replace(t, method="supervised") for t in drawn(12)["fully_supervised"]]


def test_a_small_space_is_tried_completely():
    assert len(drawn(1000)["supervised"]) == 4 * 3
    assert len(drawn(1000)["ict"]) == 4 * 3 * 4 * 2 * 2


def test_what_the_benchmark_says_of_a_method_is_kept_in_all_trials():
    entry = {"ict": {"alpha": 0.7, "training": {"weight_decay": 0.0}}}
    trials = drawn(8, methods=[entry])["ict"]
    assert {(t.settings["alpha"], t.settings["training.weight_decay"]) for t in trials} == {(0.7, 0.0)}
    assert len({t.settings["training.learning_rate"] for t in trials}) > 1


def test_a_space_of_what_is_no_setting_is_refused_by_name():
    misspelt = type("Misspelt", (FOUND["ict"],), {"space": {"alhpa": (1,)}})
    variant = benchmark().variants()["ict"]
    assert "alhpa" in refusal(lambda: draw("ict", variant, misspelt, COMMON, 2))


# What is chosen


def tried(*means):
    """Trials with these means; None has diverged."""
    trials = drawn(len(means), methods=["bcp"])["bcp"]
    return [
        Outcome(trial, {}, {"a": "diverged"}, {}) if mean is None else Outcome(trial, {"a": mean, "b": mean}, {}, {})
        for trial, mean in zip(trials, means, strict=True)
    ]


@pytest.mark.parametrize(("means", "best"), [
    ((0.5, 0.6, 0.4), 1), ((0.5, 0.5, 0.5), 0), ((0.4, 0.5, 0.5), 1), ((None, 0.2, 0.1), 1), ((0.2, None, None), 0),
])  # fmt: skip
def test_the_best_mean_is_chosen_and_the_published_one_of_equals(means, best):
    assert choose(tried(*means)).trial.number == best


def test_nothing_is_chosen_before_all_trials_are_done_or_if_all_have_failed():
    some = tried(0.5, 0.6)
    assert choose([some[0], replace(some[1], missing={"a": "left"})]) is None
    assert choose(tried(None, None)) is None
    assert record({"bcp": tried(None, None)}) == {"methods": [], "trials": {}}


def test_a_trial_that_diverged_is_done_and_one_that_lacked_something_is_not(places):
    trials = drawn(1, methods=["supervised"])["supervised"]
    specs = expand(benchmark_of(benchmark(methods=["supervised"], labels=[0.25]), trials), FOUND)
    data = check(specs, FOUND, places)
    for run, diverged in zip(survey(specs, places, FOUND, data), (True, False), strict=True):
        run.folder.mkdir(parents=True)
        content = {"status": "failed", "reason": "why", "diverged": diverged, "identity": run.identity.record()}
        (run.folder / "run.json").write_text(json.dumps(content))
    (outcome,) = outcomes(trials, survey(specs, places, FOUND, data))
    assert outcome.failed == {"labels-25/fold-0.inner-0/seed-0": "why"}
    assert outcome.missing == {"labels-25/fold-0.inner-1/seed-0": "failed: why"}
    other = [spec.model_copy(update={"training": COMMON.model_copy(update={"steps": 3})}) for spec in specs]
    assert not any(run.diverged for run in survey(other, places, FOUND, data)), "other settings may go well"


# What is done with it


@pytest.fixture
def with_tuned(tmp_path):
    def write(chosen, **changes):
        (tmp_path / "tuned").mkdir(exist_ok=True)
        (tmp_path / "tuned" / "chosen.yaml").write_text(yaml.safe_dump({"methods": chosen, "trials": {}}))
        content = benchmark().model_dump(mode="json") | {"tuned": "chosen"} | changes
        (tmp_path / "b.yaml").write_text(yaml.safe_dump(content))
        return load_benchmark(tmp_path / "b.yaml", {})

    return write


BCP = {"bcp": {"box": 0.5, "pseudo": 1.0, "training": {"learning_rate": 0.01}}}


def test_a_benchmark_has_the_tuned_settings_its_own_first_and_variants_none(with_tuned, places):
    methods = ["supervised", {"bcp": {"pseudo": 0.7}}, {"bcp_published": {"method": "bcp"}}]
    settings = with_tuned([BCP], methods=methods)
    resolved = resolve(settings, FOUND)
    specs = {spec.method: spec for spec in expand(resolved, FOUND)}
    assert (specs["bcp"].config["box"], specs["bcp"].config["pseudo"]) == (0.5, 0.7)
    assert specs["bcp"].training == COMMON.model_copy(update={"learning_rate": 0.01})
    assert specs["bcp_published"].config == FOUND["bcp"].Config().model_dump()
    assert specs["bcp_published"].training == specs["supervised"].training == COMMON
    assert settings.untuned() == resolved.untuned() == ["supervised", "bcp_published"]
    write_benchmark(resolved, places.results)
    kept = load_benchmark(places.results / "benchmark.yaml", {})
    assert kept == resolved == resolve(kept, FOUND)
    assert yaml.safe_load((places.results / "benchmark.yaml").read_text())["methods"][1] == {
        "bcp": {"box": 0.5, "pseudo": 0.7, "training": {"learning_rate": 0.01}}
    }


def test_what_begins_otherwise_than_its_trials_is_not_called_tuned(with_tuned):
    (entry,) = ({"bcp": of | {"start": "local_discrimination"}} for of in BCP.values())
    settings = with_tuned([entry], methods=["supervised", "bcp"])
    assert settings.untuned() == ["supervised", "bcp"]
    assert settings.variants()["bcp"].config == {}
    same = with_tuned([entry], methods=["supervised", {"bcp": {"start": "local_discrimination"}}])
    assert same.untuned() == ["supervised"]
    assert same.variants()["bcp"].config == {"box": 0.5, "pseudo": 1.0}


def test_a_benchmark_in_a_folder_of_its_own_finds_what_was_tuned_in_the_folder_above(with_tuned, tmp_path, monkeypatch):
    with_tuned([BCP])
    (tmp_path / "own").mkdir()
    (tmp_path / "b.yaml").rename(tmp_path / "own" / "b.yaml")
    monkeypatch.chdir(tmp_path / "own")
    for file in (tmp_path / "own" / "b.yaml", Path("b.yaml")):
        assert load_benchmark(file, {}).variants()["bcp"].config["box"] == 0.5
    (tmp_path / "own" / "tuned").mkdir()
    (tmp_path / "own" / "tuned" / "chosen.yaml").write_text(yaml.safe_dump({"methods": [{"bcp": {"box": 0.6}}]}))
    assert load_benchmark(Path("b.yaml"), {}).variants()["bcp"].config["box"] == 0.6, "its own folder goes first"


def test_methods_that_all_stands_for_or_the_command_names_are_tuned_too(with_tuned):
    for changes, extra in (({"methods": ["all"]}, ()), ({"methods": ["supervised"]}, ("bcp",))):
        specs = expand(resolve(with_tuned([BCP], **changes), FOUND, extra), FOUND)
        assert {spec.config["box"] for spec in specs if spec.method == "bcp"} == {0.5}


def test_a_tuned_file_that_cannot_be_used_is_refused_in_one_line(with_tuned, tmp_path):
    assert "nothing.yaml" in refusal(lambda: with_tuned([BCP], tuned="nothing"))
    assert "../b" in refusal(lambda: with_tuned([BCP], tuned="../b"))
    assert "tuned.methods" in refusal(lambda: with_tuned("bcp"))
    settings = with_tuned([{"bcp": {"method": "ict"}}])
    assert "'bcp' is bcp here and ict in tuned/chosen.yaml" in refusal(lambda: resolve(settings, FOUND))


def test_results_name_the_commit_of_the_tuned_file(with_tuned, tmp_path):
    assert with_tuned([BCP]).tuned.commit == ""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "tuned"], ["commit", "-qm", "Choose"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert with_tuned([BCP]).tuned.commit == head
    assert with_tuned([{"bcp": {"box": 0.6}}]).tuned.commit == f"{head}-modified"


def test_tables_name_the_states_of_the_tuned_file_that_runs_had_not_that_of_the_last_command(with_tuned):
    settings = resolve(with_tuned([BCP], methods=["supervised", "bcp"], inner_folds=[]), FOUND)
    entries = [SimpleNamespace(name=name, title=name.upper()) for name in ("supervised", "bcp")]
    kept = []
    for commit in ("a" * 40, "b" * 40 + "-modified", ""):
        tuned = settings.tuned.model_copy(update={"commit": commit})
        settings = settings.model_copy(update={"tuned": tuned})
        kept += [s.model_dump(mode="json") for s in expand(settings, FOUND)]
    assert {spec["tuned"] for spec in kept if spec["method"] == "supervised"} == {None}, "nothing was tuned for it"

    def said(specs):
        runs = [SimpleNamespace(method=spec["method"], record={"spec": spec}) for spec in specs]
        newest = settings.model_copy(update={"tuned": settings.tuned.model_copy(update={"commit": "e" * 40})})
        return choices(
            SimpleNamespace(finished=runs, own=runs, settings=newest, record=runs[0].record, inner=False), entries
        )[0]

    assert "(tuned/chosen.yaml, not committed; commit aaaaaaaaaaaa; commit bbbbbbbbbbbb, modified since)" in said(kept)
    older = [{key: value for key, value in spec.items() if key != "tuned"} for spec in kept]
    assert "(tuned/chosen.yaml, commit eeeeeeeeeeee)" in said(older), "which do not tell"
    assert "commit aaaaaaaaaaaa; some runs do not tell)" in said([*kept[:2], *older])


def test_the_commit_of_a_tuned_file_makes_no_run_another_one(with_tuned, places):
    settings = with_tuned([BCP], methods=["bcp"], inner_folds=[])
    (spec, *_) = expand(settings, FOUND)
    again = spec.model_copy(update={"tuned": "a" * 40})
    earlier = identify(spec, FOUND["bcp"], None, None).record()
    assert not identify(again, FOUND["bcp"], None, None).differences(earlier)
    assert "tuned" not in earlier["settings"]


@pytest.mark.parametrize(("training", "word"), [
    ({"steps": 3}, "steps"), ({"labeled_batch": 4}, "labeled_batch"), ({"size": [8, 8]}, "size"),
    ({"precision": "bfloat16"}, "precision"), (["learning_rate"], "key: value"),
])  # fmt: skip
def test_what_would_make_a_comparison_unequal_is_refused(training, word):
    message = refusal(lambda: expand(benchmark(methods=[{"bcp": {"training": training}}]), FOUND))
    assert word in message
    assert "all else is the benchmark's" in message


def test_a_learning_rate_of_a_methods_own_is_validated():
    settings = benchmark(methods=[{"bcp": {"training": {"learning_rate": -1}}}])
    assert "training of method bcp: learning_rate" in refusal(lambda: expand(settings, FOUND))


def test_runs_beside_those_asked_for_may_have_a_learning_rate_of_their_own(places):
    """A benchmark that is carried out fold by fold must not take its own earlier runs for other ones."""
    own = {"bcp": {"training": {"learning_rate": 0.01}}}
    earlier = expand(benchmark(methods=["supervised", own], labels=[0.25]), FOUND)
    data = check(earlier, FOUND, places)
    for run in survey(earlier, places, FOUND, data):
        run.folder.mkdir(parents=True)
        content = {"status": "finished", "spec": run.spec.model_dump(mode="json"), "identity": run.identity.record()}
        (run.folder / "run.json").write_text(json.dumps(content))

    def stale(**changes):
        settings = benchmark(folds=[1], labels=[0.25], **changes)
        beside = strays(settings, expand(settings, FOUND), places, FOUND, data)
        assert len(beside) == 4
        return {run.spec.method for run in beside if run.status == "stale"}

    assert stale(methods=["supervised", own]) == set()
    assert stale(methods=["supervised"]) == set()
    assert stale(methods=["supervised", "bcp"]) == {"bcp"}
    assert stale(methods=["supervised", {"bcp": {"box": 0.5} | own["bcp"]}]) == {"bcp"}
    assert stale(methods=["supervised", own], training=COMMON.model_dump() | {"learning_rate": 0.5}) == {"supervised"}
    assert stale(methods=["supervised"], training=COMMON.model_dump() | {"steps": 3}) == {"supervised", "bcp"}


def test_tables_say_whose_learning_rate_differs_and_where_settings_come_from(with_tuned):
    settings = resolve(with_tuned([BCP], methods=["supervised", "bcp"], inner_folds=[]), FOUND)
    runs = [
        SimpleNamespace(method=s.method, record={"spec": s.model_dump(mode="json")}) for s in expand(settings, FOUND)
    ]
    entries = [SimpleNamespace(name=name, title=name.upper()) for name in ("supervised", "bcp")]
    results = SimpleNamespace(finished=runs, own=runs, settings=settings, record=runs[0].record, inner=False)
    chosen, rates = choices(results, entries)
    assert chosen == "Settings chosen by equal trials (tuned/chosen.yaml, not committed); not tuned: SUPERVISED."
    assert rates.startswith("Trained with learning rate 0.04, ")
    assert rates.endswith("except: BCP learning rate 0.01.")
    for run in runs:  # as older ones, which do not tell
        del run.record["spec"]["tuned"]
    for commit, words in (
        ("a" * 40, "commit aaaaaaaaaaaa)"),
        ("a" * 40 + "-modified", "aaaaaaaaaaaa, modified since)"),
    ):
        tuned = settings.tuned.model_copy(update={"commit": commit, "dataset": settings.dataset})
        results.settings = settings.model_copy(update={"tuned": tuned})
        chosen, here, _ = choices(results, entries)
        assert words in chosen
        assert here.startswith("They were chosen on these data")
    own = {"bcp": {"pseudo": 0.7, "box": 0.5, "pretraining": 0.25, "training": {"learning_rate": 0.02}}}
    results.settings = resolve(with_tuned([BCP], methods=["supervised", own], inner_folds=[]), FOUND)
    _, overridden, _ = choices(results, entries)
    assert overridden == (
        "Not as tuned: BCP pseudo 0.7 instead of 1, pretraining 0.25, learning rate 0.02 instead of 0.01."
    )
    for name, digest in (("tiny", ""), ("of_another_name", "d1")):  # of the data that runs have, whatever their name
        runs[0].record["data"] = {"hash": "d1"}
        tuned = settings.tuned.model_copy(update={"dataset": name, "data_hash": digest})
        results.settings = settings.model_copy(update={"tuned": tuned, "dataset": "tiny"})
        assert choices(results, entries)[1].startswith("They were chosen on these data")
    results.settings = settings.model_copy(update={"tuned": tuned.model_copy(update={"data_hash": "d2"})})
    assert len(choices(results, entries)) == 2
    results.finished = runs[:1]
    results.settings = settings.model_copy(update={"tuned": None})
    assert choices(results, entries) == []


def test_tables_say_whose_rate_and_steps_are_their_own_under_a_protocol_and_captions_those_of_all():
    settings = benchmark().model_dump(mode="json", exclude={"folds", "inner_folds"}) | {
        "methods": ["supervised", {"bcp": {"training": {"decay_every": None, "poly_power": 0, "steps": 9}}}],
        "protocol": {"test": "test"},
        "training": COMMON.model_dump() | {"decay_every": 5},
    }
    settings = BenchmarkSettings.model_validate(settings)
    runs = [
        SimpleNamespace(method=s.method, record={"spec": s.model_dump(mode="json")}) for s in expand(settings, FOUND)
    ]
    entries = [SimpleNamespace(name=name, title=name.upper()) for name in ("supervised", "bcp")]
    results = SimpleNamespace(finished=runs, own=runs, settings=settings, record=runs[-1].record, inner=False)
    (rates,) = choices(results, entries)
    assert rates.endswith("poly power 0.9, decay every 5, except: BCP poly power 0, decay every none, steps 9.")
    assert f", {COMMON.steps} training steps" in budget(results), "the first run's own steps are not those of all"


def test_what_could_have_been_tried_is_no_part_of_a_methods_identity():
    code = "class A(Method):\n    x = 1\n    space: ClassVar = {'a': (1, 2),\n        'b': (3,)}\n"
    assert without_comments(code) == without_comments("class A(Method):\n    x = 1\n")
    assert without_comments(code.replace(": ClassVar", "")) == without_comments(code), "annotated or not"
    assert (
        "space"
        in without_comments("space: dict = {}\nclass A:\n    def f(self):\n        space = {}\n").partition("class")[2]
    )
