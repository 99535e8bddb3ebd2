"""A table of scores, and how it looks as Markdown, CSV and HTML."""

import csv
import io
from dataclasses import dataclass, field
from html import escape
from math import isnan

ABSENT = "–"
MARKS = "†‡"  # of what is averaged over fewer runs than asked for, and of what was kept
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


@dataclass(frozen=True)
class Number:
    """What is printed of one number, or of several, and what a CSV has of each, in a column of its own."""

    words: str
    values: dict[str, float]  # by what their column has behind the title of the table's, such as " high"


Cell = str | int | Score | Number


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
    about: str = ""  # on what data and how much was trained, which stands behind the title in every caption
    folder: str = ""  # of the results, which tells its label in a paper from those of others

    @property
    def caption(self) -> str:
        """The title with what it is about."""
        return f"{self.title}: {self.about}" if self.about else self.title


def text(cell: Cell) -> str:
    """The plain text of a cell."""
    if isinstance(cell, Score):
        return cell.text
    return cell.words if isinstance(cell, Number) else str(cell)


def _values(cell: Cell) -> dict[str, float]:
    """The numbers of a cell by what is added to the title of their column."""
    if isinstance(cell, Score):
        return {"": cell.mean, " sd": cell.sd}
    if isinstance(cell, Number):
        return cell.values
    return {"": cell} if isinstance(cell, int) else {}


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
    """A file for pandas or a spreadsheet: numbers alone in their columns, what is absent empty, marks apart."""
    columns: list[tuple[str, list[str]]] = []
    for place, title in enumerate(table.columns):
        cells = [row[place] for row in table.rows]
        kinds = dict.fromkeys(kind for cell in cells for kind in _values(cell))
        if place < table.text_columns or not kinds:
            columns.append((title, ["" if cell == ABSENT else text(cell) for cell in cells]))
            continue
        columns += [(title + kind, [_plain(_values(cell).get(kind)) for cell in cells]) for kind in kinds]
        marks = ["".join(mark for mark in MARKS if mark in text(cell)) for cell in cells]
        columns += [(f"{title} mark", marks)] * any(marks)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([title for title, _ in columns])
    writer.writerows(zip(*(cells for _, cells in columns), strict=True))
    return out.getvalue()


def _plain(value: float | None) -> str:
    """Six digits, of which noise of the last bits is none."""
    return "" if value is None or isnan(value) else f"{round(value, 9) + 0.0:.6g}"


def html(table: Table) -> str:
    """A figure for the page; its caption carries the title and the notes."""

    def cells(tag: str, row: list[str] | list[Cell]) -> str:
        out, scope = [], " scope=col" if tag == "th" else ""
        for index, cell in enumerate(row):
            words = escape(text(cell)).replace(" ± ", "<span class=sd> ± ") + ("</span>" if " ± " in text(cell) else "")
            number = index >= table.text_columns
            named = table.columns[index] == "Method"  # stays in sight when the rest is scrolled
            kind = " class=number" if number else " class=name" if named else " class=long" if len(words) > 40 else ""
            out.append(f"<{tag}{scope}{kind}>{f'<b>{words}</b>' if _is_best(cell) else words}</{tag}>")
        return "".join(out)

    rows = "\n".join(
        f"<tr{' class=rule' if i in table.rules else ''}>{cells('td', row)}</tr>" for i, row in enumerate(table.rows)
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    about = f"<span class=about>: {escape(table.about)}</span>" if table.about else ""
    return (
        f"<figure><figcaption>{escape(table.title)}{about}</figcaption>"
        f'<div class=scroll tabindex=0 role=region aria-label="{escape(table.title)}">'
        f"<table{' class=wide' if len(table.columns) > WIDE else ''}>"
        f"<thead><tr>{cells('th', table.columns)}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
        f"<ul class=notes>{notes}</ul></figure>"
    )
