"""Everything that a run needs to begin: its cases, its method, its trainer."""

import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from semiseg.data.protocol import OfficialPartition
from semiseg.data.splits import Partition, Splits
from semiseg.data.store import Dataset
from semiseg.errors import UserError
from semiseg.method import Method, Stream, Task
from semiseg.networks import weights_file
from semiseg.registry import Methods
from semiseg.seeding import derive_seed
from semiseg.settings import RunSpec, StartSpec
from semiseg.tasks import DEFAULT
from semiseg.training.evaluation import predict_case
from semiseg.training.failures import out_of_memory, told_in_line
from semiseg.training.identity import Identity, identify
from semiseg.training.sampling import TrainingSet
from semiseg.training.selection import Selection
from semiseg.training.trainer import Trainer
from semiseg.validation import validate


def partition_for(method: type[Method], splits: Splits, spec: RunSpec, dataset: Dataset) -> Partition:
    """The cases of a run; a method that ignores unlabelled images, or labels, does not get any.

    Nobody is tested on an image that is trained on, or that weights are chosen by: where two groups hold the very same
    one, it does not count as a test of the one while the other trains.
    """
    groups = {r.id: r.group for r in dataset.records.values()}
    partition = splits.partition(spec.fold, spec.labels if method.uses_labels else 1.0, groups, spec.inner)
    others = (*partition.labeled, *partition.unlabeled, *getattr(partition, "validation", ()))
    seen = {dataset.records[case].image_hash for case in others}
    test = tuple(case for case in partition.test if dataset.records[case].image_hash not in seen)
    if not test:
        raise UserError(
            f"{dataset.info.name}: every image that fold {spec.fold} tests is trained on under another name; take "
            "copies away, or give them one group."
        )
    partition = replace(partition, test=test)
    if not method.uses_labels:
        return Partition((), (*partition.labeled, *partition.unlabeled), partition.test)
    return partition if method.uses_unlabeled else replace(partition, unlabeled=())


def identity_of(spec: RunSpec, found: Methods, data: tuple[Dataset, Splits] | None) -> Identity:
    """What a run is, and what it starts from; without data or its method, as much of it as can be known."""
    start = identity_of(spec.start, found, data) if spec.start else None
    method = found.get_plugin(spec)
    if data is None or method is None:
        return identify(spec, method, data[0] if data else None, None, start)
    dataset, splits = data
    return identify(spec, method, dataset, partition_for(method, splits, spec, dataset), start)


def build_trainer(
    method_class: type[Method],
    spec: RunSpec,
    dataset: Dataset,
    partition: Partition,
    device: torch.device,
    folder: Path,
    start: Path | None = None,
) -> Trainer:
    """Everything that a run needs to begin."""
    training = spec.training
    data = TrainingSet(
        dataset,
        partition,
        training.size,
        device,
        spec.seed,
        training.labeled_batch,
        training.unlabeled_batch + (0 if method_class.uses_labels else training.labeled_batch),
        method_class.labeled_parts,
        training.crop,
    )
    method = build_method(method_class, spec, dataset, data.unlabeled_steps, start)
    selection = _selection(spec, method.task, dataset, partition, device)
    streams = {
        stream.name: (stream, _drawn_by(stream, spec, dataset, partition, device))
        for stream in method.streams(method.config)
    }
    return Trainer(method, data, training, spec.seed, device, folder, streams, selection=selection)


def other_data(name: str, dataset: Dataset) -> Dataset:
    """Another data set to draw from, all of whose labels are used: so it holds no image of the benchmark's own."""
    other = dataset.beside(name)
    own = {record.image_hash for record in dataset.records.values()}
    if shared := sum(record.image_hash in own for record in other.records.values()):
        raise UserError(
            f"{other.path}: {shared} of its {len(other.records)} images belong to {dataset.info.name}, which is "
            "tested, and all its labels would be learned from; name a data set of other images."
        )
    return other


def _drawn_by(
    stream: Stream, spec: RunSpec, dataset: Dataset, partition: Partition, device: torch.device
) -> TrainingSet:
    """The images of a stream: some of the run's training images, or all cases of another data set."""
    crop, labeled, unlabeled = spec.training.crop, partition.labeled, partition.unlabeled
    if stream.data:
        other = other_data(stream.data, dataset)
        if crop is not None:  # a window shows as much of an image as it does of the benchmark's
            own, theirs = (next(iter(d.records.values())).shape[-len(crop.window) :] for d in (dataset, other))
            window = tuple(round(w * b / a) for w, a, b in zip(crop.window, own, theirs, strict=True))
            crop = crop.model_copy(update={"window": window})
        dataset, labeled, unlabeled = other, tuple(other.annotated), ()
    elif stream.of == "training":
        labeled, unlabeled = (), (*labeled, *unlabeled)
    elif stream.of == "labeled":
        unlabeled = ()
    else:
        labeled = ()
    seed, chosen = derive_seed(spec.seed, "stream", stream.name), Partition(labeled, unlabeled, ())
    batch = (stream.batch, 0) if labeled else (0, stream.batch)
    return TrainingSet(dataset, chosen, spec.training.size, device, seed, *batch, crop=crop)


def _selection(
    spec: RunSpec, task: Task, dataset: Dataset, partition: Partition, device: torch.device
) -> Selection | None:
    """The rules of the run's protocol, if it has any; a start, which has no scores, chooses nothing."""
    protocol = spec.protocol
    if not protocol or not protocol.selected_on or not isinstance(partition, OfficialPartition):
        return None
    if dataset.info.task != DEFAULT:
        raise UserError(
            f"benchmark {spec.benchmark}: protocol.selected_on compares weights by masks, and {dataset.info.name} is "
            f"for {dataset.info.task}; leave it out."
        )

    def predict(network: nn.Module, case: str) -> tuple[np.ndarray, np.ndarray]:
        image, reference = dataset.image(case), dataset.label(case)
        (mask,) = predict_case([network], image, task, device, spec.training.precision)
        return mask, reference

    rules: dict[str, tuple[str, ...]] = {rule: partition.chooses(rule) for rule in protocol.selected_on}
    return Selection(rules, protocol.every, predict, task.classes)


def build_method(
    method: type[Method], spec: RunSpec, dataset: Dataset, unlabeled_steps: int = 1, start: Path | None = None
) -> Method:
    """A method ready to be trained, or a message that says why it cannot be."""
    training, asked = spec.training, dataset.info.task
    if method.learns not in ("", asked) and not isinstance(spec, StartSpec):
        raise UserError(
            f"{spec.implementation} learns {method.learns}, and {dataset.info.name} is for {asked}; `semiseg methods` "
            "says what each method learns."
        )
    if training.labeled_batch % method.labeled_parts:
        raise UserError(
            f"{spec.implementation} needs a labeled_batch that {method.labeled_parts} divides, "
            f"not {training.labeled_batch}."
        )
    if len(training.size) == 3 and not dataset.is_volumetric:
        raise UserError(
            f"{dataset.info.name} holds 2D images; training.size should be [height, width], not {list(training.size)}."
        )
    config = validate(method.Config, spec.config, f"settings of method {spec.method}")
    stride = spec.protocol.stride if spec.protocol else None
    windows = [*zip(stride or (), training.size, strict=False)]
    if stride and (len(stride) != 3 or len(training.size) != 3 or any(not 0 < step <= side for step, side in windows)):
        raise UserError(
            f"benchmark {spec.benchmark}: protocol.stride {list(stride)} does not go with training.size "
            f"{list(training.size)}; it is the distance of windows in 3D, [depth, height, width], at most their size."
        )
    task = Task(
        dataset.channels,
        len(dataset.info.classes),
        training.size,
        spec.network,
        spec.seed,
        weights_file(spec.network, spec.weights),
        start,
        unlabeled_steps,
        crop=training.crop,
        stride=stride,
        turns=training.turns,
    )
    try:
        return method(task, config)
    except UserError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        told = told_in_line(error, Path(inspect.getfile(method)))
        raise UserError(
            f"{spec.implementation} cannot be built (`build` makes parts on the CPU, the trainer moves them): {told}"
        ) from error
