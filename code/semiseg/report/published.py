"""The table of numbers that others published on the data of a benchmark, apart from those measured here."""

from pathlib import Path

import pandas as pd

from semiseg.errors import UserError
from semiseg.report.formats import ABSENT, Cell, Number, Table
from semiseg.report.results import Results

FILE = "published.csv"  # beside the folders of results
SCORES = {"dice": "Dice (%)", "jaccard": "Jaccard (%)", "hd95": "HD95", "asd": "ASD"}
COLUMNS = ("dataset", "titles", "labelled", "method", *SCORES, "protocol", "source", "note")
PROTOCOLS = {  # which cases chose the checkpoint that was measured, in the order of the explanation
    "last weights": "the weights after the last step, no choice",
    "last weights, measured on validation": "likewise, measured on validation cases",
    "last weights, measured on validation and test": "likewise, measured on both",
    "selected on validation": "the best checkpoint on validation cases, measured on others",
    "selected and measured on validation": "the best checkpoint on the very validation cases that it was measured on",
    "selected on validation and test": "the best checkpoint on validation and test cases together, measured on both",
    "selected on test": "the best checkpoint on the very test cases that it was measured on",
    "not stated": "the source does not say",
}


def read_published(file: Path) -> pd.DataFrame:
    """The published numbers in `file`, all as they are written there; without rows where there is no such file."""
    if not file.exists():
        return pd.DataFrame(columns=list(COLUMNS))
    try:
        rows = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise UserError(f"{file}: cannot be read as a table ({error}); restore it, or take it away.") from error
    if absent := [column for column in COLUMNS if column not in rows]:
        raise UserError(f"{file}: lacks the columns {', '.join(absent)}; add them.")
    if unknown := sorted(set(rows.protocol) - set(PROTOCOLS)):
        raise UserError(f"{file}: unknown protocol {unknown[0]!r}; write one of {'; '.join(PROTOCOLS)}.")
    if not (rows.source != "").all():
        raise UserError(f"{file}: {rows.method[rows.source == ''].iloc[0]} has no source; say where the numbers stand.")
    for score in SCORES:
        odd = rows[(rows[score] != "") & pd.to_numeric(rows[score], errors="coerce").isna()]
        for method, number in zip(odd.method, odd[score], strict=True):
            raise UserError(f"{file}: {score} of {method} is {number!r}; write a number, or nothing.")
    return rows


def published_table(results: Results) -> Table | None:
    """What others published on these data, in the file's order; None where there is nothing."""
    rows = read_published(results.path.parent / FILE)
    title = results.record["data"]["title"]
    rows = rows[[title in titles.split("; ") for titles in rows.titles]]
    if rows.empty:
        return None
    amounts = rows.labelled.tolist()
    protocols = [f"{name}: {meaning}" for name, meaning in PROTOCOLS.items() if (rows.protocol == name).any()]
    cells: list[list[Cell]] = [
        [row["labelled"], row["method"], row["protocol"], row["source"], *(published_cell(row[s]) for s in SCORES)]
        for row in rows.to_dict("records")
    ]
    return Table(
        "published",
        f"Published elsewhere on {rows.dataset.iloc[0]}: not measured here, not comparable with the other tables",
        ["Labels", "Method", "Protocol", "Source", *SCORES.values()],
        cells,
        [
            "As the sources have them: other splits, networks, image sizes and budgets than here, so that nothing is "
            "ranked, and no method of another table is compared with these.",
            f"Protocol, which cases chose the checkpoint: {'; '.join(protocols)}.",
            f"By label amount and name. {FILE} beside the folders of results has the rows with a remark on each.",
        ],
        {i for i in range(1, len(cells)) if amounts[i] != amounts[i - 1]},
        text_columns=4,
        heading=0,
    )


def published_cell(number: str) -> Cell:
    """A number as its source prints it."""
    return Number(number, {"": float(number)}) if number else ABSENT
