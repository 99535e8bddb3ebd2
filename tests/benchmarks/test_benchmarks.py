"""From a benchmark file to finished runs: which there are, which are left, and what a dying process costs."""

import json
import os
from pathlib import Path

import pytest

from semiseg.benchmarks.expansion import Selection, expand, resolve, write_benchmark
from semiseg.benchmarks.order import expected_seconds, longest_first
from semiseg.benchmarks.readiness import check
from semiseg.benchmarks.state import Standing, keep, strays, survey
from semiseg.console.running import finish
from semiseg.contract import tiny_dataset
from semiseg.errors import UserError
from semiseg.executors.local import Local
from semiseg.registry import find_methods
from semiseg.settings import BenchmarkSettings, load_benchmark
from semiseg.training.checksums import checksums
from semiseg.training.lease import claim

FOUND = find_methods()
TRAINING = {
    "steps": 2, "size": [16, 16], "labeled_batch": 2, "unlabeled_batch": 2, "log_every": 1, "precision": "float32",
}  # fmt: skip


def benchmark(**changes):
    content = {"name": "b", "dataset": "tiny", "methods": ["supervised", "mean_teacher"], "labels": [0.25, 0.5],
               "folds": [0, 1], "seeds": [0], "network": "unet_small", "training": TRAINING}  # fmt: skip
    return BenchmarkSettings.model_validate(content | changes)


def refusal(call):
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_combination_is_one_run_in_a_folder_of_its_own(places):
    specs = expand(benchmark(seeds=[0, 1]), FOUND)
    assert len({spec.folder for spec in specs}) == len(specs) == 2 * 2 * 2 * 2
    first = [(s.method, s.labels) for s in specs[:4]]
    assert first == [("supervised", 0.25), ("mean_teacher", 0.25), ("supervised", 0.5), ("mean_teacher", 0.5)]
    assert {(s.fold, s.seed) for s in specs[:4]} == {(0, 0)}, "a fold is complete before the next one begins"


def test_the_upper_bound_is_trained_once_per_fold_with_all_labels(places):
    specs = [
        s for s in expand(benchmark(methods=["fully_supervised", "supervised"]), FOUND) if s.method != "supervised"
    ]
    assert [(s.labels, s.fold) for s in specs] == [(1.0, 0), (1.0, 1)]
    selected = expand(benchmark(methods=["fully_supervised"]), FOUND, Selection(labels=(0.5,)))
    assert [s.labels for s in selected] == [1.0, 1.0]


def test_all_means_every_method_found_that_needs_no_other_data_set(places):
    resolved = resolve(benchmark(methods=["all", {"slow": {"method": "mean_teacher", "ema_decay": 0.9}}]), FOUND)
    segmenting = {name for name, method in find_methods().items() if method.learns == "segmentation"}
    assert {s.method for s in expand(resolved, FOUND)} == segmenting - {"shape_guided"} | {"slow"}
    slow = next(s for s in expand(resolved, FOUND) if s.method == "slow")
    assert (slow.implementation, slow.config["ema_decay"]) == ("mean_teacher", 0.9)
    assert resolve(resolved, FOUND) == resolved


def test_settings_of_all_methods_at_once_are_refused_rather_than_ignored(places):
    for settings in ({"training": {"learning_rate": 0.5}}, {"nonsense": 3}):
        message = refusal(lambda given=settings: resolve(benchmark(methods=[{"all": given}]), FOUND))
        assert "`all` takes no settings" in message


def test_what_is_asked_for_twice_is_one_run(places):
    twice = Selection(("supervised", "supervised"), (0.25, 0.25), (0, 0), (0, 0))
    assert len(expand(benchmark(), FOUND, twice)) == 1


def test_methods_can_be_added_from_the_command_line(places):
    resolved = resolve(benchmark(methods=["supervised"]), FOUND, ("cps",))
    assert {s.method for s in expand(resolved, FOUND, Selection(methods=("cps",)))} == {"cps"}


def test_a_record_names_every_hyper_parameter_even_those_left_at_their_default(places):
    spec = next(s for s in expand(benchmark(), FOUND) if s.method == "mean_teacher")
    assert set(spec.config) == set(find_methods()["mean_teacher"].Config.model_fields)


@pytest.mark.parametrize(("selection", "message"), [
    (Selection(methods=("cps",)), "no methods cps"), (Selection(labels=(0.05,)), "no labels 5 %"),
    (Selection(folds=(4,)), "no folds 4"), (Selection(seeds=(7,)), "no seeds 7"),
])  # fmt: skip
def test_a_selection_of_what_is_not_there_is_refused(places, selection, message):
    assert message in refusal(lambda: expand(benchmark(), FOUND, selection))


def ready(settings, places):
    return check(expand(settings, FOUND), FOUND, places)


def test_unknown_names_are_refused_before_anything_is_written(places):
    assert "unknown method 'nothing'" in refusal(lambda: resolve(benchmark(methods=["nothing"]), FOUND))
    for changes, message in [
        ({"dataset": "nothing"}, "nothing.h5: there is no such data set"),
        ({"network": "nothing"}, "network 'nothing'"),
        ({"network": "unet_3d"}, "3D"),
        ({"weights": "nothing.pth"}, "nothing.pth"),
        ({"training": TRAINING | {"size": [8, 8, 8]}}, "2D images"),
        ({"methods": ["min_max_similarity"], "training": TRAINING | {"labeled_batch": 3}}, "labeled_batch"),
    ]:
        assert message in refusal(lambda c=changes: ready(benchmark(**c), places))
    assert "unknown key 'ema'" in refusal(lambda: expand(benchmark(methods=[{"mean_teacher": {"ema": 1}}]), FOUND))
    assert "ema_decay" in refusal(lambda: expand(benchmark(methods=[{"mean_teacher": {"ema_decay": 2}}]), FOUND))
    assert not places.results.exists()


def test_no_entry_is_called_like_another_method_than_it_is():
    disguised = benchmark(methods=[{"cps": {"method": "mean_teacher"}}])
    assert "'cps' is another method than mean_teacher" in refusal(lambda: resolve(disguised, FOUND))


def test_labels_that_leave_nothing_unlabeled_are_refused(places):
    refusal(lambda: ready(benchmark(labels=[1.0]), places))


def test_a_refused_benchmark_freezes_no_splits(places):
    refusal(lambda: ready(benchmark(network="nothing"), places))
    assert not places.splits.exists()


def stored(places, spec, **content):
    """The run.json of a run, made up."""
    path = places.results / spec.folder / "run.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"spec": spec.model_dump(mode="json"), **content}))
    return path


def standings(settings, places):
    """The standing of every run of a benchmark by its folder."""
    specs = expand(settings, FOUND)
    return {run.spec.folder: run for run in survey(specs, places, FOUND, check(specs, FOUND, places))}


def first(settings, places):
    return next(iter(standings(settings, places).values()))


def finished(places, settings=None):
    """A run that counts as finished; gives the path of its record."""
    run = first(settings or benchmark(), places)
    return stored(places, run.spec, status="finished", identity=run.identity.record())


def test_a_finished_run_of_the_same_identity_is_finished_and_one_made_otherwise_is_stale(places):
    finished(places)
    assert first(benchmark(), places).status == "finished"
    now = first(benchmark(training=TRAINING | {"steps": 3}), places)
    assert (now.status, now.reason) == ("stale", "made with other settings (training.steps)")


def test_how_often_a_training_is_looked_at_does_not_matter(places):
    finished(places)
    assert first(benchmark(training=TRAINING | {"log_every": 7, "checkpoint_every": 9}), places).status == "finished"


@pytest.mark.parametrize(("setting", "value"), [("turns", False), ("crop", {"window": [64, 64]})])
def test_results_from_before_a_setting_existed_count_as_made_with_its_default(places, setting, value):
    path = finished(places)
    content = json.loads(path.read_text())
    del content["identity"]["settings"]["training"][setting]
    path.write_text(json.dumps(content))
    assert first(benchmark(), places).status == "finished"
    assert f"training.{setting}" in first(benchmark(training=TRAINING | {setting: value}), places).reason


def test_a_setting_that_a_method_gains_later_does_not_make_its_results_those_of_other_settings(places):
    settings = benchmark(methods=["mean_teacher"])
    path = finished(places, settings)
    content = json.loads(path.read_text())
    del content["identity"]["settings"]["config"]["noise"]
    path.write_text(json.dumps(content))
    assert first(settings, places).status == "finished"


def test_results_made_on_other_data_or_another_split_are_stale(places):
    finished(places)
    tiny_dataset(places.data / "tiny.h5", 2, kept=set())
    (places.splits / "tiny.json").unlink()
    assert first(benchmark(), places).reason == "made with other data"
    splits = json.loads((places.splits / "tiny.json").read_text())
    splits["folds"][0]["train"].reverse()
    (places.splits / "tiny.json").write_text(json.dumps(splits))
    assert first(benchmark(), places).reason == "made with other data, another split"


def test_results_from_before_runs_had_an_identity_are_stale(places):
    spec = first(benchmark(), places).spec
    stored(places, spec, status="finished")
    assert first(benchmark(), places).reason == "made before runs recorded their code"


def test_stale_runs_that_were_kept_are_finished_until_something_else_changes(places):
    finished(places)
    changed = benchmark(training=TRAINING | {"steps": 3})
    keep([first(changed, places)])
    assert first(changed, places).status == "finished"
    assert first(benchmark(training=TRAINING | {"steps": 4}), places).status == "stale"


def test_scores_that_were_changed_after_the_run_are_not_reported_but_made_again(places):
    path = finished(places)
    path.with_name("cases.csv").write_text("case\n")
    content = json.loads(path.read_text()) | {"checksums": checksums(path.parent)}
    path.write_text(json.dumps(content))
    assert first(benchmark(), places).status == "finished"
    path.with_name("cases.csv").write_text("cas")
    assert first(benchmark(), places).reason == "will be carried out again, because cases.csv was changed after the run"


def test_the_state_of_a_run_is_what_its_record_and_lease_say(places):
    spec = first(benchmark(), places).spec
    assert (first(benchmark(), places).status, first(benchmark(), places).reason) == ("left", "")
    for content, expected in [
        ({"status": "failed", "reason": "no luck"}, ("failed", "no luck")),
        ({"status": "running"}, ("left", "interrupted, will begin anew")),
    ]:
        stored(places, spec, **content)
        assert (first(benchmark(), places).status, first(benchmark(), places).reason) == expected
    (places.results / spec.folder / "checkpoint.safetensors").touch()
    assert first(benchmark(), places).reason == "interrupted, will resume"
    with claim(places.results / spec.folder):
        run = first(benchmark(), places)
        assert run.status == "running"
        assert f"process {os.getpid()}" in run.reason


@pytest.mark.parametrize("content", ["{", "", "[]"])
def test_a_damaged_record_costs_its_run_and_no_more(places, content):
    spec = first(benchmark(), places).spec
    stored(places, spec).write_text(content)
    assert first(benchmark(), places).status == "left"
    assert "run.json is damaged" in first(benchmark(), places).reason


def test_runs_beside_those_that_were_asked_for_are_judged_by_what_all_runs_share(places):
    """Tables would average them."""
    finished(places)
    for settings, expected in [
        (benchmark(folds=[1]), "finished"),
        (benchmark(folds=[1], training=TRAINING | {"steps": 3}), "stale"),
        (benchmark(methods=["cps"], network="enet_small"), "stale"),
    ]:
        specs = expand(settings, FOUND)
        data = check(specs, FOUND, places)
        assert [run.status for run in strays(settings, specs, places, FOUND, data)] == [expected]


def test_a_copy_of_a_run_keeps_nobody_from_going_on(places):
    """No table reads it."""
    finished(places).parent.parent.parent.parent.rename(places.results / "runs/supervised_old")
    settings = benchmark(training=TRAINING | {"steps": 3})
    specs = expand(settings, FOUND)
    assert strays(settings, specs, places, FOUND, check(specs, FOUND, places)) == []


def test_a_run_whose_method_has_other_settings_today_can_be_kept(places):
    settings = benchmark(methods=["mean_teacher"])
    path = finished(places, settings)
    content = json.loads(path.read_text())
    content["spec"]["config"]["forgotten"] = 1
    path.write_text(json.dumps(content))
    others = benchmark(methods=["supervised"])
    specs = expand(others, FOUND)
    data = check(specs, FOUND, places)
    (stray,) = strays(others, specs, places, FOUND, data)
    assert (stray.status, "forgotten" in stray.reason) == ("stale", True)
    keep([stray])
    assert [run.status for run in strays(others, specs, places, FOUND, data)] == ["finished"]


def test_what_another_command_carries_out_with_other_settings_is_refused_before_anything_is_written(places):
    """Both would stand in one table, whose notes say what the later command asked for."""
    run = first(benchmark(), places)
    path = stored(places, run.spec, status="running", identity=run.identity.record())
    other = TRAINING | {"steps": 3}
    with claim(path.parent):
        assert not first(benchmark(), places).otherwise
        for changes in ({"training": other}, {"methods": ["cps"], "training": other}):  # with that run, and without
            for stale in ("refuse", "rerun", "keep"):
                message = refusal(
                    lambda c=changes, s=stale: finish(benchmark(**c), places, Selection(), Local(device="cpu"), s)
                )
                assert "fold-0/seed-0: carried out by process" in message
                assert "made with other settings (training.steps)" in message
    assert not (places.results / "benchmark.yaml").exists()
    assert first(benchmark(training=other), places).status == "left", "once nobody carries it out it begins anew"


def test_repeats_asked_for_later_leave_finished_runs_finished(places):
    finished(places)
    settings = benchmark(repeats=2, folds=[0, 1, 7])
    specs = expand(settings, FOUND)
    data = check(specs, FOUND, places, settings.repeats)
    assert data[1].repeats == 2
    assert {run.spec.fold: run.status for run in survey(specs, places, FOUND, data) if run.status != "left"} == {
        0: "finished"
    }
    assert expand(settings, FOUND, Selection(folds=(7,)))[0].repeat == 1


def test_a_run_of_a_repeat_that_is_frozen_no_more_is_no_traceback(places):
    spec = expand(benchmark(repeats=2, folds=[7]), FOUND)[0]
    check([spec], FOUND, places, 2)
    stored(places, spec, status="finished")
    (places.splits / "tiny.json").unlink()
    settings = benchmark()
    specs = expand(settings, FOUND)
    (stray,) = strays(settings, specs, places, FOUND, check(specs, FOUND, places))
    assert stray.status == "stale"
    assert "fold 7 is not frozen" in stray.reason


def test_long_runs_begin_first_within_a_fold_so_that_the_last_ones_are_short(places):
    specs = expand(benchmark(methods=["supervised", "cps", "mutual_exemplar"], labels=[0.25]), FOUND)
    ordered = [(spec.fold, spec.method) for spec in longest_first(specs, None, FOUND)]
    names = ["mutual_exemplar", "cps", "supervised"]
    assert ordered == [(fold, name) for fold in (0, 1) for name in names]
    measured = [
        Standing(spec, Path(), None, "finished", seconds=s) for spec, s in zip(specs, (9.0, 5.0, 1.0), strict=False)
    ]
    seconds = expected_seconds(specs, measured, FOUND)
    assert [spec.method for spec in longest_first(specs, seconds, FOUND)[:3]] == [
        "supervised",
        "cps",
        "mutual_exemplar",
    ]


def test_what_was_asked_for_is_kept_and_can_be_read_again(places):
    settings = resolve(benchmark(methods=["all"]), FOUND)
    write_benchmark(settings, places.results)
    assert load_benchmark(places.results / "benchmark.yaml", {}) == settings
