"""Settings: what a benchmark file may say, and one line for everything it may not."""

import subprocess
import sys

import pytest
import yaml

from semiseg.errors import UserError
from semiseg.labels import read_labels
from semiseg.settings import BenchmarkSettings, RunSpec, TrainingSettings, Variant, load_benchmark
from semiseg.validation import validate

MINIMAL = "dataset: tiny\nmethods: [supervised]\n"


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return path

    return write


def refusal(path, overrides=None):
    with pytest.raises(UserError) as error:
        load_benchmark(path, overrides or {})
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value) or "--set" in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "value"), [("5%", 0.05), ("0.05", 0.05), (" 20 % ", 0.2), (1, 1), (0.5, 0.5), ("100%", 1)]
)
def test_fractions_are_read_as_people_write_them(text, value):
    assert read_labels(text) == value


@pytest.mark.parametrize("value", [0, 1.01, -0.1, "0%", "101%", "five", "", None, [], "nan", float("nan"), "inf"])
def test_fractions_that_are_none_are_refused(value):
    with pytest.raises(ValueError, match="fraction"):
        read_labels(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("3 patients", "3 patients"), ("3 patient", "3 patients"), (" 1 Patient ", "1 patient"), ("10cases", "10 cases")],
)
def test_counts_of_labels_are_read_as_people_write_them(text, value):
    assert read_labels(text) == value
    assert read_labels(value) == value


@pytest.mark.parametrize("value", ["0 patients", "3", 3, "2.5 patients", "-1 patients", "patients", "3 4"])
def test_counts_that_are_none_are_refused_and_nothing_else_is_taken_for_one(value):
    with pytest.raises(ValueError, match=r"3 patients|above 0"):
        read_labels(value)


@pytest.mark.parametrize("value", [pytest.param("0.0000001", id="rounds to 0"), pytest.param(True, id="a truth value")])
def test_fractions_that_only_look_right_are_refused(value):
    with pytest.raises(ValueError, match="fraction"):
        read_labels(value)


def test_a_minimal_file_is_named_after_itself(written):
    settings = load_benchmark(written(MINIMAL), {})
    assert settings.name == "mine"
    assert settings.labels == (0.05, 0.2, 0.5)
    assert settings.folds == (0, 1, 2, 3, 4)


def test_repeats_number_their_folds_on(written):
    assert load_benchmark(written(MINIMAL + "repeats: 3"), {}).folds == tuple(range(15))
    assert load_benchmark(written(MINIMAL), {"repeats": 2}).folds == tuple(range(10))
    assert load_benchmark(written(MINIMAL + "repeats: 2\nfolds: [0, 7]"), {}).folds == (0, 7)


BAD = {
    "not yaml": ("labels: [", "not valid YAML"),
    "a date that there is not": (MINIMAL + "tuned: 2024-13-45", "not valid YAML"),
    "not a mapping": ("- one\n- two", "mapping"),
    "empty": ("", "mapping"),
    "labels of 0": (MINIMAL + "labels: [0]", "above 0"),
    "labels above 1": (MINIMAL + "labels: [150%]", "at most at 1"),
    "unknown key": (MINIMAL + "label: [5%]", "unknown key 'label'"),
    "unknown training key": (MINIMAL + "training: {step: 5}", "unknown key 'training.step'"),
    "no data set": ("methods: [supervised]", "dataset"),
    "no methods": ("dataset: tiny\nmethods: []", "methods"),
    "fold 5": (MINIMAL + "folds: [5]", "folds: 5 should lie below 5, since repeats is 1"),
    "fold beyond the repeats": (MINIMAL + "repeats: 2\nfolds: [9, 10]", "folds: 10 should lie below 10"),
    "no repeats": (MINIMAL + "repeats: 0", "repeats"),
    "no steps": (MINIMAL + "training: {steps: 0}", "steps"),
    "text for a number": (MINIMAL + "training: {steps: many}", "steps"),
    "size of one axis": (MINIMAL + "training: {size: [32]}", "[height, width]"),
    "precision": (MINIMAL + "training: {precision: float16}", "precision"),
    "name with a slash": (MINIMAL + "name: a/b", "name: 'a/b' cannot name a folder; use letters, digits, _ . -"),
    "listed twice": ("dataset: tiny\nmethods: [a, {a: {x: 1}}]", "twice"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_a_bad_file_is_refused_in_one_line(written, text, message):
    path = written(text)
    if message == "twice":
        with pytest.raises(UserError, match="listed twice"):
            load_benchmark(path, {}).variants()
        return
    assert message in refusal(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    assert "No such file" in refusal(tmp_path / "absent.yaml")
    assert "cannot be read" in refusal(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "binary.yaml" in refusal(tmp_path / "binary.yaml")


@pytest.mark.parametrize("line", ["labels: []", "folds: []", "seeds: []"])
def test_a_benchmark_without_runs_is_refused(written, line):
    refusal(written(MINIMAL + line))


@pytest.mark.parametrize(
    "line", ["labels: [5%, 0.05]", "labels: [3 patients, 3 groups]", "folds: [0, 0]", "seeds: [1, 1]"]
)
def test_a_value_listed_twice_is_refused(written, line):
    refusal(written(MINIMAL + line))


@pytest.mark.parametrize("name", ["a/b", "../a", "", "a b"])
def test_the_name_of_a_variant_must_be_a_folder_name(written, name):
    with pytest.raises(UserError):
        load_benchmark(written(f"dataset: tiny\nmethods: [{{'{name}': {{method: supervised}}}}]"), {}).variants()


def test_overrides_reach_the_setting_they_name(written):
    path = written(MINIMAL + "training: {steps: 5, learning_rate: 0.2}")
    settings = load_benchmark(path, {"training.steps": 7, "network": "vnet", "training.size": [8, 8]})
    assert (settings.training.steps, settings.training.learning_rate) == (7, 0.2)
    assert (settings.network, settings.training.size) == ("vnet", (8, 8))
    assert load_benchmark(written(MINIMAL), {"training.steps": 7}).training.steps == 7


def test_an_override_of_an_unknown_key_is_refused(written):
    path = written(MINIMAL)
    assert "unknown key 'training.step'" in refusal(path, {"training.step": 5})
    assert "unknown key 'steps'" in refusal(path, {"steps": 5})
    assert "not a group" in refusal(path, {"network.depth": 5} | {"dataset.x": 1})


def test_variants_name_their_method(written):
    path = written("dataset: tiny\nmethods: [supervised, {slow: {method: mean_teacher, ema_decay: 0.9}}, {cps: null}]")
    assert load_benchmark(path, {}).variants() == {
        "supervised": Variant("supervised", {}, {}),
        "slow": Variant("mean_teacher", {"ema_decay": 0.9}, {}),
        "cps": Variant("cps", {}, {}),
    }


@pytest.mark.parametrize(
    ("labels", "folder"),
    [
        (0.05, "labels-05"),
        (0.2, "labels-20"),
        (1, "labels-100"),
        (0.07, "labels-07"),
        (0.125, "labels-12.5"),
        (0.005, "labels-0.5"),
        ("3 patients", "labels-3-patients"),
        ("1 patient", "labels-1-patient"),
        ("10 cases", "labels-10-cases"),
    ],
)
def test_a_run_lives_where_the_results_layout_says(labels, folder):
    spec = RunSpec(benchmark="b", dataset="d", method="m", implementation="m", config={}, labels=labels, fold=3, seed=7,
                   network="unet", weights=None, training=TrainingSettings())  # fmt: skip
    assert spec.folder.as_posix() == f"runs/m/{folder}/fold-3/seed-7"
    assert RunSpec.model_validate(spec.model_dump(mode="json")) == spec


def test_settings_survive_a_round_trip_through_yaml(written):
    settings = load_benchmark(written(MINIMAL + "labels: [5%, 0.3]\ntraining: {size: [8, 16, 16]}"), {})
    again = load_benchmark(written(yaml.safe_dump(settings.model_dump(mode="json"))), {})
    assert again == settings


def test_all_problems_of_a_file_are_named_at_once():
    with pytest.raises(UserError) as error:
        validate(BenchmarkSettings, {"dataset": 5, "methods": ["a"], "labels": [2], "folds": [9]}, "here")
    assert all(word in str(error.value) for word in ("here", "name", "dataset", "labels", "folds"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("methods: supervised", "methods: Input should be a list: [a, b]."),
        ("methods: []", "methods: List should have at least 1 item, not 0."),
        ("methods: [3]", "methods.0: Input should be a valid string, and a number is one in quotes; "
                         "methods.0: Input should be a valid dictionary."),
        ("labels: [2]", "labels.0: a fraction of labels lies above 0 and at most at 1 (100%), not 2; of a count say "
                        "what is counted: 3 patients, 10 cases."),
        ("folds: [-1]", "folds.0: Input should be greater than or equal to 0."),
        ("labels: []\nrepeats: 0", "labels: List should have at least 1 item, not 0; "
                                   "repeats: Input should be greater than or equal to 1."),
    ],
)  # fmt: skip
def test_what_a_mistake_brings_about_is_no_second_mistake(written, line, said):
    path = written(yaml.safe_dump(yaml.safe_load(MINIMAL) | yaml.safe_load(line)))
    assert refusal(path) == f"{path}: {said}"


def test_a_benchmark_in_any_script_can_be_read_where_the_locale_is_plain_c(tmp_path):
    path = tmp_path / "vergleich.yaml"
    path.write_text("name: größe\ndataset: phantom\nmethods: [supervised]\n", encoding="utf-8")
    code = f"""
from pathlib import Path
from semiseg.settings import load_benchmark
load_benchmark(Path({str(path)!r}), {{}})
"""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PATH": ""}
    ended = subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("key", "value"), [("dataset", "../x"), ("method", "../x"), ("benchmark", "a/b"), ("dataset", "")]
)
def test_a_run_from_elsewhere_cannot_choose_a_path(key, value):
    spec = {"benchmark": "b", "dataset": "d", "method": "m", "implementation": "m", "config": {}, "labels": 0.05,
            "fold": 0, "seed": 0, "network": "unet", "weights": None, "training": {}}  # fmt: skip
    validate(RunSpec, spec, "run.json")
    with pytest.raises(UserError, match=rf"^run\.json: {key}: "):
        validate(RunSpec, spec | {key: value}, "run.json")


def test_a_benchmark_cannot_read_data_from_elsewhere(written):
    with pytest.raises(UserError, match=r"dataset: '\.\./x' cannot be the name of a file; use a readable name"):
        load_benchmark(written("dataset: ../x\nmethods: [a]\n"), {})


def test_one_entry_may_have_the_strong_augmentation(written):
    text = "dataset: tiny\nmethods: [supervised, {strong: {method: supervised, training: {augmentation: strong}}}]"
    settings = load_benchmark(written(text), {})
    trainings = {name: settings.training_of(name, variant) for name, variant in settings.variants().items()}
    assert {name: t.augmentation for name, t in trainings.items()} == {"supervised": "customary", "strong": "strong"}


def test_steps_may_differ_only_where_some_methods_have_those_of_a_start_besides(written):
    longer = "  - longer: {method: supervised, training: {steps: 60}}\n"
    text = f"dataset: tiny\nmethods:\n  - supervised\n{longer}"
    with pytest.raises(UserError, match="all else is the benchmark's"):
        load_benchmark(written(text), {}).variants()
    started = load_benchmark(written(text + "  - begun: {method: supervised, start: local_discrimination}\n"), {})
    trainings = {name: started.training_of(name, variant) for name, variant in started.variants().items()}
    assert trainings["longer"].steps == 60
    assert trainings["begun"].steps == trainings["supervised"].steps != 60
    alone = load_benchmark(written(text + "starts: [{local_discrimination: {handed: all}}]\n"), {})
    assert alone.variants()["longer"].training == {"steps": 60}


PROTOCOL = "dataset: tiny\nprotocol: {validation: val, selected_on: [validation]}\n"


def test_a_protocol_has_one_fold_and_methods_with_the_steps_that_were_published(written):
    text = PROTOCOL + "methods: [supervised, {bcp: {training: {steps: 40, decay_every: 9}}}]\ntraining: {steps: 30}\n"
    settings = load_benchmark(written(text), {})
    assert settings.folds == (0,)
    trainings = {name: settings.training_of(name, variant) for name, variant in settings.variants().items()}
    assert {name: t.steps for name, t in trainings.items()} == {"supervised": 30, "bcp": 40}
    with pytest.raises(UserError, match="all else is the benchmark's"):
        load_benchmark(written(text.replace("protocol:", "# ")), {}).variants()


@pytest.mark.parametrize("also", ["folds: [1]", "repeats: 3", "folds: [0, 1]"])
def test_a_protocol_has_no_folds_of_its_own(written, also):
    with pytest.raises(UserError, match="a protocol's lists make a single fold"):
        load_benchmark(written(f"{PROTOCOL}methods: [a]\n{also}\n"), {})
