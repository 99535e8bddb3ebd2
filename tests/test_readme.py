"""What the README and the other pages show works."""

import csv
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer

from semiseg.console.cli import app
from semiseg.contract import MethodContract
from semiseg.network_contract import NetworkContract
from semiseg.registry import find_methods
from semiseg.settings import load_benchmark

ROOT = Path(__file__).parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")]
}
README = PAGES["README.md"]


def shown(page):
    """The Python code on a page, which must be one piece."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL)
    return code


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "agreement.py").write_text(shown("README.md"))
    return find_methods(folder)["agreement"]


@pytest.mark.parametrize("check", MethodContract.checks())
def test_the_method_in_the_readme_passes_the_contract(example, check, tmp_path):
    getattr(MethodContract("agreement", example, 2, tmp_path), check)()


@pytest.mark.parametrize("check", NetworkContract.checks())
def test_the_network_on_its_page_passes_the_contract(check, tmp_path):
    (tmp_path / "my_networks.py").write_text(shown("docs/networks.md"))
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
    assert f"`{path.name}`" in PAGES["docs/running.md"]


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_left_to_fill_in(page):
    assert not re.findall(r"<!--|MINUTES|TODO", PAGES[page])


def headings(page):
    """The names by which the headings of a page are linked to."""
    lines = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    for target, heading in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", PAGES[page]):
        linked = ((ROOT / page).parent / target).resolve() if target else ROOT / page
        assert linked.exists(), target
        if heading:
            assert heading in headings(linked.relative_to(ROOT).as_posix()), heading


def commands_shown(page):
    """The commands in a page's blocks of code, as a shell would split them, without comments."""
    for block in re.findall(r"^```\n(.*?)```", PAGES[page], re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            words = shlex.split(line, comments=True) if line.startswith(("semiseg ", "./run_all.sh ")) else []
            if words and words[0] == "semiseg":
                yield words[1:]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_shown_has_the_options_that_it_is_shown_with(page):
    known = typer.main.get_command(app).commands
    for name, *rest in commands_shown(page):
        options = {option for parameter in known[name].params for option in parameter.opts}
        assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= options, (name, rest)


def test_no_method_file_is_longer_than_a_paper_algorithm_needs():
    for path in committed("methods/*.py"):
        assert len(path.read_text().splitlines()) < 200, path


def committed_methods():
    """Methods that are part of the suite."""
    return sorted(path.stem for path in committed("methods/*.py") if path.stem in find_methods())


METHODS_PAGE = PAGES["methods/README.md"].partition("## What public code")[0]


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
                cells[-1] += f", {dice - bound:+.1f} (p {float(p[title, labels]):.3f})"
        assert f"| {title} | {' | '.join(cells)} |" in PAGES["results/README.md"]


@pytest.mark.parametrize("name", ["acdc_100", "acdc_100_strong"])
def test_what_is_compared_on_the_front_page_are_the_stored_runs(name):
    """Dice with its deviation, the difference to Supervised with its interval, and on the page of results the odds."""
    found = {row["title"]: row for row in table(name, "summary.csv") if row["runs"] == "5"}
    against = {row["Method"]: row for row in table(name, "tables/differences.csv")}
    front, all_results = (PAGES[page].replace("**", "").splitlines() for page in ("README.md", "results/README.md"))
    for title, row in found.items():
        cells = f"| {100 * float(row['dice']):.1f} ± {100 * float(row['dice_sd']):.1f} |"
        odds = ""
        if own := against.get(title):
            low, high = (float(own[f"95 % interval {end}"]) for end in ("low", "high"))
            cells += f" {float(own['Difference']):+.1f} ({low:+.1f} to {high:+.1f}) |"
            odds = f" {' / '.join(f'{float(own[of]):.2f}' for of in ('Worse', 'Equivalent', 'Better'))} |"
        if title != "Strong supervised":  # the front page compares it with what augments strongly, too
            assert any(line.startswith(f"| {title}") and cells in line for line in front), (title, cells)
        assert any(line.startswith(f"| {title}") and cells + odds in line for line in all_results), (title, cells, odds)
