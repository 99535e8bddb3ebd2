"""What the commands print."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from semiseg.registry import Methods  # imports torch, too slow for --help

console = Console()


def print_list(rows: list[dict[str, Any]], as_json: bool, columns: Sequence[str]) -> None:
    """Print rows of equal keys as JSON, or the main columns of them for people."""
    if as_json:
        print_json(rows)
    else:
        print_lines(rows, columns)


def print_json(rows: list[dict[str, Any]]) -> None:
    """Print rows for a script."""
    print(json.dumps(rows, indent=1))


def print_lines(rows: list[dict[str, Any]], columns: Sequence[str]) -> None:
    """One line per row whatever the width of the terminal, so that `grep` finds all of it."""
    lines = [[*columns], *([str(row[column] or "-") for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def duration(seconds: float) -> str:
    """A time in the two units that matter."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def show_left_out(found: "Methods") -> None:
    """Say which plugins are done without, and why, apart from what a command prints."""
    from semiseg.networks import NETWORKS  # imports torch, too slow for --help
    from semiseg.tasks import left_out_tasks

    for reason in (*found.broken.values(), *NETWORKS.broken.values(), *left_out_tasks()):
        print(f"semiseg: left out: {reason}", file=sys.stderr)


def show_report(results: Sequence[Path], page: Path) -> None:
    """Print the comparison table of each folder and where the page is."""
    from semiseg.report import terminal_table  # draws with matplotlib, too slow for --help

    for folder in results:
        console.print(terminal_table(folder))
    console.print(f"Page: {page / 'index.html'}", highlight=False, soft_wrap=True)
