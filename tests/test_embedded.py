"""What an installed package must hold for somebody without the source tree."""

import tomllib
from pathlib import Path, PurePath

ROOT = Path(__file__).parent.parent
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_every_package_of_the_source_tree_is_installed():
    folders = {path.parent for path in (ROOT / "code").rglob("__init__.py")}
    named = {ROOT / "code" / PurePath(*package.split(".")) for package in SETUP["packages"]}
    elsewhere = {ROOT / folder for package, folder in SETUP["package-dir"].items() if package != "semiseg"}
    assert folders <= named
    assert elsewhere == {ROOT / "methods", ROOT / "data_prep", ROOT / "benchmarks"}
    assert all((folder / "__init__.py").exists() for folder in elsewhere)
    assert SETUP["package-dir"].keys() - {"semiseg"} <= set(SETUP["packages"])


def test_every_benchmark_split_and_tuned_file_is_installed():
    patterns = SETUP["package-data"]["semiseg.benchmark_files"]
    installed = {path for pattern in patterns for path in (ROOT / "benchmarks").glob(pattern)}
    files = {path for kind in ("yaml", "json") for path in (ROOT / "benchmarks").rglob(f"*.{kind}")}
    assert {path.name for path in files} >= {"quick.yaml", "phantom_endoscopy.json"}
    assert files <= installed
