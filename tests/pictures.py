"""Tiny pictures in the layouts of published data sets, for the tests of their recipes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.data.prepare import prepare
from semiseg.data.recipe import Recipe
from semiseg.data.store import Dataset
from semiseg.errors import UserErrors

SPACE = (6, 8)
GREY = np.arange(48, dtype=np.uint8).reshape(SPACE)
COLOR = np.stack([GREY, GREY + 50, GREY + 100], axis=-1)
LEFT, RIGHT = (np.indices(SPACE)[1] < 3), (np.indices(SPACE)[1] >= 5)


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    """Write a picture; a boolean array becomes black and white."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8) * 255 if array.dtype == bool else array).save(path, **options)
    return path


def prepared(recipe: Recipe) -> Dataset:
    """The data set that a recipe makes."""
    return Dataset(prepare(recipe, recipe.source.parent / "out")[0])


def groups(data: Dataset) -> dict[str, str]:
    """The group of each case."""
    return {case: record.group for case, record in data.records.items()}


def complaints(recipe: Recipe) -> list[str]:
    """What is wrong with a source, each in one line."""
    with pytest.raises(UserErrors) as caught:
        prepared(recipe)
    assert not any("\n" in message for message in caught.value.messages)
    return caught.value.messages
