"""What git knows of files."""

import subprocess
from pathlib import Path


def git(folder: Path, *arguments: str) -> str:
    """What a git command prints in a folder; empty outside a checkout, or without git."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def last_commit(file: Path) -> str:
    """The last commit of a file, marked if the file was changed since; empty if it was never committed."""
    commit = git(file.parent, "log", "-1", "--format=%H", "--", file.name)
    return commit + ("-modified" if commit and git(file.parent, "status", "--porcelain", "--", file.name) else "")
