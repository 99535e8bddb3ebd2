"""What the result of a run depends on: its settings, data, split, the method's code, and the content of weights."""

import functools
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import semiseg
from semiseg.data.splits import Partition
from semiseg.data.store import Dataset
from semiseg.method import Method
from semiseg.networks import NETWORKS, weights_file
from semiseg.settings import WATCHING, RunSpec, TrainingSettings
from semiseg.source_code import plugin_code, without_comments
from semiseg.tasks import task_kind
from semiseg.training.checksums import file_hash
from semiseg.validation import validate

LATER = ("augmentation", "decay_every")  # settings younger than many results: a default is not recorded
PARTS = {
    "data": "other data",
    "split": "another split",
    "code": "other code of the method or of a network of one's own",
    "weights": "other weights",
    "start": "another start",
    "others": "another data set drawn from",
}
LATER_PARTS = ("start", "others")  # came into being later than many results, and are not recorded where empty
APART = {"benchmark": True, "weights": True, "start": True, "tuned": True}  # has a part of its own, or none
UNKNOWN = "made before runs recorded their code"


@dataclass(frozen=True)
class Identity:
    """Runs of one identity are one run; what differs in any part is never mixed.

    The engine's code, libraries, processor and threads are recorded beside it and do not belong to it.
    """

    settings: dict[str, Any]  # the specification; precision as it is in effect
    data: str = ""  # hash of the data set; this and the next are empty where they cannot be known
    split: str = ""  # hash of the run's cases, in their order
    code: str = ""  # hash of the method's file, of plug-in networks', and of what they import beside the engine
    weights: str = ""  # hash of the file that the encoder starts from
    start: str = ""  # hash of the identity of the run that it starts from
    others: str = ""  # hash of other data sets that the method draws from
    defaults: dict[str, Any] = field(default_factory=dict, compare=False)  # of the settings; no part of the identity

    @property
    def hash(self) -> str:
        """SHA-256 of all parts."""
        return _hash(self._parts())

    def record(self) -> dict[str, Any]:
        """What is written down, beside a run's results and into its checkpoints."""
        return {"hash": self.hash, **self._parts()}

    def _parts(self) -> dict[str, Any]:
        parts = {part: getattr(self, part) for part in PARTS}
        for part in LATER_PARTS:
            if not parts[part]:
                del parts[part]
        return {"settings": self.settings} | parts

    def differences(self, earlier: dict[str, Any]) -> list[str]:
        """In which parts an earlier record differs, in words; none for one of the same identity.

        A setting that the earlier run does not know counts as having had today's default: it came into being since.
        What is unknown of this identity is not compared.
        """
        if not earlier:
            return [UNKNOWN]
        before, now = _flat(earlier.get("settings", {})), _flat(self.settings)
        before = {key: value for key, value in _flat(self.defaults).items() if key in now} | before
        changed = sorted(key for key in now.keys() | before.keys() if before.get(key) != now.get(key))
        others = [words for part, words in PARTS.items() if (own := getattr(self, part)) and own != earlier.get(part)]
        if earlier.get("weights") and not self.weights:
            others.append(PARTS["weights"])
        return ([f"other settings ({', '.join(changed)})"] if changed else []) + others


def made(reasons: list[str]) -> str:
    """Differences as a reason."""
    return ", ".join(r if i or r == UNKNOWN else f"made with {r}" for i, r in enumerate(reasons))


def identify(
    spec: RunSpec,
    method: type[Method] | None,
    dataset: Dataset | None,
    partition: Partition | None,
    start: Identity | None = None,
) -> Identity:
    """The identity of a run; without method, data or partition, as much of it as can be known."""
    settings = spec.model_dump(mode="json", exclude={**APART, "training": set(WATCHING)})
    defaults = {"training": TrainingSettings().model_dump(mode="json")}
    if spec.protocol is None:
        del settings["protocol"]
    for name in LATER:  # a start's hash stands in the records of the runs that began with it
        if settings["training"][name] == defaults["training"][name]:
            del settings["training"][name]
    others = {}
    if method is not None:
        config = validate(method.Config, spec.config, f"settings of method {spec.method}")
        if dataset is not None:
            drawn = {stream.data for stream in method.streams(config)} - {""}
            others = {name: dataset.beside(name).hash for name in sorted(drawn)}
        for name, value in config:
            if isinstance(value, Path):
                settings["config"][name] = file_hash(value)  # what is in a file counts, not where it lies
        defaults["config"] = method.Config().model_dump(mode="json")
    if start is not None:
        settings["start"] = start.settings
    weights = weights_file(spec.network, spec.weights)
    return Identity(
        settings,
        dataset.hash if dataset else "",
        _hash(vars(partition)) if partition else "",
        _code(spec, method, dataset) if method and spec.network in NETWORKS else "",
        file_hash(weights) if weights else "",
        start.hash if start and dataset and partition else "",
        _hash(others) if others else "",
        defaults,
    )


def code_hash(method: type[Method], networks: Iterable[object] = (), task: str | None = None) -> str:
    """SHA-256 of what the code of a method, of plug-in networks and of a task does, wherever it lies.

    Comments do not count. Of `networks`, what names none of a plug-in counts for nothing; so any settings that may name
    one can be given. A task of the engine counts for nothing, as the rest of it.
    """
    own = plugin_code(method)
    beside = {*NETWORKS.code(networks), *(plugin_code(type(task_kind(task))) if task else ())}
    return _hash(sorted(map(without_comments, [*own, *sorted(beside - {*own})])))


def _code(spec: RunSpec, method: type[Method], dataset: Dataset | None) -> str:
    networks = (spec.network, *spec.config.values())
    return code_hash(method, networks, dataset.info.task if dataset else None)


@functools.cache
def engine_hash() -> str:
    """SHA-256 of the engine's own code, recorded beside a result."""
    root = Path(semiseg.__file__).parent
    files = sorted(root.rglob("*.py"))
    return _hash({file.relative_to(root).as_posix(): file.read_text(encoding="utf-8") for file in files})


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
