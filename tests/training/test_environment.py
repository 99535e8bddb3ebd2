"""What a record says of the code: a commit that does not hold what was run is not named as if it did."""

import subprocess

from semiseg.training import environment


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
