"""What the page's viewer reads: scores of every case, and pictures of as many cases as fit, the worst ones first."""

import base64
import io
import zipfile
from typing import Any

import numpy as np
from PIL import Image

from semiseg.labels import Labels
from semiseg.metrics import Metric
from semiseg.report.results import Results, Run
from semiseg.report.summary import primary_scores, score_names

MASKS = 3000  # predictions on a page at most, so that it stays small enough to mail and opens at once
Key = tuple[str, Labels]  # of a cell


def case_data(results: Results, keys: list[Key], shown: list[Metric]) -> dict[str, Any]:
    """Names and scores of all cases, by cell and metric in hundredths, and the pictures that runs have kept."""
    metrics = score_names(results.cases)
    # Structures weigh the same, then seeds and repeats.
    scores: Any = results.cases.groupby(["method", "labels", "case", "fold", "seed"])[metrics].mean()
    scores = scores.groupby(["method", "labels", "case"]).mean()
    cases = sorted(set(results.cases.case))
    by_cell = []
    for key in keys:
        own = scores.loc[key].reindex(cases)
        by_cell.append(
            [
                [_hundredths(m.scale * value) for value in own[m.name]] if m.name in own else [None] * len(cases)
                for m in shown
            ]
        )
    worst = primary_scores(scores).groupby("case").mean().sort_values(kind="stable").index
    return {"cases": cases, "caseScores": by_cell, "pictures": _pictures(results, keys, cases, list(worst))}


def _hundredths(value: float) -> int | None:
    return None if np.isnan(value) else round(100 * float(value))


def _pictures(results: Results, keys: list[Key], cases: list[str], worst: list[str]) -> dict[int, Any]:
    """Image, reference and the prediction of each cell (of the first seed, repeat and fold), by the place of a case."""
    images: dict[str, np.ndarray] = {}
    kept: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]] = {}
    for run in sorted(results.finished, key=lambda run: (run.seed, run.fold)):
        for case, reference, prediction in _masks(run, images):
            kept.setdefault(case, {}).setdefault(keys.index((run.method, run.labels)), (reference, prediction))
    out: dict[int, Any] = {}
    masks = 0
    for case in worst:
        found = kept.get(case, {})
        if not found or masks + len(found) > MASKS:
            continue
        masks += len(found)
        height, width = np.min([reference.shape for reference, _ in found.values()], 0)  # runs pad to their largest
        out[cases.index(case)] = {
            "size": [int(width), int(height)],
            "image": _jpeg(images[case][:, :height, :width]),
            "reference": _runs(found[min(found)][0][:height, :width]),
            "masks": {cell: _runs(found[cell][1][:height, :width]) for cell in sorted(found)},
        }
    return out


def _masks(run: Run, images: dict[str, np.ndarray]) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Case, reference and prediction (H, W) of every picture of a run; adds to `images` what is new."""
    try:
        with np.load(run.folder / "examples.npz", allow_pickle=False) as file:
            ids, references, predictions = list(map(str, file["ids"])), file["labels"], file["predictions"]
            if not images.keys() >= set(ids):  # the same in every run, and by far the largest part of the file
                new = dict(zip(ids, file["images"], strict=True))
                images |= {case: image for case, image in new.items() if case not in images}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return []
    return list(zip(ids, references, predictions, strict=True))


def _jpeg(image: np.ndarray) -> str:
    """The data of an <img>, to look at only; unless there are three channels, the first one in gray."""
    pixels = image.transpose(1, 2, 0) if len(image) == 3 else image[0]
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


def _runs(mask: np.ndarray) -> list[int]:
    """A mask (H, W) as class and length in turns, row after row."""
    flat = mask.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=-1))
    lengths = np.diff(starts, append=flat.size)
    return np.stack([flat[starts], lengths], axis=1).ravel().tolist()
