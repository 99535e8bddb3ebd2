"""What the commands print."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from semiseg.registry import Methods  # imports torch, too slow for --help

console = Console()


def print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print rows of equal keys as a table, or as JSON."""
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(str, row.values()))
    console.print(table)


def print_lines(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """One line per row whatever the width of the terminal, so that `grep` finds all of it."""
    lines = [columns, *([str(row[column] or "-") for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def show_left_out(found: "Methods") -> None:
    """Say which plugins are done without, and why, apart from what a command prints."""
    from semiseg.networks import NETWORKS  # imports torch, too slow for --help

    for reason in (*found.broken.values(), *NETWORKS.broken.values()):
        print(f"semiseg: left out: {reason}", file=sys.stderr)


def show_report(results: Path, page: Path) -> None:
    """Print the comparison table and where the page is."""
    from semiseg.report import terminal_table  # draws with matplotlib, too slow for --help

    console.print(terminal_table(results))
    console.print(f"Page: {page / 'index.html'}", highlight=False, soft_wrap=True)
