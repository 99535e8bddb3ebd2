"""One report on several benchmarks: what each is compared by side by side, average ranks, and a page."""

from dataclasses import replace
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from semiseg.errors import UserError
from semiseg.labels import in_words
from semiseg.metrics import Metric
from semiseg.report.formats import ABSENT, Cell, Number, Table
from semiseg.report.page import write_joint_page
from semiseg.report.plots import Plot, save_figure
from semiseg.report.rank_plots import critical_difference_diagram, rank_plot
from semiseg.report.ranks import DIAGRAM, Ranks, average_ranks, critical_difference, data_set, friedman, no_diagram
from semiseg.report.results import ROLES, Entry, Results
from semiseg.report.scores import mark_best, role_changes, score_cell
from semiseg.report.style import RC
from semiseg.report.summary import score_statistics, summary_frame
from semiseg.report.tables import write_tables
from semiseg.report.wording import about, data_title, notes, told_apart


def write_several(contents: list[Results], out: Path) -> Path:
    """Write summary.csv, tables/, plots/ and index.html on all of them to `out`; returns the page."""
    names = [results.path.name for results in contents]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{', '.join(twice)}: several folders have this name; rename one, tables tell them by it.")
    entries = all_entries(contents)
    groups = by_metric(contents)
    suffixes = [f"_{metric.name}" if len(groups) > 1 else "" for metric in groups]
    rankings = [(own, average_ranks(own), suffix) for own, suffix in zip(groups.values(), suffixes, strict=True)]
    made = [(contents, combined_table(contents, entries))]
    made += [(own, ranks_table(own, entries, ranks, suffix)) for own, ranks, suffix in rankings]
    tables = [replace(table, about="; ".join(_headings(own)), folder="-".join(names)) for own, table in made]
    out.mkdir(parents=True, exist_ok=True)
    frames = [summary_frame(results) for results in contents]
    summary = pd.concat(frames, keys=names, names=["benchmark"]).reset_index("benchmark")
    summary.to_csv(out / "summary.csv", index=False, float_format="%.6f", lineterminator="\n")
    write_tables(tables, out / "tables")
    plots = _draw(rankings, entries, out / "plots")
    write_joint_page(contents, tables, plots, out / "plots", out / "index.html")
    return out / "index.html"


def all_entries(contents: list[Results]) -> list[Entry]:
    """Every method once, bounds around the others; it is the same one where it has the same name."""
    found: dict[str, Entry] = {}
    for results in contents:
        for entry in results.entries:
            found.setdefault(entry.name, entry)
    return sorted(found.values(), key=lambda entry: ROLES.index(entry.role))


def by_metric(contents: list[Results]) -> dict[Metric, list[Results]]:
    """The benchmarks by what methods are compared by in them."""
    found: dict[Metric, list[Results]] = {}
    for results in contents:
        found.setdefault(results.primary, []).append(results)
    return found


def combined_table(contents: list[Results], entries: list[Entry]) -> Table:
    """Every method in every benchmark at every amount of labels, by what methods are compared by there."""
    metrics = list(by_metric(contents))
    columns = [(results, labels, score_statistics(results)) for results in contents for labels in results.amounts]
    rows: list[list[Cell]] = [
        [entry.title, *(score_cell(of, scores, of.primary.name, entry.name, labels) for of, labels, scores in columns)]
        for entry in entries
    ]
    several = [
        "Different metrics do not compare: no mean is taken over them, and ranks are averaged within each alone."
    ] * (len(metrics) > 1)
    for column in range(1, len(columns) + 1):
        mark_best(rows, column, [entry.role == "semi-supervised" for entry in entries], "higher")
    return Table(
        "combined",
        f"{' and '.join(metric.percent for metric in metrics)} in every benchmark",
        ["Method"]
        + [
            f"{of.path.name} {in_words(labels)}" + f", {of.primary.percent}" * bool(several)
            for of, labels, _ in columns
        ],
        rows,
        ["Bold: best semi-supervised method among complete cells.", *several, *_told(contents)],
        role_changes(entries),
    )


def ranks_table(contents: list[Results], entries: list[Entry], ranks: Ranks, suffix: str = "") -> Table:
    """The average rank of every method that is complete everywhere, and its rank in each data set.

    All benchmarks have one metric; where there are others, the table's name has a suffix.
    """
    titles, data_sets, average = {e.name: e.title for e in entries}, ranks.data_sets, ranks.average
    names, metric = _names(contents), contents[0].primary
    rows: list[list[Cell]] = [
        [titles[str(method)], *(Number(f"{rank:.2f}", {"": float(rank)}) for rank in (mean, *data_sets[method]))]
        for method, mean in average.items()
    ]
    told = [
        f"Ranks by {metric.title}, 1 the best, in {len(ranks.blocks)} comparisons (a benchmark at one amount of "
        f"labels), averaged within each of {len(data_sets)} data sets and then over these. Benchmarks on the same data "
        "are one data set.",
        "Only methods with all their runs in every comparison are ranked"
        + (f"; left out: {', '.join(titles[name] for name in ranks.left_out)}." if ranks.left_out else "."),
    ]
    if suffix:
        told.append("Benchmarks of other metrics have ranks of their own; no rank is averaged over different metrics.")
    if ranks.skipped:
        told.append(f"Not counted, since fewer than two methods are complete there: {', '.join(ranks.skipped)}.")
    if enough(ranks):
        told.append(
            f"Friedman's test over data sets: p {friedman(data_sets):.3g}; critical difference of Nemenyi at 5 %, "
            f"for methods ranked anew in each data set, as in the diagram: "
            f"{critical_difference(len(average), len(data_sets)):.2f}."
        )
    elif len(data_sets) < DIAGRAM:
        told.append(no_diagram(len(data_sets)))
    return Table(
        f"ranks{suffix}",
        f"Average ranks by {metric.title}",
        ["Method", "Average rank", *(names[str(data)] for data in data_sets.index)],
        rows or [["None", *[ABSENT] * (1 + len(data_sets))]],
        [*told, *_told(contents, spread=False)],
    )


def enough(ranks: Ranks) -> bool:
    """Whether there are data sets and methods enough for a critical difference."""
    return len(ranks.data_sets) >= DIAGRAM and ranks.blocks.shape[1] > 2


def _names(contents: list[Results]) -> dict[str, str]:
    """The title of every data set; where two have the same one, with a benchmark's name."""
    first = {data_set(results): results for results in reversed(contents)}
    titles = [data_title(results) for results in first.values()]
    return dict(zip(first, told_apart(titles, [results.path.name for results in first.values()]), strict=True))


def _told(contents: list[Results], spread: bool = True) -> list[str]:
    """The footnotes of all benchmarks, each with the name of its own; `spread` explains ±."""
    return [f"{results.path.name}: {' '.join(notes(results, results.entries, spread))}" for results in contents]


def _headings(contents: list[Results]) -> list[str]:
    """What each benchmark was, for a heading."""
    return [f"{results.path.name}: {about(results)}" for results in contents]


def _draw(rankings: list[tuple[list[Results], Ranks, str]], entries: list[Entry], folder: Path) -> list[Plot]:
    """Draw what can be drawn of the benchmarks, the ranks and the suffix of each metric."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn: list[tuple[Plot, Figure]] = []
    with matplotlib.rc_context(RC):
        for contents, ranks, suffix in rankings:
            told, metric = _headings(contents), contents[0].primary.title
            if ranks.blocks.shape[1] > 1:
                caption = f"Ranks by {metric} in every data set, averaged over its amounts of labels, and their mean."
                plot = Plot(f"ranks{suffix}", f"Average ranks by {metric}", caption, "; ".join(told))
                drawn.append((plot, rank_plot(ranks, entries, _names(contents), told, metric)))
            if enough(ranks):
                caption = "Bars join methods whose average ranks differ by less than the critical difference."
                plot = Plot(
                    f"critical_differences{suffix}", f"Critical differences by {metric}", caption, "; ".join(told)
                )
                drawn.append((plot, critical_difference_diagram(ranks.data_sets, entries, told)))
        for plot, figure in drawn:
            save_figure(figure, folder / plot.name)
    return [plot for plot, _ in drawn]
