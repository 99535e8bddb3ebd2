"""One self-contained HTML page: a leaderboard, the tables and plots, every run, and what is missing."""

import base64
import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from semiseg.report.formats import Table, comma_separated, html, markdown
from semiseg.report.latex import latex
from semiseg.report.page_cases import case_data
from semiseg.report.page_data import cell_keys, page_data, page_metrics
from semiseg.report.plots import DPI, Plot
from semiseg.report.provenance import facts, left_out, not_begun, run_warnings
from semiseg.report.results import Results
from semiseg.report.wording import budget, count_of_folds, data_name, data_title

SCREEN_DPI = 104  # at which plots are shown, so that their text matches the page's
WEB = Path(__file__).with_name("web")
# In the order in which they need each other; plain scripts share their names.
SCRIPTS = ("dom", "theme", "copy", "runs", "leaderboard", "outlines", "scatter", "cases")
BOARD = "<noscript><p>Sorting and filtering need JavaScript; the tables below do not.</p></noscript>"
# The browser itself refuses whatever would leave the page.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def write_page(
    results: Results, tables: list[Table], plots: list[Plot], pictures: Path, path: Path, options: Sequence[str] = ()
) -> None:
    """Write the page to `path`; `pictures` is the folder of the plots' PNG files."""
    name = str(results.record["spec"].get("benchmark") or results.path.name)
    apart = {name: "".join(_table(t) for t in tables if t.name == name) for name in ("papers", "published")}
    warnings = run_warnings(results)
    described = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts(results))
    sections = {
        "Leaderboard": BOARD,
        "Cases": "",
        "Tables": "".join(_table(table) for table in tables if table.name not in apart),
        "Plots": "".join(_figure(plot, pictures) for plot in plots),
        "Setup": f"<dl>{described}</dl>{apart['papers']}",
        "Left out": _left_out(results),
        "Warnings": html(warnings) if warnings.rows else "<p>None.</p>",
        **({"Published elsewhere": apart["published"]} if apart["published"] else {}),
        "Regenerate": "<p>Tables, plots and this page are made from the stored runs, without training:</p>"
        f"<pre>{escape(shlex.join(['semiseg', 'report', _place(results), *options]))}</pre>",
    }
    badge = " <span class=badge>synthetic data</span>" if results.record["data"].get("synthetic") else ""
    about = [f"semi-supervised {results.kind.name}", count_of_folds(results), budget(results)]
    lead = f"Benchmark “{name}”: {', '.join(about)}"
    title, heading = f"{name}: {data_title(results)}", f"{escape(data_name(results))}{badge}"
    _write(path, title, heading, lead, sections, _data([results], tables))


def write_joint_page(
    contents: list[Results], tables: list[Table], plots: list[Plot], pictures: Path, path: Path
) -> None:
    """Write the page on several benchmarks to `path`; each benchmark's own page has the rest."""
    names = [results.path.name for results in contents]
    sections = {
        "Leaderboard": BOARD,
        "Cases": "",
        "Tables": "".join(map(_table, tables)),
        "Plots": "".join(_figure(plot, pictures) for plot in plots) or "<p>None: there is nothing to rank.</p>",
        "Left out": "".join(_left_out(results, f"{results.path.name}: ") for results in contents),
        "Regenerate": "<p>Tables, plots and this page are made from the stored runs, without training:</p>"
        f"<pre>{escape(shlex.join(['semiseg', 'report', *map(_place, contents), '--out', 'FOLDER']))}</pre>",
    }
    _write(path, ", ".join(names), "Several benchmarks", ", ".join(names), sections, _data(contents, tables))


def _place(results: Results) -> str:
    """The folder of results as a command names it: from `results` on, wherever that lies, or as it was given."""
    parts = results.path.parts
    start = len(parts) - 1 - parts[::-1].index("results") if "results" in parts[:-1] else 0
    return Path(*parts[start:]).as_posix()


def _left_out(results: Results, heading: str = "") -> str:
    """Runs without a number, and what nobody has begun."""
    table, asked = left_out(results), not_begun(results)
    if not table.rows:
        words = f"Every run that was begun is finished. {asked}" if asked else "Nothing: every run is finished."
        return f"<p>{escape(heading + words)}</p>"
    title = f"{heading}{table.title[0].lower()}{table.title[1:]}" if heading else table.title
    return html(replace(table, title=title)) + (f"<p>{escape(asked)}</p>" if asked else "")


def _data(contents: list[Results], tables: list[Table]) -> dict[str, Any]:
    """What the scripts read."""
    data = page_data(contents) | {"tables": {table.name: _copies(table) for table in tables}}
    for results, benchmark in zip(contents, data["benchmarks"], strict=True):
        benchmark |= case_data(results, cell_keys(results), page_metrics(contents))
    return data


def _write(path: Path, title: str, heading: str, lead: str, sections: dict[str, str], data: dict[str, Any]) -> None:
    """The document around the sections; `heading` is HTML, and so are the sections by their titles."""
    ids = {title: title.lower().replace(" ", "-") for title in sections}
    links = "".join(f'<a href="#{ids[title]}">{title}</a>' for title in sections)
    body = "\n".join(
        f'<section id="{ids[title]}" aria-label="{title}"><h2>{title}</h2>\n{content}</section>'
        for title, content in sections.items()
    )
    path.write_text(
        f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(title)}</title>
<style>
{_web("page.css")}</style>
</head>
<body>
<header>
<h1>{heading}</h1>
<p class=lead>{escape(lead)}</p>
<nav aria-label="Sections">{links}</nav>
</header>
<main>
{body}
</main>
<script type="application/json" id="data">{_json(data)}</script>
<script>
"use strict";
{"".join(_web(f"{script}.js") for script in SCRIPTS)}</script>
</body>
</html>
""",
        encoding="utf-8",
        newline="\n",
    )


def _web(name: str) -> str:
    return (WEB / name).read_text(encoding="utf-8")


def _json(data: object) -> str:
    """Compact, and with nothing in it that could end a script."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _copies(table: Table) -> dict[str, str]:
    return {"LaTeX": latex(table), "Markdown": markdown(table), "CSV": comma_separated(table)}


def _table(table: Table) -> str:
    return f'<div class=table data-table="{escape(table.name)}">{html(table)}</div>\n'


def _figure(plot: Plot, pictures: Path) -> str:
    png = (pictures / f"{plot.name}.png").read_bytes()
    pixels = int.from_bytes(png[16:20], "big")  # the width, as every PNG begins
    about = f"<span class=about>: {escape(plot.about)}</span>" if plot.about else ""
    return (
        f"<figure class=plot><figcaption>{escape(plot.title)}{about}</figcaption>"
        f'<img alt="{escape(plot.title)}" width="{round(pixels * SCREEN_DPI / DPI)}" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        f"<p>{escape(plot.caption)}</p></figure>\n"
    )
