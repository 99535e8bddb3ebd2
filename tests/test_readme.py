"""What the README shows works."""

import csv
import re
import subprocess
from pathlib import Path

import pytest

from semiseg.contract import MethodContract
from semiseg.network_contract import NetworkContract
from semiseg.registry import find_methods
from semiseg.settings import load_benchmark

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
NETWORK, METHOD = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "agreement.py").write_text(METHOD)
    return find_methods(folder)["agreement"]


@pytest.mark.parametrize("check", MethodContract.checks())
def test_the_method_in_the_readme_passes_the_contract(example, check, tmp_path):
    getattr(MethodContract("agreement", example, 2, tmp_path), check)()


@pytest.mark.parametrize("check", NetworkContract.checks())
def test_the_network_in_the_readme_passes_the_contract(check, tmp_path):
    (tmp_path / "my_networks.py").write_text(NETWORK)
    find_methods(tmp_path)
    getattr(NetworkContract("wide_unet", 2), check)()


def committed(pattern):
    """Files that are part of the suite; what was only dropped into a folder needs no documentation."""
    if not (ROOT / ".git").exists():
        return []
    command = ["git", "ls-files", f":(glob){pattern}"]  # without folders below
    files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return sorted(ROOT / file for file in files)


@pytest.mark.parametrize("path", committed("benchmarks/*.yaml"), ids=lambda p: p.stem)
def test_every_benchmark_file_is_valid_and_listed(path):
    assert load_benchmark(path, {}).name == path.stem
    assert f"`{path.name}`" in README


def test_nothing_is_left_to_fill_in():
    assert not re.findall(r"<!--|MINUTES|TODO", README)


def test_every_linked_file_exists():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_no_method_file_is_longer_than_a_paper_algorithm_needs():
    for path in committed("methods/*.py"):
        assert len(path.read_text().splitlines()) < 200, path


def committed_methods():
    """Methods that are part of the suite."""
    return sorted(path.stem for path in committed("methods/*.py") if path.stem in find_methods())


METHODS_PAGE = (ROOT / "methods" / "README.md").read_text().partition("## What public code")[0]


@pytest.mark.parametrize("name", committed_methods())
def test_every_method_has_a_row_with_its_paper_networks_and_cost(name):
    method = find_methods()[name]
    (row,) = re.findall(rf"^\| {re.escape(method.title)} \|(.*\d\.\d.*)\|$", METHODS_PAGE, re.MULTILINE)
    paper, networks, _cost = (cell.strip() for cell in row.split("|"))
    assert paper.endswith(method.paper.venue)
    assert networks == str(method.networks)


def table(name, file):
    with (ROOT / "results" / name / file).open(encoding="utf-8") as rows:
        return list(csv.DictReader(rows))


@pytest.mark.parametrize("name", ["kvasir_instrument_118", "hippocampus_130"])
def test_the_real_results_are_those_of_the_stored_runs(name):
    """Dice with its deviation, and below the lower bound the difference to it with the p-value over folds."""
    p = {(row["Method"], row["Labels"]): row["p"] for row in table(name, "tables/differences.csv")}
    found = {(row["title"], f"{100 * float(row['labels']):g} %"): row for row in table(name, "summary.csv")}
    for title in {title for title, _ in found}:
        cells = []
        for labels in ("5 %", "20 %", "50 %", "100 %"):
            if not (row := found.get((title, labels))):
                cells.append("–")
                continue
            dice, deviation = 100 * float(row["dice"]), 100 * float(row["dice_sd"])
            cells.append(f"{dice:.1f} ± {deviation:.1f}")
            if (title, labels) in p:
                bound = 100 * float(found["Supervised", labels]["dice"])
                cells[-1] += f", {dice - bound:+.1f} (p {p[title, labels]})"
        assert f"| {title} | {' | '.join(cells)} |" in README
