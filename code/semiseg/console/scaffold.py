"""A working method to start from, and its test."""

import keyword
import re
from pathlib import Path

from semiseg.errors import UserError
from semiseg.registry import find_methods

METHOD = '''"""{title}: say in one line what is new about it."""

import torch
from pydantic import Field
from torch import Tensor, nn

from semiseg.losses import mse_consistency, supervised_loss
from semiseg.method import Batch, Method, Paper, Progress


class {cls}(Method):
    """Consistency between a weak and a strong view: replace this by your own idea."""

    title = "{title}"
    paper = Paper("Title of the paper", "Authors", "Venue and year")
    views = ("weak", "strong")

    class Config(Method.Config):
        consistency: float = Field(0.1, ge=0)  # weight at full ramp

    def build(self) -> None:
        self.model = self.network()

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        labeled, plain = batch.split(self.model(batch.images("weak")).logits)
        strong = self.model(batch.unlabeled("strong")).logits
        with torch.no_grad():
            target = plain.softmax(1)
        weight = self.config.consistency * progress.ramp_up()
        return {{
            "supervised": supervised_loss(labeled, batch.labels),
            "consistency": weight * mse_consistency(strong, target),
        }}

    def predictors(self) -> dict[str, nn.Module]:
        return {{"network": self.model}}
'''

TEST = '''"""{title} against the plugin contract, and what is special about it."""

from pathlib import Path

import pytest
import torch

from semiseg.contract import MethodContract, tiny_task
from semiseg.method import Batch, Progress
from semiseg.registry import get_method

METHOD = get_method("{name}"{directory})


@pytest.mark.parametrize("check", MethodContract.checks())
@pytest.mark.parametrize("dims", [2, 3])
def test_contract(dims, check, tmp_path):
    getattr(MethodContract("{name}", METHOD, dims, tmp_path), check)()


def test_consistency_starts_near_zero_and_is_full_at_the_end():
    method = METHOD(tiny_task(2))
    images = torch.rand(4, 1, 32, 32)
    batch = Batch({{"weak": images, "strong": images.flip(0)}}, torch.zeros(2, 32, 32, dtype=torch.long))
    start, end = (method.losses(batch, Progress(t, 100))["consistency"].item() for t in (0, 100))
    assert 0 < start < 0.01 * end
'''


def write_scaffold(name: str, directory: Path) -> tuple[Path, Path]:
    """Write NAME.py into the folder, and its test beside the suite's tests if there are any, else beside it."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name) or name.startswith("test_"):
        raise UserError(f"{name!r} cannot be a module; use small letters, digits and underscores.")
    if name in find_methods():
        raise UserError(f"there is a method called {name!r} already; choose another name.")
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; make it, or choose another --dir.")
    inside = (directory / "__init__.py").exists()  # of the suite itself, where every method is found by name
    tests = directory.parent / "tests" / "methods"
    test = (tests if inside and tests.is_dir() else directory) / f"test_{name}.py"
    module = directory / f"{name}.py"
    for path in (module, test):
        if path.exists():
            raise UserError(f"{path} exists already; choose another name.")
    title = name.replace("_", " ").title()
    words = {"name": name, "title": title, "cls": title.replace(" ", ""),
             "directory": "" if inside else ", Path(__file__).parent"}  # fmt: skip
    module.write_text(METHOD.format(**words), encoding="utf-8")
    text = TEST.format(**words)
    test.write_text(text.replace("from pathlib import Path\n\n", "") if inside else text, encoding="utf-8")
    return module, test
