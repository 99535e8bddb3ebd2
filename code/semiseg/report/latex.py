"""A table as LaTeX floats that fit the pages of an article, however many methods, fractions and metrics it has."""

import re
from dataclasses import dataclass, replace
from math import ceil, sqrt
from typing import NamedTuple

from semiseg.report.formats import Cell, Score, Table, text

WIDTH, HEIGHT = 345.0, 598.0  # pt, of the text of `article` on A4 at 10 pt
SEPARATION = 3.0  # pt on either side of a column
NARROW = 50.0  # pt, below which words of a column look torn
ROUNDING = 0.01  # pt
BREAK = "\0"  # a place in a word for a line break
SYMBOLS = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "[": "{[}",  # after the end of a line they would be its options
    "*": "{*}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "×": r"$\times$",
    "−": r"$-$",
    "–": "--",
    "<": r"$<$",
    ">": r"$>$",
}
# Widths of Computer Modern at 8 pt in em, rounded up since an estimate may only be too large; others have OTHER.
LETTERS = (
    dict.fromkeys("ijlft.,;:'!|()[]r/ I", 0.43)
    | dict.fromkeys("0123456789", 0.535)
    | dict.fromkeys("wABCDEGHKNOPQRTUVXYZ&-−→×<>", 0.84)
    | dict.fromkeys("mMW%@↑↓", 1.09)
    | {"±": 1.2}  # with the thin spaces around it
)
OTHER = 0.6
BOLD = 1.12  # times as wide


class Size(NamedTuple):
    """A size of type, its letters' and its lines' height in pt."""

    name: str
    letter: float
    line: float


SIZES = (Size("footnotesize", 8, 9.5), Size("scriptsize", 7, 8))


@dataclass(frozen=True)
class Panel:
    """Columns of a table that stand side by side."""

    columns: list[int]
    widths: list[float]  # of those that hold words, in pt
    wrapped: set[int]  # of these, the ones that are broken into lines

    @property
    def specification(self) -> str:
        """What `tabular`, or `tabularx` where columns are wrapped, is told about the columns."""
        room = sum(self.widths[i] for i in self.wrapped)
        shares = [len(self.wrapped) * width / room if room else 0 for width in self.widths]
        words = [
            rf">{{\hsize={shares[i]:.3f}\hsize\raggedright\arraybackslash}}X" if i in self.wrapped else "l"
            for i in range(len(self.widths))
        ]
        return f"@{{}}{''.join(words)}{'r' * (len(self.columns) - len(words))}@{{}}"


def latex(table: Table) -> str:
    """Floating tables for a paper, which loads the packages that the first line names."""
    headings, table = _headings(table)
    size, panels = _panels(table)
    wrapped = any(panel.wrapped for panel in panels)
    lines = [
        rf"% needs \usepackage{{booktabs{',tabularx' if wrapped else ''}}}; "
        rf"fits a text of {WIDTH:g} x {HEIGHT:g} pt (article, a4paper, 10 pt)"
    ]
    floats = [(rows, panel) for rows in _pages(table, headings, size, panels) for panel in panels]
    for number, (rows, panel) in enumerate(floats, start=1):
        part = f", continued ({number} of {len(floats)})" if number > 1 else ""
        label = "-".join(filter(None, [table.folder, table.name, str(number) if number > 1 else ""]))
        label = re.sub(r"[^\w.]+", "-", label)  # a folder may be called what no label can be
        lines += [
            r"\begin{table}[tp]",
            r"\centering",
            rf"\caption{{{_escaped(table.caption + part)}.}}",
            rf"\label{{tab:{label}}}",
            rf"\smallskip\{size.name}\setlength{{\tabcolsep}}{{{SEPARATION:g}pt}}",
            *_tabular(table, headings, rows, panel, size),
        ]
        if number == 1:
            notes = _escaped(" ".join(table.notes))
            lines += [rf"\par\smallskip\parbox{{\linewidth}}{{\scriptsize\raggedright {notes}}}"] if notes else []
        lines.append(r"\end{table}")
    return "\n".join(lines) + "\n"


def _headings(table: Table) -> tuple[dict[int, str], Table]:
    """Lines above blocks of rows, which take the place of the column that is the same within a block."""
    if (column := table.heading) is None:
        return {}, table

    def without(row: list[Cell]) -> list[Cell]:
        return row[:column] + row[column + 1 :]

    return (
        {i: f"{table.columns[column]}: {text(table.rows[i][column])}" for i in (0, *table.rules)},
        replace(
            table,
            columns=table.columns[:column] + table.columns[column + 1 :],
            rows=[without(row) for row in table.rows],
            text_columns=table.text_columns - 1,
        ),
    )


def _panels(table: Table) -> tuple[Size, list[Panel]]:
    """As few panels as fit, then in as large a size as fits."""
    numbers = list(range(table.text_columns, len(table.columns)))
    for count in range(1, max(1, len(numbers)) + 1):
        step = max(1, ceil(len(numbers) / count))
        parts = [numbers[start : start + step] for start in range(0, max(1, len(numbers)), step)]
        for size in SIZES:
            panels = [_panel(table, part, size) for part in parts]
            if all(sum(panel.widths) < _room(table, panel.columns, size) + ROUNDING for panel in panels):
                return size, panels
    return size, panels  # as narrow as can be


def _panel(table: Table, numbers: list[int], size: Size) -> Panel:
    """Columns of numbers with the columns of words before them, which share what width is left."""
    words = list(range(table.text_columns))
    columns = words + numbers
    room = _room(table, columns, size)
    natural = [_column_width(table, i, size) for i in words]
    if sum(natural) <= room:
        return Panel(columns, natural, set())
    least = [min(n, max(NARROW, _longest_word(table, i, size))) for i, n in zip(words, natural, strict=True)]
    lacking = [sqrt(n - low) for n, low in zip(natural, least, strict=True)]  # the root: no column starves another
    each = max(0.0, room - sum(least)) / (sum(lacking) or 1)
    widths = [low + each * lack for low, lack in zip(least, lacking, strict=True)]
    return Panel(columns, widths, {i for i in words if lacking[i]})


def _room(table: Table, columns: list[int], size: Size) -> float:
    """What columns of numbers and the space between all columns leave to words."""
    numbers = sum(_column_width(table, i, size) for i in columns if i >= table.text_columns)
    return WIDTH - numbers - 2 * SEPARATION * (len(columns) - 1)


def _pages(table: Table, headings: dict[int, str], size: Size, panels: list[Panel]) -> list[range]:
    """Rows that fit on a page together; blocks stay whole where that costs less than half a page."""
    heights = []
    for i, row in enumerate(table.rows):
        lines = [1, *(ceil(1.2 * _width(row[c], size) / p.widths[c]) for p in panels for c in p.wrapped)]
        heights.append(size.line * (max(lines) + (i in headings)) + 6 * (i in table.rules))
    head = size.line * max(len(_broken(table, c, size)) for p in panels for c in p.columns)
    notes = 8 * ceil(1.1 * _width(" ".join(table.notes), SIZES[1]) / WIDTH)
    room = HEIGHT - 24 * ceil(_width(table.caption, SIZES[0]) / WIDTH) - head - 40  # caption, rules, and a margin
    pages, begin = [], 0
    while begin < len(heights):
        end = begin + 1
        while end < len(heights) and sum(heights[begin : end + 1]) <= room - (0 if begin else notes):
            end += 1
        if end < len(heights):
            end = max((i for i in table.rules if (begin + end) / 2 < i <= end), default=end)
        pages.append(range(begin, end))
        begin = end
    return pages


def _tabular(table: Table, headings: dict[int, str], rows: range, panel: Panel, size: Size) -> list[str]:
    """Some rows and columns between rules."""

    def line(cells: list[str]) -> str:
        return " & ".join(cells) + r" \\"

    def shown(cell: Cell) -> str:
        words = _escaped(text(cell)).replace(r" $\pm$ ", r"\,$\pm$\,")
        return rf"\textbf{{{words}}}" if isinstance(cell, Score) and cell.best else words

    kind, width = ("tabularx", r"{\linewidth}") if panel.wrapped else ("tabular", "")
    lines = [rf"\begin{{{kind}}}{width}{{{panel.specification}}}", r"\toprule"]
    lines += [line([_stacked(_broken(table, i, size)) for i in panel.columns]), r"\midrule"]
    for index in rows:
        lines += [r"\midrule"] if index in table.rules and index > rows.start else []
        if headings and (index in headings or index == rows.start):
            heading = headings[max(i for i in headings if i <= index)]
            lines.append(rf"\multicolumn{{{len(panel.columns)}}}{{@{{}}l@{{}}}}{{\textit{{{_escaped(heading)}}}}} \\")
        lines.append(line([shown(table.rows[index][i]) for i in panel.columns]))
    return [*lines, r"\bottomrule", rf"\end{{{kind}}}"]


def _broken(table: Table, column: int, size: Size) -> list[str]:
    """The title of a column in lines; above numbers, none is wider than these unless a word is."""
    title = table.columns[column]
    if column < table.text_columns:
        return [title]
    room = max(_width(row[column], size) for row in table.rows)
    lines = [""]
    for word in title.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _width(longer, size) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _stacked(lines: list[str]) -> str:
    words = r"\\".join(map(_escaped, lines))
    return words if len(lines) == 1 else rf"\begin{{tabular}}[b]{{@{{}}r@{{}}}}{words}\end{{tabular}}"


def _column_width(table: Table, column: int, size: Size) -> float:
    return max(_width(cell, size) for cell in (*_broken(table, column, size), *(row[column] for row in table.rows)))


def _longest_word(table: Table, column: int, size: Size) -> float:
    cells = (table.columns[column], *(row[column] for row in table.rows))
    words = (word for cell in cells for word in _breakable(text(cell)).replace(BREAK, " ").split())
    return max((_width(word, size) for word in words), default=0.0)


def _width(cell: Cell, size: Size) -> float:
    """At most so many pt a cell takes."""
    bold = BOLD if isinstance(cell, Score) and cell.best else 1.0
    return bold * size.letter * sum(LETTERS.get(letter, OTHER) for letter in text(cell).replace(" ± ", "±"))


def _escaped(words: str) -> str:
    """Text for LaTeX, with minus signs and places for line breaks."""
    words = re.sub(r"(?<!\S)-(?=\d)", "−", words.replace("\n", " "))
    return "".join(SYMBOLS.get(letter, letter) for letter in _breakable(words)).replace(BREAK, r"\allowbreak{}")


def _breakable(words: str) -> str:
    """Words with places at which a long one, such as an address, may be broken into lines."""
    return re.sub(r"\S{30,}", lambda long: re.sub(r"(?<=[/._?=&-])", BREAK, long[0]), words)
