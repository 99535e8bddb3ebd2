"""A table of scores, and how it looks as Markdown, CSV and HTML."""

import csv
import io
from dataclasses import dataclass, field
from html import escape
from math import isnan

ABSENT = "–"
WIDE = 7  # columns; a wider table is set smaller on the page


@dataclass(frozen=True)
class Score:
    """A mean with its standard deviation, in the unit it is printed in."""

    mean: float
    sd: float = float("nan")  # NaN when there is nothing to deviate from
    best: bool = False
    partial: bool = False  # averaged over fewer runs than asked for
    kept: bool = False  # some of them were made otherwise than the rest, and kept all the same

    @property
    def text(self) -> str:
        """For example "81.30 ± 1.20†"."""
        spread = "" if isnan(self.sd) else f" ± {self.sd:.2f}"
        return f"{self.mean:.2f}{spread}{'†' if self.partial else ''}{'‡' if self.kept else ''}"


Cell = str | int | Score


@dataclass(frozen=True)
class Table:
    """A table as it is meant, before it has a format."""

    name: str  # of its files
    title: str
    columns: list[str]
    rows: list[list[Cell]]
    notes: list[str]
    rules: set[int] = field(default_factory=set)  # rows with a line above, which sets groups apart
    text_columns: int = 1  # leading columns that hold words
    heading: int | None = None  # the one of them with one value in each group, which can stand above the group
    about: str = ""  # what was trained and how much, which stands behind the title where a table stands alone
    benchmark: str = ""  # a name that tells its label in a paper from those of other benchmarks

    @property
    def caption(self) -> str:
        """The title of a table that stands alone."""
        return f"{self.title}: {self.about}" if self.about else self.title


def text(cell: Cell) -> str:
    """The plain text of a cell."""
    return cell.text if isinstance(cell, Score) else str(cell)


def _is_best(cell: Cell) -> bool:
    return isinstance(cell, Score) and cell.best


def markdown(table: Table) -> str:
    """GitHub's table syntax; the notes follow as a list."""

    def line(cells: list[str]) -> str:
        return f"| {' | '.join(cells)} |"

    def shown(cell: Cell) -> str:
        words = text(cell).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
        return f"**{words}**" if _is_best(cell) else words

    align = ["---" if i < table.text_columns else "---:" for i in range(len(table.columns))]
    lines = [f"### {table.caption}", "", line([shown(c) for c in table.columns]), line(align)]
    lines += [line([shown(cell) for cell in row]) for row in table.rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes)]) + "\n"


def comma_separated(table: Table) -> str:
    """Numbers for a spreadsheet: a column of scores becomes its mean and its standard deviation."""
    scored = [any(isinstance(row[i], Score) for row in table.rows) for i in range(len(table.columns))]

    def spread(cell: Cell, is_scored: bool) -> list[str]:
        if isinstance(cell, Score):
            return [f"{cell.mean:.4f}", "" if isnan(cell.sd) else f"{cell.sd:.4f}"]
        return ["", ""] if is_scored else [str(cell)]

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            name
            for column, s in zip(table.columns, scored, strict=True)
            for name in ([column, f"{column} sd"] if s else [column])
        ]
    )
    for row in table.rows:
        writer.writerow([value for cell, s in zip(row, scored, strict=True) for value in spread(cell, s)])
    return out.getvalue()


def html(table: Table) -> str:
    """A figure for the page; its caption carries the title and the notes."""

    def cells(tag: str, row: list[str] | list[Cell]) -> str:
        out = []
        for index, cell in enumerate(row):
            words = escape(text(cell)).replace(" ± ", "<span class=sd> ± ") + ("</span>" if " ± " in text(cell) else "")
            number = index >= table.text_columns
            kind = " class=number" if number else " class=long" if len(words) > 40 else ""
            out.append(f"<{tag}{kind}>{f'<b>{words}</b>' if _is_best(cell) else words}</{tag}>")
        return "".join(out)

    rows = "\n".join(
        f"<tr{' class=rule' if i in table.rules else ''}>{cells('td', row)}</tr>" for i, row in enumerate(table.rows)
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return (
        f"<figure><figcaption>{escape(table.title)}</figcaption><div class=scroll>"
        f"<table{' class=wide' if len(table.columns) > WIDE else ''}>"
        f"<thead><tr>{cells('th', table.columns)}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
        f"<ul class=notes>{notes}</ul></figure>"
    )
