"""A working method to start from, and its test."""

import keyword
import re
from pathlib import Path

from semiseg.benchmarks.expansion import ALL
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

CONTRACT = '''"""{title} against the plugin contract, and what is special about it."""

from pathlib import Path

import pytest
import torch

from semiseg.contract import MethodContract, tiny_task
from semiseg.method import Batch, Progress
from semiseg.registry import get_method_of

torch.set_num_threads(1)  # images are tiny: more threads would only wait for each other
METHOD = get_method_of(Path(__file__).with_name("{name}.py"))


@pytest.fixture(scope="module", params=[2, 3], ids=["2d", "3d"])
def contract(request, tmp_path_factory):
    return MethodContract("{name}", METHOD, request.param, tmp_path_factory.mktemp("contract"))


@pytest.mark.parametrize("check", MethodContract.checks())
def test_contract(contract, check):
    getattr(contract, check)()
'''

IN_SUITE = '''"""What is special about {title}; the contract is tested for every method of the suite by itself."""

import torch

from semiseg.contract import tiny_task
from semiseg.method import Batch, Progress
from semiseg.registry import get_method

METHOD = get_method("{name}")
'''

SPECIAL = '''

def test_unlabeled_images_have_a_say():
    """Put in its place what is special about your method: where gradients flow, and where they must not."""
    images, other = torch.rand(2, 4, 1, 32, 32)
    other[:2] = images[:2]  # the labelled ones

    def total(images):
        torch.manual_seed(0)
        batch = Batch(dict.fromkeys(METHOD.views, images), torch.ones(2, 32, 32, dtype=torch.long))
        return sum(METHOD(tiny_task(2)).losses(batch, Progress(100, 100)).values()).item()

    assert total(images) == total(images)
    assert total(images) != total(other)
'''


def write_scaffold(name: str, directory: Path) -> tuple[Path, Path]:
    """Write NAME.py into the folder, and its test beside the suite's tests if there are any, else beside it."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name) or name.startswith("test_"):
        raise UserError(f"{name!r} cannot be a module; use small letters, digits and underscores.")
    taken = find_methods()
    if name in taken or name in taken.broken:
        raise UserError(f"there is a method called {name!r} already; choose another name.")
    if name == ALL:
        raise UserError(f"{name!r} means all methods in a benchmark file; choose another name.")
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
    words = {"name": name, "title": title, "cls": title.replace(" ", "")}
    module.write_text(METHOD.format(**words), encoding="utf-8")
    test.write_text((IN_SUITE if inside else CONTRACT).format(**words) + SPECIAL, encoding="utf-8")
    return module, test
