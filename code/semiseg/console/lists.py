"""What `semiseg methods`, `networks` and `datasets` list."""

import inspect
import os
from pathlib import Path
from typing import Any

from semiseg.console.terminal import print_json, print_lines, print_list, show_left_out
from semiseg.data.discovery import recipes
from semiseg.data.store import Dataset
from semiseg.errors import UserError
from semiseg.networks import NETWORKS
from semiseg.registry import find_methods
from semiseg.tasks import DEFAULT


def list_methods(methods_dir: Path | None, as_json: bool) -> None:
    """One line per method, those of each task below each other, then one per start."""
    found = find_methods(methods_dir)
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "kind": kind,
            "learns": method.learns,
            "title": method.title,
            "networks": method.networks,
            "venue": method.paper.venue,
            "paper": f"{method.paper.authors}, {method.paper.venue}",
            "paper_title": method.paper.title,
            "file": os.path.relpath(inspect.getfile(method)),
        }
        for kind, plugins in (("method", found), ("start", found.starts))
        for name, method in plugins.items()
    ]
    if as_json:
        print_json(rows)
    else:
        kinds = [row["kind"] + _of_task(row) for row in rows]  # which name the first column
        for kind in sorted(dict.fromkeys(kinds)):
            shown = [{kind: row["name"], **row} for of, row in zip(kinds, rows, strict=True) if of == kind]
            print_lines(shown, (kind, "title", "networks", "venue"))
    show_left_out(found)


def _of_task(row: dict[str, Any]) -> str:
    """What a method learns, if that is not masks."""
    return "" if row["kind"] == "start" or row["learns"] == DEFAULT else f" of {row['learns']}"


def list_networks(methods_dir: Path | None, as_json: bool) -> None:
    """One line per network."""
    found = find_methods(methods_dir)  # the files of methods and networks are looked for in the same places
    rows = []
    for name, network in sorted(NETWORKS.items()):
        where = NETWORKS.offers[name].where
        weights = [*network.packages, *(["a file"] if network.load_weights else [])]
        rows.append(
            {
                "name": name,
                "dims": " ".join(f"{dims}D" for dims in network.dims),
                "weights": ", ".join(weights),
                "file": os.path.relpath(where) if Path(where).exists() else where,
            }
        )
    print_list(rows, as_json, ("name", "dims", "weights"))
    show_left_out(found)


def list_datasets(data_dir: Path, as_json: bool) -> None:
    """One line per data set that can be had or is there."""
    known = recipes()
    rows: list[dict[str, Any]] = []
    for name in sorted({*known, *(p.stem for p in data_dir.glob("*.h5"))}):
        row: dict[str, Any] = {"name": name, "state": "", "cases": None, "classes": None}
        row |= dict.fromkeys(("licence", "task", "page", "citation", "layout", "groups", "masks"), "")
        if kind := known.get(name):
            about = kind if kind.layout else kind().info()  # what is generated needs no files to tell
            row |= {"state": kind.access(), "classes": len(about.classes) or None, "licence": about.licence}
            row |= {"task": kind.task or kind.summary, "page": kind.page or kind.registration}
            row |= {"citation": kind.citation, "layout": kind.layout}
        if (data_dir / f"{name}.h5").exists():
            try:
                dataset = Dataset(data_dir / f"{name}.h5")
                row |= {"state": "ready", "cases": len(dataset.records), "classes": len(dataset.info.classes)}
                row |= {"licence": dataset.info.licence, "task": row["task"] or dataset.info.title}
                row |= {"page": dataset.info.source, "citation": dataset.info.citation}
                row |= {"groups": dataset.info.grouping or "unknown", "masks": dataset.info.masks}
            except UserError:
                row |= {"state": "damaged, prepare it again"}
        row["task"] += f" (masks: {row['masks']})" if row["masks"] and not as_json else ""
        rows.append(row)
    print_list(rows, as_json, ("name", "state", "cases", "classes", "licence", "task"))
