"""All tables of a report, their files, and the one for the terminal."""

from dataclasses import replace
from pathlib import Path

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from semiseg.errors import UserError
from semiseg.report.changes import changes_table
from semiseg.report.comparison import case_difference_table, difference_table
from semiseg.report.cost import cost_table
from semiseg.report.formats import ABSENT, Cell, Score, Table, comma_separated, markdown, text
from semiseg.report.latex import latex
from semiseg.report.pairs import pair_table
from semiseg.report.published import published_table
from semiseg.report.ranking import ranking_table
from semiseg.report.reproduced import reproduced_table
from semiseg.report.results import Entry, Results
from semiseg.report.scores import class_table, ensemble_table, full_table, main_table, predictor_table, role_changes
from semiseg.report.significance import case_differences, differences
from semiseg.report.wording import about, data_source, data_title


def all_tables(results: Results, against: str | None = None, earlier: Results | None = None) -> list[Table]:
    """Every table that these results can fill; differences are to the method `against`, else to the lower bound.

    If there are `earlier` results, a further table says what changed since then.
    """
    tables = [main_table(results)]
    if earlier:
        tables.append(changes_table(earlier, results))
    reference = reference_method(results, against)
    if reference and (compared := differences(results, reference)):
        tables.append(difference_table(results, reference, compared))
    if pairs := pair_table(results):
        tables.append(pairs)
    tables.append(full_table(results))
    if len(results.classes) > 1:
        tables.append(class_table(results))
    for alone, table in ((True, predictor_table), (False, ensemble_table)):
        if not results.predictors.empty and len(
            chosen := results.predictors[(results.predictors.networks == 1) == alone]
        ):
            tables.append(table(results, chosen))
    tables.append(cost_table(results))
    if reference and (compared := case_differences(results, reference)):
        tables.append(case_difference_table(results, reference, compared))
    further = (reproduced_table(results), ranking_table(results), published_table(results))
    tables += [table for table in further if table]
    told, folder = about(results), results.path.resolve().name
    return [replace(table, about=told, folder=folder) for table in (*tables, paper_table(results))]


def reference_method(results: Results, against: str | None) -> Entry | None:
    """The method that others are compared with."""
    if against is None:
        return results.bound("lower bound")
    names = {entry.name: entry for entry in results.entries if entry.role != "upper bound"}
    if against not in names:
        raise UserError(
            f"--against {against}: no such method was trained with a share of the labels, and no such folder of "
            f"earlier results exists; there are {', '.join(names) or 'no methods'}."
        )
    return names[against]


def write_tables(tables: list[Table], folder: Path) -> None:
    """Each table in three formats; those of an earlier report that this one does not have are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    formats = {".md": markdown, ".tex": latex, ".csv": comma_separated}
    for file in folder.glob("*.tex"):
        earlier = [file.with_suffix(suffix) for suffix in formats]
        if file.stem not in {table.name for table in tables} and all(one.exists() for one in earlier):
            for one in earlier:
                one.unlink()
    for table in tables:
        for suffix, render in formats.items():
            (folder / f"{table.name}{suffix}").write_text(render(table), encoding="utf-8", newline="\n")


def paper_table(results: Results) -> Table:
    """Where each method was published."""
    fields = ("title", "authors", "venue")
    rows: list[list[Cell]] = [
        [e.title, e.role, *(e.paper.get(field) or ABSENT for field in fields)] for e in results.entries
    ]
    columns = ["Method", "Role", "Paper", "Authors", "Venue"]
    return Table(
        "papers",
        "Methods and their papers",
        columns,
        rows,
        data_source(results),
        role_changes(results.entries),
        text_columns=len(columns),
        heading=1,
    )


def terminal_table(results: Results) -> Group:
    """The main table for the terminal; what stands above and below it may be wider."""
    table = main_table(results)
    rich = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)  # narrow: four scores fit 80 columns
    for index, column in enumerate(table.columns):
        rich.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for index, (entry, row) in enumerate(zip(results.entries, table.rows, strict=True)):
        rich.add_row(
            *map(_styled, row),
            style="" if entry.role == "semi-supervised" else "dim",
            end_section=index + 1 in table.rules,
        )
    title = Text(f"{table.title}, {data_title(results)}", style="italic")
    return Group(title, rich, *(Text(note, style="dim italic") for note in table.notes))


def _styled(cell: Cell) -> str:
    words = escape(text(cell))
    return f"[bold]{words}[/bold]" if isinstance(cell, Score) and cell.best else words
