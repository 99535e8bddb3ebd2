"""From per-case numbers to tables, plots and a page; needs no training and gives the same bytes each time."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group

from semiseg.errors import UserError
from semiseg.report.changes import earlier_results
from semiseg.report.page import write_page
from semiseg.report.plots import write_plots
from semiseg.report.reading import read_results
from semiseg.report.several import write_several
from semiseg.report.summary import summary_frame
from semiseg.report.tables import all_tables, write_tables
from semiseg.report.tables import terminal_table as _terminal_table
from semiseg.report.theirs import add_theirs

__all__ = ["report", "report_several", "terminal_table"]


def report(results: Path, out: Path | None = None, against: str | None = None, add: Sequence[Path] = ()) -> Path:
    """Write summary.csv, tables/, plots/ and index.html to `out`, or into the results; returns the page.

    Methods are compared with the method `against`, or with the lower bound. If `against` is an earlier folder of
    results instead, a further table says what changed since then. `add` are files with somebody's own per-case numbers.
    """
    content = add_theirs(read_results(results), add)
    earlier = earlier_results(content, against)
    if (earlier or add) and out is None:
        raise UserError("--out is needed: say where a report goes that is not made from one folder of results alone.")
    out = out or results
    tables = all_tables(content, None if earlier else against, earlier)
    out.mkdir(parents=True, exist_ok=True)
    summary_frame(content).to_csv(out / "summary.csv", index=False, float_format="%.6f", lineterminator="\n")
    write_tables(tables, out / "tables")
    plots = write_plots(content, out / "plots")
    given = [("--against", against), *(("--add", str(file)) for file in add)]
    options = [word for option, value in given if value for word in (option, value)]
    if options and out != results:
        options += ["--out", str(out)]
    write_page(content, tables, plots, out / "plots", out / "index.html", options)
    return out / "index.html"


def report_several(results: Sequence[Path], out: Path) -> Path:
    """Write to `out` one report on several benchmarks, with ranks over their data sets; returns the page."""
    return write_several([read_results(folder) for folder in results], out)


def terminal_table(results: Path) -> Group:
    """Dice per method and amount of labels, for printing with rich."""
    return _terminal_table(read_results(results))
