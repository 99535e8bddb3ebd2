"""One self-contained HTML page: what was compared, the numbers, the plots, and what is missing."""

import base64
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from semiseg.labels import Labels, in_words, rank
from semiseg.report.formats import Table, html
from semiseg.report.plots import DPI, Plot
from semiseg.report.summary import Results
from semiseg.report.wording import budget, count_of_folds, data_name, data_title

SCREEN_DPI = 104  # at which plots are shown, so that their text matches the page's
CSS = """
:root {
  color-scheme: light dark;
  --text: #1c2024; --soft: #60666d; --line: #d9dde1; --back: #fff; --card: #f5f7f9;
}
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e8ea; --soft: #a0a7ae; --line: #3a4046; --back: #16191c; --card: #1f2428; }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 68rem; padding: 2.5rem 1.5rem 4rem; color: var(--text); background: var(--back);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 3rem 0 1rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
.lead { color: var(--soft); margin: 0 0 1.5rem; }
.badge {
  display: inline-block; font-size: .8rem; font-weight: 600; padding: .1rem .6rem; border-radius: 1rem;
  color: #5b3a00; background: #ffd98a; vertical-align: middle;
}
dl {
  display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.5rem; padding: 1rem 1.2rem; margin: 0;
  background: var(--card); border-radius: .5rem; font-size: .92rem;
}
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 0 0 2.2rem; }
figcaption { font-weight: 600; margin-bottom: .5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .8rem; text-align: left; white-space: nowrap; }
th { border-top: 2px solid var(--text); border-bottom: 1px solid var(--text); font-weight: 600; }
td.long { white-space: normal; }
tbody tr:last-child td { border-bottom: 2px solid var(--text); }
tr.rule td { border-top: 1px solid var(--soft); }
tbody tr:hover { background: var(--card); }
.number { text-align: right; }
.sd { color: var(--soft); font-weight: 400; font-size: .92em; }
.wide { font-size: .8rem; }
.wide th { white-space: normal; vertical-align: bottom; }
.wide th, .wide td { padding: .25rem .5rem; line-height: 1.3; }
.wide .sd { display: block; }
.notes { color: var(--soft); font-size: .85rem; margin: .6rem 0 0; padding-left: 1.1rem; }
.plot img {
  display: block; max-width: 100%; height: auto; background: #fff; padding: .6rem;
  border: 1px solid var(--line); border-radius: .4rem;
}
.plot p { color: var(--soft); font-size: .88rem; margin: .5rem 0 0; }
pre { background: var(--card); padding: .8rem 1rem; border-radius: .4rem; overflow-x: auto; }
"""


def write_page(results: Results, tables: list[Table], plots: list[Plot], pictures: Path, path: Path) -> None:
    """Write the page to `path`; `pictures` is the folder of the plots' PNG files."""
    by_name = {table.name: table for table in tables}
    name = str(results.record["spec"].get("benchmark") or results.path.name)
    synthetic = results.record["data"].get("synthetic")
    figures = "".join(_figure(plot, pictures) for plot in plots)
    missing, warnings = left_out(results), run_warnings(results)
    published = by_name.pop("published", None)
    sections = [
        ("Results", html(by_name.pop("main"))),
        ("Plots", figures),
        ("Details", "".join(html(t) for t in by_name.values() if t.name != "papers")),
        ("Runs left out", html(missing) if missing.rows else "<p>None: every run is finished.</p>"),
        ("Warnings", html(warnings) if warnings.rows else "<p>None.</p>"),
        *([("Published elsewhere", html(published))] if published else []),
        ("Methods", html(by_name["papers"])),
        (
            "Regenerate",
            "<p>Tables, plots and this page are made from the stored runs, without training:</p>"
            f"<pre>semiseg report results/{escape(results.path.name)}</pre>",
        ),
    ]
    body = "\n".join(f"<section><h2>{title}</h2>\n{content}</section>" for title, content in sections)
    badge = " <span class=badge>synthetic data</span>" if synthetic else ""
    path.write_text(
        f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(name)}: {escape(data_title(results))}</title>
<style>{CSS}</style>
</head>
<body>
<h1>{escape(data_name(results))}{badge}</h1>
<p class=lead>Semi-supervised segmentation benchmark “{escape(name)}”</p>
<dl>{"".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts(results))}</dl>
{body}
</body>
</html>
""",
        encoding="utf-8",
        newline="\n",
    )


def facts(results: Results) -> list[tuple[str, str]]:
    """What was compared, how, and on what machine."""
    data = results.record["data"]
    folds, seeds = results.grid()
    records = [run.record for run in results.finished]
    environments = [record.get("environment") or {} for record in records]
    hours = sum(record.get("seconds") or 0 for record in records) / 3600
    grouping = f"split by {data['grouping']}" if data.get("grouping") else "groups unknown"
    return [
        (
            "Data",
            f"{data_title(results)}; classes: {', '.join(results.classes)}; content hash "
            f"{str(data.get('hash', 'unknown'))[:12]}",
        ),
        (
            "Split",
            f"{count_of_folds(folds)}, {grouping}; {_count(len(seeds), 'seed')}; "
            f"labels {', '.join(map(in_words, results.amounts))}",
        ),
        ("Training", f"{budget(results)}; {_count(len(records), 'finished run')}, {hours:.1f} hours in all"),
        *(
            (key.replace("_", " ").capitalize(), _distinct(e.get(key) for e in environments))
            for key in dict.fromkeys(key for e in environments for key in e if key not in ("load", "engine"))
        ),
        ("Code", _distinct(record.get("git_commit") for record in records)),
    ]


def left_out(results: Results) -> Table:
    """Runs without a number in any table: failed, unfinished, or never started."""
    folds, seeds = results.grid()
    titles = {entry.name: entry.title for entry in results.entries}
    runs = results.finished + results.unfinished
    known = {run.key for run in runs}
    groups: dict[tuple[str, Labels, str, str], list[tuple[int, int]]] = {}
    for run in results.unfinished:
        groups.setdefault((run.method, run.labels, run.status, run.reason), []).append((run.fold, run.seed))
    for method, labels in dict.fromkeys((run.method, run.labels) for run in runs):
        absent = [(f, s) for f in folds for s in seeds if (method, labels, f, s) not in known]
        if absent:
            groups[method, labels, "not started", ""] = absent

    def order(group: tuple[tuple[str, Labels, str, str], list[tuple[int, int]]]) -> tuple[Any, ...]:
        method, labels, *others = group[0]
        return method, rank(labels), *others

    rows = [
        [
            titles.get(method, method),
            in_words(labels),
            _listed(f for f, _ in places),
            _listed(s for _, s in places),
            status,
            reason,
        ]
        for (method, labels, status, reason), places in sorted(groups.items(), key=order)
    ]
    return Table(
        "left_out",
        "Not part of any number above",
        ["Method", "Labels", "Folds", "Seeds", "Status", "Reason"],
        [list(row) for row in rows],
        [],
        text_columns=6,
    )


def run_warnings(results: Results) -> Table:
    """What the runs warned of, and any sign that they are not comparable."""
    titles = {entry.name: entry.title for entry in results.entries}
    found: dict[str, dict[str, int]] = {}
    for run in results.finished:
        for warning in run.record.get("warnings") or []:
            methods = found.setdefault(str(warning), {})
            methods[titles[run.method]] = methods.get(titles[run.method], 0) + 1
    rows: list[list[Any]] = [
        [warning, ", ".join(f"{title} ({_count(runs, 'run')})" for title, runs in methods.items())]
        for warning, methods in found.items()
    ]
    rows += [
        [f"The runs differ in their {what}; their numbers are not comparable.", "all"] for what in _differences(results)
    ]
    return Table("warnings", "Warnings of finished runs", ["Warning", "Runs"], rows, [], text_columns=2)


def _differences(results: Results) -> list[str]:
    """What all runs must share, and do not."""
    shared: dict[str, set[Any]] = {}
    for run in results.finished:
        spec, data = run.record["spec"], run.record["data"]
        split = f"split at {in_words(run.labels)}, fold {run.fold}"
        shared.setdefault("data", set()).add(data.get("hash"))
        shared.setdefault(split, set()).add(data.get("split_hash"))
        shared.setdefault("network", set()).add(spec.get("network"))
        shared.setdefault("training steps", set()).add((spec.get("training") or {}).get("steps"))
    return [what for what, values in shared.items() if len(values) > 1]


def _figure(plot: Plot, pictures: Path) -> str:
    png = (pictures / f"{plot.name}.png").read_bytes()
    pixels = int.from_bytes(png[16:20], "big")  # the width, as every PNG begins
    return (
        f"<figure class=plot><figcaption>{escape(plot.title)}</figcaption>"
        f'<img alt="{escape(plot.title)}" width="{round(pixels * SCREEN_DPI / DPI)}" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        f"<p>{escape(plot.caption)}</p></figure>\n"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _distinct(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value not in (None, ""))) or "unknown"


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(set(numbers))))
