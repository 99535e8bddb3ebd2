"""Validated settings of a benchmark and of its runs, with errors that a person can act on."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from semiseg.data.cropping import Crop
from semiseg.data.protocol import Protocol
from semiseg.data.splits import FOLDS
from semiseg.errors import UserError
from semiseg.history import last_commit
from semiseg.labels import Labels, folder_of, read_labels, same
from semiseg.names import RULE, is_name
from semiseg.validation import validate


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainingSettings(Settings):
    """How every method of a benchmark is trained; the defaults are those of the SSL4MIS family."""

    steps: int = Field(30_000, ge=1)
    size: tuple[int, ...] = (256, 256)  # (height, width), or (depth, height, width) to train in 3D
    crop: Crop | None = None  # what of an image is seen, before it gets that size; all of it by default
    turns: bool = True  # turn and flip by right angles; off where only direction tells classes apart
    augmentation: Literal["customary", "strong"] = "customary"  # of all images, before their views; strong: nnU-Net's
    imaging: Literal["auto", "camera", "scan"] = "auto"  # decides how views alter images; auto: by the channels
    labeled_batch: int = Field(12, ge=1)
    unlabeled_batch: int = Field(12, ge=1)
    learning_rate: float = Field(0.01, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    poly_power: float = Field(0.9, ge=0)
    decay_every: int | None = Field(None, ge=1)  # a tenth of the rate after every so many steps, and no polynomial
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    log_every: int = Field(50, ge=1)
    checkpoint_every: int = Field(500, ge=1)

    @model_validator(mode="after")
    def _size_has_two_or_three_axes(self) -> "TrainingSettings":
        if len(self.size) not in (2, 3) or min(self.size) < 1:
            raise ValueError(f"size {list(self.size)} should be [height, width] or [depth, height, width]")
        if self.crop:
            self.crop.fit(self.size)
        return self


WATCHING = ("log_every", "checkpoint_every")  # no result depends on these
OWN_TRAINING = ("learning_rate", "momentum", "weight_decay", "poly_power", "augmentation")  # may differ between methods
BESIDE_STARTS = (*OWN_TRAINING, "steps")  # likewise, where some have trained longer by the steps of a start
PROTOCOL_TRAINING = (*OWN_TRAINING, "decay_every", "steps", "labeled_batch", "unlabeled_batch")  # likewise, published
START_TRAINING = (*OWN_TRAINING, "steps", "unlabeled_batch")  # what may differ in a pre-training


def folder_name(value: str) -> str:
    """Refuse what is not easily typed, as results are found by it."""
    if not re.fullmatch(r"\w[\w.-]*", value):
        raise ValueError(f"{value!r} cannot name a folder; use letters, digits, _ . - and begin with one of the first")
    return value


def file_name(value: str) -> str:
    """Refuse what would lead to a file elsewhere."""
    if not is_name(value):
        raise ValueError(f"{value!r} cannot be the name of a file; {RULE}")
    return value


def distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse a list that would carry out the same run twice."""
    if len({same(value) for value in values}) < len(values):
        raise ValueError(f"{list(values)} names a value twice")
    return values


Distinct = AfterValidator(distinct)
FileName = Annotated[str, AfterValidator(file_name)]
FolderName = Annotated[str, AfterValidator(folder_name)]
Amount = Annotated[Labels, BeforeValidator(read_labels)]
NONE = 0.0  # the labels of what learns without any


def cell_of(labels: Labels, fold: int, inner: int | None, seed: int) -> Path:
    """The folder below a method's own of a run with these."""
    return Path(folder_of(labels), f"fold-{fold}" + ("" if inner is None else f".inner-{inner}"), f"seed-{seed}")


class RunSpec(Settings):
    """Everything that determines the result of one run, given the data."""

    benchmark: FolderName
    dataset: FileName
    method: FolderName  # the name in tables and folders
    implementation: str  # the plugin; differs from the name for a variant
    config: dict[str, Any]
    labels: Annotated[Labels, BeforeValidator(lambda value: value if value == NONE else read_labels(value))]
    fold: int  # counted on through the repeats
    seed: int
    network: str
    weights: str | None
    training: TrainingSettings
    inner: int | None = None  # tests on this inner fold of the fold's training cases, instead of on its test cases
    start: "StartSpec | None" = None  # the run whose network it starts from; by default its own random one
    protocol: Protocol | None = None  # tests on the data set's own list; by default on a fold
    tuned: str | None = None  # for its record: the commit of the file that tuned it, empty if that is not committed

    @property
    def repeat(self) -> int:
        """Which partition of the data the fold belongs to."""
        return self.fold // FOLDS

    @property
    def folder(self) -> Path:
        """Where the run lives below its benchmark's results."""
        return Path("runs", self.method, self.cell)

    @property
    def cell(self) -> Path:
        """What the run shares with those of other methods: labels, fold and seed."""
        return cell_of(self.labels, self.fold, self.inner, self.seed)


class StartSpec(RunSpec):
    """A pre-training: a run without labels, from which others of its fold and seed start."""

    @property
    def folder(self) -> Path:
        """Where it lies below the results of the benchmark."""
        return Path("starts", self.method, self.cell.relative_to(folder_of(self.labels)))


Entry = str | dict[str, dict[str, Any] | None]  # of `methods`: a name, or {name: settings}


class Variant(NamedTuple):
    """What an entry of `methods` says."""

    implementation: str  # the plugin
    config: dict[str, Any]
    training: dict[str, Any]  # in place of the benchmark's, for this entry alone
    start: str | None = None  # an entry of `starts`, or a start with its own settings

    def entry(self, name: str) -> Entry:
        """The entry as a benchmark file has it."""
        other = {"method": self.implementation} if self.implementation != name else {}
        own = {"training": self.training} if self.training else {}
        settings = {**other, **({"start": self.start} if self.start else {}), **self.config, **own}
        return {name: settings} if settings else name


class Tuned(Settings):
    """What `semiseg tune` chose, as the file was when the benchmark was read."""

    name: FileName
    commit: str = ""  # of the file
    dataset: str = ""  # whose training cases they were chosen on
    data_hash: str = ""  # of these data, which may have another name by now
    methods: tuple[Entry, ...]


class BenchmarkSettings(Settings):
    """What a benchmark file says."""

    name: FolderName
    dataset: FileName
    methods: tuple[Entry, ...] = Field(min_length=1)
    starts: tuple[Entry, ...] = ()  # pre-trainings with settings of their own, which entries of `methods` name
    tuned: Tuned | None = None  # in a file: NAME, for tuned/NAME.yaml beside it or above
    labels: Annotated[tuple[Amount, ...], Field(min_length=1), Distinct] = (0.05, 0.2, 0.5)
    protocol: Protocol | None = None  # of published numbers: the data set's own lists make the only fold
    repeats: int = Field(1, ge=1)  # partitions of the data into folds, each with label draws of its own
    folds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), Distinct] = Field(
        default_factory=lambda known: (0,) if known.get("protocol") else tuple(range(FOLDS * known.get("repeats", 1)))
    )
    inner_folds: Annotated[tuple[Annotated[int, Field(ge=0, le=4)], ...], Distinct] = ()  # none: folds are tested
    seeds: Annotated[tuple[int, ...], Field(min_length=1), Distinct] = (0,)
    network: str = "unet"
    weights: str | None = None  # of a pretrained encoder
    training: TrainingSettings = TrainingSettings()

    @field_validator("folds")
    @classmethod
    def _folds_lie_in_the_repeats(cls, folds: tuple[int, ...], known: ValidationInfo) -> tuple[int, ...]:
        repeats = known.data.get("repeats", 1)
        if beyond := [fold for fold in folds if fold >= FOLDS * repeats]:
            raise ValueError(
                f"{', '.join(map(str, beyond))} should lie below {FOLDS * repeats}, since repeats is {repeats}; "
                f"fold f of repeat r is number {FOLDS} r + f"
            )
        return folds

    @model_validator(mode="after")
    def _a_protocol_has_one_fold(self) -> "BenchmarkSettings":
        if self.protocol and (self.repeats, self.folds) != (1, (0,)):
            raise ValueError("a protocol's lists make a single fold, number 0; leave out folds and repeats")
        return self

    @property
    def own_training(self) -> tuple[str, ...]:
        """Which settings of the training may differ between entries."""
        if self.protocol:
            return PROTOCOL_TRAINING
        entries = [config for entry in self.methods if isinstance(entry, dict) for config in entry.values()]
        return BESIDE_STARTS if self.starts or any("start" in (config or {}) for config in entries) else OWN_TRAINING

    def variants(self, also: Iterable[str] = ()) -> dict[str, Variant]:
        """Every entry of `methods` by name, and the methods in `also`, with what was tuned for these names.

        An entry is a name, or `name: {key: value, ...}`; with a key `method` it is a variant of that method, and with
        a key `training` its learning rate and the like are its own. What an entry says goes before what was tuned.
        """
        variants = _variants(self.methods, f"benchmark {self.name}", self.own_training)
        variants |= {name: Variant(name, {}, {}) for name in also if name not in variants}
        tuned = _variants(self.tuned.methods, f"tuned/{self.tuned.name}.yaml") if self.tuned else {}
        for name in variants.keys() & tuned.keys():
            (implementation, config, training, start), chosen = variants[name], tuned[name]
            if chosen.implementation != implementation:
                raise UserError(
                    f"benchmark {self.name}: {name!r} is {implementation} here and {chosen.implementation} in "
                    f"tuned/{self.tuned and self.tuned.name}.yaml; rename it."
                )
            if chosen.start == start:  # trials that began otherwise say nothing of this entry
                variants[name] = Variant(implementation, chosen.config | config, chosen.training | training, start)
        return variants

    def untuned(self) -> list[str]:
        """Entries that nothing was tuned for, variants of tuned methods too; none where nothing is tuned at all."""
        if self.tuned is None:
            return []
        tuned = _variants(self.tuned.methods, f"tuned/{self.tuned.name}.yaml")
        return [name for name, own in self.variants().items() if name not in tuned or tuned[name].start != own.start]

    def overridden(self) -> dict[str, dict[str, tuple[Any, ...]]]:
        """What tuned entries set otherwise: by entry and key the value, and the one that was tuned, if any was."""
        tuned = _variants(self.tuned.methods, f"tuned/{self.tuned.name}.yaml") if self.tuned else {}
        untuned, out = self.untuned(), {}
        for name, own in self.variants().items():
            if name in tuned and name not in untuned:
                chosen, entry = tuned[name].config | tuned[name].training, own.config | own.training
                set_here = {key: (value, *([chosen[key]] if key in chosen else [])) for key, value in entry.items()}
                out[name] = {key: both for key, both in set_here.items() if len(both) == 1 or both[0] != both[1]}
        return out

    def pretraining(self, name: str) -> Variant:
        """What the benchmark says of a start."""
        variant = self.pretrainings().get(name, Variant(name, {}, {}))
        if variant.start:
            raise UserError(f"benchmark {self.name}, starts: {name!r} begins at random; take its start out.")
        return variant

    def pretrainings(self) -> dict[str, Variant]:
        """Every entry of `starts` by name."""
        return _variants(self.starts, f"benchmark {self.name}, starts", START_TRAINING)

    def training_of(self, name: str, variant: Variant) -> TrainingSettings:
        """How an entry is trained."""
        content = self.training.model_dump() | variant.training
        training: TrainingSettings = validate(TrainingSettings, content, f"training of method {name}")
        return training


def _variants(methods: Iterable[Entry], where: str, own: tuple[str, ...] = OWN_TRAINING) -> dict[str, Variant]:
    variants: dict[str, Variant] = {}
    for entry in methods:
        for name, config in ({entry: None} if isinstance(entry, str) else entry).items():
            config = dict(config or {})
            try:
                folder_name(name)
            except ValueError as error:
                raise UserError(f"{where}: {error}.") from error
            if name in variants:
                raise UserError(f"{where}: {name!r} is listed twice; rename one.")
            implementation, training = config.pop("method", name), config.pop("training", None) or {}
            start = config.pop("start", None)
            if not isinstance(start, str | None):
                raise UserError(f"{where}: the start of {name!r} is a name, not {start!r}; settings go to `starts`.")
            if not isinstance(implementation, str):
                raise UserError(f"{where}: the method of {name!r} is a name, not {implementation!r}.")
            if not isinstance(training, dict) or (others := [str(k) for k in training if k not in own]):
                what = f"not {', '.join(others)}" if isinstance(training, dict) else "as key: value"
                raise UserError(
                    f"{where}: the training of {name!r} may set {', '.join(own)}, {what}; all else is the benchmark's."
                )
            variants[name] = Variant(implementation, config, dict(training), start)
    return variants


def load_benchmark(path: Path, overrides: dict[str, Any]) -> BenchmarkSettings:
    """Read a benchmark file; overrides have dotted keys, such as training.steps."""
    content = _read(path, "give the path of a benchmark file", "name, dataset, methods, …")
    content.setdefault("name", path.stem)
    for key, value in overrides.items():
        override(content, key, value)
    if isinstance(name := content.get("tuned"), str):  # results keep what was in the file
        content["tuned"] = _tuned(path, name)
    return validate(BenchmarkSettings, content, str(path), set(overrides))


def override(content: dict[str, Any], key: str, value: Any) -> None:
    """Put a value where a dotted key says, such as training.crop.window."""
    *parents, last = key.split(".")
    for parent in parents:
        if content.get(parent) is None:  # a group that the file leaves out, or empty
            content[parent] = {}
        content = content[parent]
        if not isinstance(content, dict):
            raise UserError(f"--set {key}: {parent} is not a group of settings.")
    content[last] = value


def _tuned(benchmark: Path, name: str) -> dict[str, Any]:
    """What a benchmark's results keep of the file of tuned settings that it names."""
    if not is_name(name):
        raise UserError(f"{benchmark}: tuned: {name!r} cannot be the name of a file; {RULE}.")
    folders = benchmark.parent, benchmark.absolute().parent.parent  # some benchmarks lie in a folder of their own
    files = [folder / "tuned" / f"{name}.yaml" for folder in folders]
    file = next((file for file in files if file.exists()), files[0])
    content = _read(file, "make it with `semiseg tune`, or leave `tuned` out", "methods, trials, …")
    known = {key: content[key] for key in content.keys() & {"dataset", "data_hash", "methods"}}
    return known | {"name": name, "commit": last_commit(file)}


def tuned_methods(file: Path) -> list[str]:
    """The methods that a file of `semiseg tune` has settings for."""
    content = _read(file, "restore it, or move it away", "methods, trials, …")
    tuned = validate(Tuned, {"name": "tuned", "methods": content.get("methods")}, str(file))
    return list(_variants(tuned.methods, str(file)))


class _Once(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML keeps the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    problem = f"the key {key.value!r} stands twice"
                    raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
                keys.add(key.value)
        return super().construct_mapping(node, deep)


def _read(path: Path, remedy: str, keys: str) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Once)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}.") from error
    except (yaml.YAMLError, ValueError) as error:  # the latter of a date that there is not, or of other bytes than text
        mark = getattr(error, "problem_mark", None)
        problem = " ".join(str(getattr(error, "problem", error)).split())
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise UserError(f"{where}: not valid YAML ({problem}); correct the file.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: should be a mapping with the keys {keys}")
    return content
