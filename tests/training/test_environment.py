"""What a record says of the code: a commit that does not hold what was run is not named as if it did. And memory."""

import subprocess
import sys

import pytest

from semiseg.training import environment

PAGES = """
import resource, torch
from semiseg.training.environment import keep_freed_memory
kept = keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):  # what a step does
    tensors = [torch.ones(10 * 2**20) for _ in range(3)]
    del tensors
before = faults()
tensors = [torch.ones(10 * 2**20) for _ in range(3)]
print(kept, faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="sets glibc's allocator")
def test_a_step_finds_the_memory_of_the_last_one_in_place():
    output = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, text=True, check=True).stdout.split()
    if output[0] == "False":
        pytest.skip("another C library")
    assert int(output[1]) < 100, "30,720 pages were filled with zeros again"


def test_a_new_method_that_nobody_committed_is_not_hidden_behind_a_clean_commit(tmp_path, monkeypatch):
    for folder in ("code/semiseg/training", "methods", "results"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "code/semiseg/a.py").write_text("a = 1\n")

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    def commit():
        environment.git_commit.cache_clear()
        return environment.git_commit()

    monkeypatch.setattr(environment, "__file__", str(tmp_path / "code/semiseg/training/environment.py"))
    git("init")
    git("add", ".")
    git("commit", "-m", "a")
    clean = commit()
    assert len(clean) == 40
    (tmp_path / "results" / "table.csv").touch()
    assert commit() == clean
    (tmp_path / "methods" / "new.py").touch()
    assert commit() == f"{clean}-modified"
    environment.git_commit.cache_clear()


def test_an_installed_suite_does_not_name_the_commit_of_a_repository_around_it(tmp_path, monkeypatch):
    subprocess.run(["git", "-C", str(tmp_path), "init"], check=True, capture_output=True)
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "site-packages/semiseg/training/environment.py"))
    environment.git_commit.cache_clear()
    assert environment.git_commit() == ""
    environment.git_commit.cache_clear()
