"""Alignment of images with texts: which text belongs to which image, found by ranking all that are tested."""

from collections.abc import Iterable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from semiseg.data.store import Case, Dataset
from semiseg.errors import UserError
from semiseg.metrics import Metric
from semiseg.tasks import Evaluation, TaskKind
from semiseg.texts import REGIONS, STUDY, TEXT, sentences

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from semiseg.data.cropping import Crop
    from semiseg.method import Method

DEPTHS = (1, 5, 10)
DIRECTIONS = ("image to text", "text to image", "sentence to place")
AT_ONCE = 32  # images


class Alignment(TaskKind):
    """Cases have a `text` and a `study`. Class 1 asks for the text of an image, and class 2 for the image of a text.

    A predictor takes images (N, channels, *space) and M texts and gives scores (N, M). If it has `locate`, which takes
    as many sentences as images and gives scores of places (N, *grid), and if cases have `regions`, class 3 asks for the
    place that a sentence tells.

    The rank of a query is one more than the number of wrong answers that score higher (of equal ones, half): all cases
    of a study, and equal texts, are right answers. Beside each recall stands that of a random order. The bound on
    mutual information is that of InfoNCE over all tested pairs, in nats; the logarithm of their number limits it, and
    it is 0 where all scores are equal. Images are seen whole or in their centre, and so are the places in them.
    """

    name = "alignment"
    metrics = (
        *(Metric(f"recall_{k}", f"Recall at {k}", "higher") for k in DEPTHS),
        *(Metric(f"chance_{k}", f"Chance at {k}", "higher", given=True) for k in DEPTHS),
        Metric("rank", "Median rank", "lower", number=True, summary="median"),
        Metric("bound", "MI bound", "higher", number=True),
    )
    notes = (
        "Recall at k: the share of queries with fewer than k wrong answers before the first right one; chance: that "
        "of a random order. MI bound: InfoNCE over all tested pairs, in nats.",
    )
    dims = (2,)
    crops = ("centre",)  # what a text tells may lie outside of windows anywhere
    has_labels = False
    secret = (REGIONS,)
    example_classes = ("background", *DIRECTIONS[:2])

    def evaluate(
        self, method: "Method", dataset: Dataset, cases: Iterable[str], device: "torch.device", precision: str
    ) -> Evaluation:
        """Rank the texts, and the images, of all cases for each of them."""
        import torch

        from semiseg.data.scale import as_trained
        from semiseg.training.precision import autocast

        names, result = list(cases), Evaluation()
        texts, right = [text_of(dataset, case) for case in names], same_study(dataset, names)
        task = method.task
        images = [as_trained(dataset.image(case), task.size, task.crop, device) for case in names]
        for index, (name, predictor) in enumerate(method.predictors().items()):
            predictor.eval()
            with torch.no_grad(), autocast(precision, device, method.task.dims):
                parts = [predictor(torch.cat(images[k : k + AT_ONCE]), texts) for k in range(0, len(names), AT_ONCE)]
                scores = torch.cat(parts).double().cpu().numpy()
                rows = _pairs(dataset, names, scores, right)
                if hasattr(predictor, "locate"):
                    rows += _places(dataset, names, images, predictor, rows[0]["bound"], task.crop)
            if index:
                result.predictors += [{"predictor": name, "networks": 1, **row} for row in rows]
            else:
                result.cases += rows
        return result

    def example(self, number: int, dims: int, changed: bool = False) -> Case:
        """A bright or dark box, above or below, and a sentence that says so; changed, it says the contrary."""
        random = np.random.default_rng(number)
        bright, above = bool(number % 2), bool(number // 2 % 2)
        image = random.normal(0.5, 0.05, (1, 40, 40))
        y, x = (4 if above else 24) + random.integers(0, 4), random.integers(2, 26)
        image[:, y : y + 10, x : x + 10] += 0.4 if bright else -0.4
        words = [("dark", "bright")[bright != changed], ("below", "above")[above != changed]]
        text = f"a {words[0]} box lies {words[1]}. the number of this image is {number}."
        name = f"case{number:02d}"
        return Case(name, name, image.clip(0, 1).astype(np.float32), None, (1.0, 1.0), {TEXT: text, STUDY: name})


def text_of(dataset: Dataset, case: str) -> str:
    """The text of a case."""
    text = dataset.field(case, TEXT)
    if not isinstance(text, str):
        raise UserError(f"{dataset.info.name}: case {case!r} has no text but an array; prepare it again.")
    return text


def same_study(dataset: Dataset, cases: Sequence[str]) -> np.ndarray:
    """Which cases (N, N) share a study, or their text."""
    shared = np.zeros((len(cases), len(cases)), bool)
    for field in (STUDY, TEXT):
        values = np.array([str(dataset.field(case, field)) for case in cases])
        shared |= values[:, None] == values
    return shared


def mutual_information(scores: np.ndarray, right: np.ndarray) -> float:
    """mean_i (ln N_i − ln(Σ_j e^{S_ij} / e^{S_ii})), in the mean with that of Sᵀ.

    The N_i answers j that are counted are all wrong ones and i itself: the other right ones are left out.
    """
    both = []
    for matrix in (scores, scores.T):
        wrong = np.where(right & ~np.eye(len(matrix), dtype=bool), -np.inf, matrix)
        highest = wrong.max(1)
        total = highest + np.log(np.exp(wrong - highest[:, None]).sum(1))
        both.append(float(np.mean(np.log(np.isfinite(wrong).sum(1)) - total + np.diag(matrix))))
    return float(np.mean(both))


def ranked(scores: np.ndarray, right: np.ndarray) -> float:
    """The rank of the best right answer among all wrong ones."""
    best, wrong = scores[right].max(), scores[~right]
    return 1.0 + float((wrong > best).sum()) + 0.5 * float((wrong == best).sum())


def chance(right: int, answers: int, depth: int) -> float:
    """The probability that a random order has fewer than `depth` wrong answers before the first right one."""
    wrong = answers - right
    return 1.0 - prod(max(0, wrong - k) / (answers - k) for k in range(min(depth, answers)))


def inside(box: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Which cells of a grid have their middle in a box (y, x, y, x) between 0 and 1; the nearest one if none has."""
    y, x = ((np.arange(length) + 0.5) / length for length in shape)
    found: np.ndarray = ((y >= box[0]) & (y <= box[2]))[:, None] & ((x >= box[1]) & (x <= box[3]))
    if not found.any():
        middle = (box[:2] + box[2:]) / 2
        found[tuple(int(min(m * n, n - 1)) for m, n in zip(middle, shape, strict=True))] = True
    return found


def seen(boxes: np.ndarray, shape: Sequence[int], crop: "Crop | None") -> np.ndarray:
    """Boxes (…, 4) as shares of an image as those of what is seen of it; they may lie outside of that."""
    import torch

    from semiseg.data.scale import relative

    corners = torch.as_tensor(boxes, dtype=torch.float64).unflatten(-1, (2, 2)) * torch.tensor(shape) - 0.5
    result: np.ndarray = ((relative(corners, shape, crop) + 1) / 2).flatten(-2).numpy()
    return result


def _pairs(dataset: Dataset, cases: list[str], scores: np.ndarray, right: np.ndarray) -> list[dict[str, Any]]:
    bound = mutual_information(scores, right)
    return [
        _row(dataset, case, direction, matrix[k], right[k], bound)
        for k, case in enumerate(cases)
        for direction, matrix in ((1, scores), (2, scores.T))
    ]


def _places(
    dataset: Dataset, cases: list[str], images: "list[Tensor]", predictor: Any, bound: float, crop: "Crop | None"
) -> list[dict[str, Any]]:
    rows = []
    for case, image in zip(cases, images, strict=True):
        if REGIONS not in dataset.records[case].fields:
            continue
        told = np.asarray(dataset.field(case, REGIONS))
        boxes = seen(told, dataset.records[case].shape[1:], crop)
        for sentence, place, box in zip(sentences(text_of(dataset, case)), told, boxes, strict=True):
            if place.min() >= 0 and (box[:2] < 1).all() and (box[2:] > 0).all():
                grid = predictor.locate(image, [sentence])[0].double().cpu().numpy()
                rows.append(_row(dataset, case, 3, grid.ravel(), inside(box, grid.shape).ravel(), bound))
    return rows


def _row(
    dataset: Dataset, case: str, direction: int, scores: np.ndarray, right: np.ndarray, bound: float
) -> dict[str, Any]:
    rank = ranked(scores, right)
    row: dict[str, Any] = {"case": case, "group": dataset.records[case].group}
    row |= {"class": direction, "class_name": DIRECTIONS[direction - 1]}
    row |= {f"recall_{k}": float(rank <= k) for k in DEPTHS}
    row |= {f"chance_{k}": round(chance(int(right.sum()), right.size, k), 6) for k in DEPTHS}
    return row | {"rank": rank, "bound": float(f"{bound:.6g}")}
