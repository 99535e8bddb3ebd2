"""The methods of a report: what each is called, what it stands for, and in which order they come."""

from typing import Any

from semiseg.report.results import ROLES, Entry, Role, Run

REFERENCE = "supervised"  # comes first wherever it was run, whatever the last command asked for


def entries_of(runs: list[Run], asked: list[str]) -> list[Entry]:
    """The methods with results: lower bounds first, upper bounds last, in between as the benchmark says.

    The first lower bound is what others are compared with.
    """
    entries: dict[str, Entry] = {}
    titles = _titles(runs)
    for run in runs:
        described = run.record["method"]
        names = described.get("published_as") or () if run.method == _implementation(run) else ()
        told = described.get("paper") or {}, tuple(names)
        entries.setdefault(run.method, Entry(run.method, _title(run, titles), _role(run.record), *told))
    place = {name: index for index, name in enumerate(asked)}
    return sorted(
        entries.values(),
        key=lambda e: (
            ROLES.index(e.role),
            e.name != REFERENCE,
            place.get(e.name, len(place)),
            e.title.lower(),
            e.name,
        ),
    )


def _role(record: dict[str, Any]) -> Role:
    """A bound begins at random: whatever starts from a pre-training has learned from unlabelled images, too."""
    if record["spec"].get("start"):
        return "semi-supervised"
    if record["method"]["uses_all_labels"]:
        return "upper bound"
    return "semi-supervised" if record["method"]["uses_unlabeled"] else "lower bound"


def _titles(runs: list[Run]) -> dict[str, str]:
    """What plug-ins are called, by name; older runs of a variant do not tell, and have its name in place of that."""
    told = [(_implementation(run), run.method, str(run.record["method"].get("title") or run.method)) for run in runs]
    return {plugin: title for plugin, name, title in told if plugin == name or title != name}


def _title(run: Run, titles: dict[str, str]) -> str:
    """What a method is called: a variant whose name begins with its method's has that one's title and the rest."""
    plugin = _implementation(run)
    if plugin == run.method:
        return titles[plugin]
    rest = run.method.removeprefix(f"{plugin}_")
    if rest == run.method or plugin not in titles:
        return run.method.replace("_", " ")
    return f"{titles[plugin]} ({rest.replace('_', ' ')})"


def _implementation(run: Run) -> str:
    return run.record["spec"].get("implementation") or run.method
