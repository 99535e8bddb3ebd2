"""The table of published numbers beside what the same protocol gave here: the last weights, and what rules chose."""

from semiseg.labels import COUNT, Labels, count_of
from semiseg.report.formats import Cell, Table
from semiseg.report.published import FILE, SCORES, published_cell, read_published
from semiseg.report.results import Entry, Results
from semiseg.report.scores import predictor_cell, score_cell, untold
from semiseg.report.summary import score_statistics
from semiseg.report.wording import notes

CHOSEN = "selected on "  # how predictors begin that a rule of a protocol has chosen


def reproduced_table(results: Results) -> Table | None:
    """A row for every published number of a method that was run under a protocol here; None where there is none."""
    metric = results.primary.name
    if not results.record["spec"].get("protocol") or metric not in SCORES:
        return None
    published = read_published(results.path.parent / FILE)
    title = results.record["data"]["title"]
    published = published[[title in titles.split("; ") for titles in published.titles]]
    last = score_statistics(results)
    chosen = results.predictors
    if not chosen.empty:
        chosen = chosen[chosen.predictor.str.startswith(CHOSEN)]
    rules = [] if chosen.empty else list(dict.fromkeys(chosen.predictor))
    selected = score_statistics(results, ["predictor"], chosen) if rules else last
    entries = _bearers(results)
    rows: list[list[Cell]] = []
    shown: list[Entry] = []
    renamed: dict[str, str] = {}
    for row in published.to_dict("records"):
        entry, labels = entries.get(row["method"]), _amount(results, row["labelled"])
        if entry is None or labels is None or not row[metric]:
            continue
        shown.append(entry)
        if entry.title != row["method"]:
            renamed[row["method"]] = entry.title
        here = [predictor_cell(results, chosen, selected, entry.name, labels, rule) for rule in rules]
        measured = score_cell(results, last, metric, entry.name, labels)
        told = (row["labelled"], row["method"], row["source"], row["protocol"])
        rows.append([*told, published_cell(row[metric]), measured, *here])
    if not rows:
        return None
    return Table(
        "reproduced",
        f"Published {results.primary.percent} and what the protocol gave here",
        ["Labels", "Method", "Source", "Rule", "Published", "Last weights here", *(f"{rule} here" for rule in rules)],
        rows,
        [
            *notes(results, [entry for entry in results.entries if entry in shown]),
            *untold(rows),
            "Rule: which cases chose the published checkpoint; compare a number with the column of the same rule. "
            "Here rules choose among checkpoints of the very training whose last weights stand beside them.",
            "What was selected on validation and test, its source measured on both; here it is measured on test cases.",
            "Network, size, steps and settings are those above: where the source has others, nothing is reproduced.",
            *(f"{name} is called {title} here." for name, title in renamed.items()),
        ],
        {i for i in range(1, len(rows)) if rows[i][0] != rows[i - 1][0]},
        text_columns=4,
        heading=0,
    )  # fmt: skip


def _bearers(results: Results) -> dict[str, Entry]:
    """By the names that published tables know, the entry with a method's published settings.

    That is its own; or where trials chose others for that, a variant of it which has none of its own.
    """
    by_name, settings = {entry.name: entry for entry in results.entries}, results.settings
    variants, untuned = (settings.variants(), settings.untuned()) if settings else ({}, [])
    plain = {
        own.implementation: by_name[name]
        for name, own in variants.items()
        if name in untuned and name in by_name and not own.config and not own.training
    }
    return {
        name: entry if entry.name in untuned else plain.get(entry.name, entry)
        for entry in results.entries
        for name in (entry.title, *entry.published_as)
    }


def _amount(results: Results, published: str) -> Labels | None:
    """The amount of labels here that counts as many as a source does, whatever either calls its cases."""
    wanted = COUNT.fullmatch(published)
    counts = {counted[0]: own for own in results.amounts if (counted := count_of(own))}
    return counts.get(int(wanted[1])) if wanted else None
