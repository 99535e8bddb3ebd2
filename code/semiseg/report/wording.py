"""What tables, plots and page say about the data and the runs behind them."""

import re
from collections.abc import Callable, Iterable, Sequence
from math import isnan
from typing import Any

from semiseg.data.splits import FOLDS
from semiseg.labels import Labels, count_of, in_words
from semiseg.report.differing import differing
from semiseg.report.results import Entry, Results
from semiseg.report.summary import fold_scores
from semiseg.settings import OWN_TRAINING, TrainingSettings

SHOWN, LISTED = 12, 3  # characters of a hash, and values, that a footnote has room for
BUDGET = {"steps", "size", "augmentation", "crop"}  # of a training
ROOM = 0.05  # of Dice: with less between the two bounds, a data set cannot tell methods apart

CIRCUMSTANCES = {
    "engine": "code of the engine",
    "semiseg": "semiseg",
    "python": "Python",
    "torch": "torch",
    "numpy": "NumPy",
    "monai": "MONAI",
    "device": "processor",
    "threads": "number of threads",
}


def share_or_number(results: Results) -> str:
    """What is said of labels: a share of the cases, or a number of groups or cases."""
    return "number" if any(map(count_of, results.amounts)) else "share"


def data_name(results: Results) -> str:
    """The data set's title; where it says itself that the data are synthetic, as older runs' do, without that."""
    data = results.record["data"]
    title = str(data["title"])
    return re.sub(r"\s*\(synthetic( data)?\)", "", title, flags=re.IGNORECASE) if data.get("synthetic") else title


def data_title(results: Results) -> str:
    """The data set, and whether it is a made-up one."""
    return data_name(results) + (" (synthetic data)" if results.record["data"].get("synthetic") else "")


def about(results: Results) -> str:
    """What every caption says beside its title: the data, and how much was trained on them."""
    return f"{data_title(results)}, {budget(results)}"


def plot_heading(results: Results) -> str:
    """The same above a plot, which may stand alone, in lines that a narrow one has room for."""
    trained, *seen = _budget(results)
    return "\n".join([data_title(results), trained, *(part.partition(",")[0] for part in seen)])


def told_apart(titles: Sequence[str], names: Sequence[str]) -> list[str]:
    """Titles, with its own name behind each that several share."""
    return [t if titles.count(t) == 1 else f"{t}, {name}" for t, name in zip(titles, names, strict=True)]


def data_source(results: Results) -> list[str]:
    """Whom to cite for the data, and on what terms; empty where runs do not tell."""
    data = results.record["data"]
    told = {"": data.get("citation"), "from ": data.get("source"), "licence: ": data.get("licence")}
    told |= {"masks: ": data.get("masks")}
    facts = "; ".join(f"{what}{value}" for what, value in told.items() if value)
    return [f"Data: {data_title(results)}; {facts}."] if facts else []


def unit_of_distances(results: Results) -> str:
    """Millimetres or pixels; runs from before that was recorded do not tell."""
    return results.record["data"].get("unit") or "mm or pixels"


def budget(results: Results) -> str:
    """Network, training steps, the size at which images are seen, and what of them."""
    return ", ".join(_budget(results))


def _budget(results: Results) -> list[str]:
    """What is trained and how long, and what is seen of the images if not all."""
    training = _training(results)
    trained = str(results.record["spec"]["network"])
    if steps := training.get("steps"):
        size = training.get("size") or ()
        unit = "pixels" if len(size) == 2 else "voxels"
        trained += f", {steps} training steps" + (f" at {' × '.join(map(str, size))} {unit}" if size else "")
    if training.get("augmentation") == "strong":
        trained += ", strong augmentation"
    crop = training.get("crop")
    if not crop:
        return [trained]
    window = " × ".join(map(str, crop["window"]))
    centre = f"central {window} pixels of the images, outside of which structures count as missed"
    return [trained, centre if crop["at"] == "centre" else f"windows of {window} pixels"]


def _training(results: Results) -> dict[str, Any]:
    """The settings of all trainings, but for what a method has of its own.

    They are the benchmark's, unless all runs had others, as kept ones may.
    """
    if not results.settings:
        return _training_of(results.record)
    asked = results.settings.training.model_dump(mode="json")
    younger = TrainingSettings().model_dump(mode="json")  # than some runs, which had what is the default since
    trainings = [younger | training if (training := _training_of(run.record)) else {} for run in results.own]
    shared = {key: value for key, value in trainings[0].items() if all(t.get(key) == value for t in trainings)}
    return asked | {key: shared[key] for key in BUDGET & shared.keys()}


def _training_of(record: dict[str, Any]) -> dict[str, Any]:
    return record["spec"].get("training") or {}


def notes(results: Results, entries: list[Entry] | None = None, spread: bool = True) -> list[str]:
    """What a reader must know to judge a table of these methods (or of all, the best in bold); `spread` explains ±."""
    shown = results.entries if entries is None else entries
    _, seeds = results.grid
    over = results.repeated
    deviation = f"; mean ± standard deviation over the {over}" if over else "; a single training, hence no ±"
    seed_note = f"{len(seeds)} seeds{' averaged within each fold' * (over == 'folds')}" if len(seeds) > 1 else "1 seed"
    grouping = results.record["data"].get("grouping")
    out = [
        f"{data_title(results)}; {count_of_folds(results)}, {seed_note}{deviation if spread else ''}.",
        f"{budget(results)}; "
        + (
            f"folds split by {grouping}."
            if grouping
            else "groups unknown: images of one patient may lie on both sides of a split."
        ),
        *protocol(results),
    ]
    incomplete = _alike(results, shown, share_of)
    if entries is None and any(e.role == "semi-supervised" for e in results.entries):
        out.append(f"Bold: best semi-supervised method{' among complete cells' if incomplete else ''}.")
    if incomplete:
        out.append(f"† {'; '.join(incomplete)}.")
    if kept := _alike(results, shown, kept_because):
        out.append(f"‡ Holds runs that were kept although made otherwise: {'; '.join(kept)}.")
    if differences := differing(results):
        out.append(f"Not comparable: the runs differ in their {'; '.join(differences)}.")
    theirs = dict.fromkeys(run.record["theirs"] for run in results.finished if "theirs" in run.record)
    if theirs:
        out.append(f"Given, not measured here, and never in bold: {'; '.join(theirs)}.")
    chosen = choices(results, shown)
    return [*out, *headroom(results), *chosen, identities(results), *circumstances(results)]


def _alike(results: Results, entries: list[Entry], told: Callable[[Results, str, Labels], str]) -> list[str]:
    """What is told of cells, each thing once, such as "2 of 5 folds at 5 %: BCP, UniMatch"."""
    titles: dict[str, list[str]] = {}
    for labels in results.amounts:
        for entry in entries:
            if words := told(results, entry.name, labels):
                titles.setdefault(f"{words} at {in_words(labels)}", []).append(entry.title)
    return [f"{words}: {', '.join(of)}" for words, of in titles.items()]


def identities(results: Results) -> str:
    """Hashes of data and split, commit and precision of the runs behind a table; of many, a few and how many more."""
    records = [run.record for run in results.own]
    data = [record["data"] for record in records]
    precision = _some(_training_of(record).get("precision") for record in records)
    precision = precision.replace("auto", "left to the machine")  # runs since then record what it chose
    return (
        f"Data {_some(_short(d.get('hash')) for d in data)}; split {_some(_short(d.get('split_hash')) for d in data)}; "
        f"code {_some(_commit(record) for record in records)}; precision {precision}."
    )


def _commit(record: dict[str, Any]) -> str:
    """The commit of the code, or the engine's hash where it was none."""
    commit, _, modified = str(record.get("git_commit") or "").partition("-")
    engine = (record.get("environment") or {}).get("engine")
    return f"{_short(commit)}{' (modified)' if modified else ''}" if commit else f"engine {_short(engine)}"


def _short(value: Any) -> str:
    return str(value or "unknown")[:SHOWN]


def _some(values: Iterable[Any]) -> str:
    distinct = sorted({str(value or "unknown") for value in values})
    more = f" and {len(distinct) - LISTED} more" if len(distinct) > LISTED else ""
    return ", ".join(distinct[:LISTED]) + more


def protocol(results: Results) -> list[str]:
    """Which cases a published protocol gives, and how it would have chosen among the weights."""
    spec = results.record["spec"]
    if not (own := spec.get("protocol")):
        return []
    lists = ", ".join(f"{own[part]} ({part})" for part in ("train", "validation", "test") if own[part])
    out = [f"The fold is the data set's own: its lists {lists}. Scores are those of the last weights."]
    if own["selected_on"]:
        rules = "; ".join(own["selected_on"])
        out.append(
            f"Weights of every {own['every']} steps were compared on the cases of: {rules} (secondary predictors)."
        )
    return out


def choices(results: Results, entries: list[Entry]) -> list[str]:
    """Where the settings come from, if not all are the published ones with one learning rate for all methods."""
    out = []
    if results.inner:
        out.append("Tested on inner folds of the training cases, not on the test cases of the folds.")
    settings = results.settings
    if settings and settings.tuned:
        tuned = settings.tuned
        version = _tuned_versions(results, tuned.commit, settings.untuned())
        untuned = [e.title for e in entries if e.name in settings.untuned()]
        rest = f"; not tuned: {', '.join(untuned)}" if untuned else ""
        out.append(f"Settings chosen by equal trials (tuned/{tuned.name}.yaml, {version}){rest}.")
        if not_as_tuned := _overridden(settings.overridden(), entries):
            out.append(f"Not as tuned: {'; '.join(not_as_tuned)}.")
        hashes = {(run.record.get("data") or {}).get("hash") for run in results.finished}
        if tuned.dataset == settings.dataset or (tuned.data_hash and tuned.data_hash in hashes):
            out.append("They were chosen on these data: test cases of a fold took part, as training cases of others.")
    common = _training(results)
    own = []
    for entry in entries:
        trainings = [_training_of(run.record) for run in results.finished if run.method == entry.name]
        otherwise = []
        for key in settings.own_training if settings else OWN_TRAINING:
            values = sorted({t[key] for t in trainings if key in t and t[key] != common.get(key)}, key=str)
            if values:
                otherwise.append(f"{key.replace('_', ' ')} {' and '.join(map(setting, values))}")
        if otherwise:
            own.append(f"{entry.title} {', '.join(otherwise)}")
    if own:
        told = [key for key in (*OWN_TRAINING, "decay_every") if common.get(key) not in (None, "customary")]
        rates = ", ".join(f"{key.replace('_', ' ')} {setting(common[key])}" for key in told)
        out.append(f"Trained with {rates}, except: {'; '.join(own)}.")
    return out


def _tuned_versions(results: Results, newest: str, untuned: Sequence[str]) -> str:
    """The states of the tuned file that its runs had; where none of them tells, that of the newest command."""
    runs = [run for run in results.finished if run.method not in untuned and "theirs" not in run.record]
    told = [run.record["spec"].get("tuned") for run in runs]
    known = sorted({commit for commit in told if commit is not None})
    unknown = "; some runs do not tell" if known and None in told else ""
    return "; ".join(_version(commit) for commit in known or [newest]) + unknown


def _version(commit: str) -> str:
    digits, _, modified = commit.partition("-")
    return f"commit {digits[:12]}{modified and ', modified since'}" if digits else "not committed"


def _overridden(overridden: dict[str, dict[str, tuple[Any, ...]]], entries: list[Entry]) -> list[str]:
    """What entries set otherwise than was tuned, such as "BCP pretraining 0.25 instead of 0.5, poly power 0"."""
    told = []
    for entry in entries:
        if own := overridden.get(entry.name):
            words = [f"{key.replace('_', ' ')} {' instead of '.join(map(setting, v))}" for key, v in own.items()]
            told.append(f"{entry.title} {', '.join(words)}")
    return told


def setting(value: Any) -> str:
    """A value as a sentence has it."""
    if isinstance(value, float | int) and not isinstance(value, bool):
        return f"{value:g}"
    return "none" if value is None else str(value)


def count_of_folds(results: Results) -> str:
    """How many folds, and of how many partitions if there is more than one."""
    folds, _ = results.grid
    many = f"{len(folds)} {'inner ' * results.inner}fold{'s' if len(folds) > 1 else ''}"
    repeats = 1 if results.inner else len({fold // FOLDS for fold in folds})
    return many + (f" of {repeats} repeats" if repeats > 1 else "")


def headroom(results: Results) -> list[str]:
    """What there is to gain: the upper bound minus the lower bound with the fewest labels, in the folds of both."""
    upper, lower = results.bound("upper bound"), results.bound("lower bound")
    if not upper or not lower:
        return []
    cases = results.cases
    few, most = results.amounts_of(lower.name)[0], results.amounts_of(upper.name)[-1]
    above, below = (
        fold_scores(cases[(cases.method == entry.name) & (cases.labels == labels)])[results.primary.name].droplevel(
            ["method", "labels"]
        )
        for entry, labels in ((upper, most), (lower, few))
    )
    room = round(float((above - below).mean()), 4)  # as it is printed
    if isnan(room):
        return []
    verdict = f"; below {100 * ROOM:g}, this data set cannot tell methods apart" if room < ROOM else ""
    return [f"Headroom: {100 * room:.2f} points from {lower.title} at {in_words(few)} to {upper.title}{verdict}."]


def unequal_splits(results: Results) -> list[str]:
    """Where runs of one fold cannot be paired, since they were not trained and tested on the same cases."""
    splits: dict[tuple[Labels, int], set[str]] = {}
    for (_, labels), runs in results.trained.items():
        for fold, _, split in runs:
            splits.setdefault((labels, fold), set()).add(split)
    unequal: dict[Labels, list[str]] = {}
    for (labels, fold), found in sorted(splits.items(), key=lambda item: item[0][1]):
        if len(found) > 1:
            unequal.setdefault(labels, []).append(results.fold_name(fold))
    told = [f"{in_words(labels)}, fold {', '.join(unequal[labels])}" for labels in results.amounts if labels in unequal]
    return [f"Runs of other splits or test cases are not paired: {'; '.join(told)}."] if told else []


def kept_because(results: Results, method: str, labels: Labels) -> str:
    """In what some run of a cell was made otherwise than it would be now, and was kept; empty if there is none."""
    runs = results.cells.get((method, labels), [])
    reasons = dict.fromkeys(str(kept["because"]) for run in runs if (kept := run.record.get("kept")))
    return "; ".join(reasons)


def circumstances(results: Results) -> list[str]:
    """In what the runs differ that does not make them others, but may show in the last digits."""
    values: dict[str, set[str]] = {}
    for run in results.finished:
        environment = run.record.get("environment") or {}
        for key in CIRCUMSTANCES.keys() & environment.keys():
            values.setdefault(key, set()).add(str(environment[key]))
    differing = [
        f"{name} ({', '.join(sorted(values[key]))})" if key != "engine" else f"{name} ({len(values[key])} states)"
        for key, name in CIRCUMSTANCES.items()
        if len(values.get(key, ())) > 1
    ]
    return [f"Not all runs were made with the same {', '.join(differing)}."] if differing else []


def share_of(results: Results, method: str, labels: Labels) -> str:
    """How much of a cell is there, such as "2 of 5 folds"; empty when all of it, or none."""
    folds, seeds = results.grid
    runs = results.cells.get((method, labels), [])
    if not runs or len(runs) >= len(folds) * len(seeds):
        return ""
    there = len({run.fold for run in runs})
    if there < len(folds):
        return f"{there} of {len(folds)} folds"
    return f"{len(runs)} of {len(folds) * len(seeds)} runs"
