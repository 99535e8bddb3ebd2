"""In what the runs of a report differ that should not."""

from typing import Any

from semiseg.labels import in_words
from semiseg.report.results import Results
from semiseg.settings import OWN_TRAINING, WATCHING

UNCOUNTED = (*WATCHING, "precision")  # change no training, or stand in every table


def differing(results: Results) -> list[str]:
    """What all runs must share, and do not."""
    shared: dict[str, set[Any]] = {}
    own_training = results.settings.own_training if results.settings else OWN_TRAINING
    may_differ = {*own_training, *UNCOUNTED}
    for run in results.own:
        spec, data = run.record["spec"], run.record["data"]
        split = f"split at {in_words(run.labels)}, fold {results.fold_name(run.fold)}"
        shared.setdefault("data", set()).add(data.get("hash"))
        shared.setdefault(split, set()).add(data.get("split_hash"))
        shared.setdefault("network", set()).add(spec.get("network"))
        for setting, value in (spec.get("training") or {}).items():  # what a run does not tell is younger than it
            if setting not in may_differ:
                shared.setdefault(f"training ({setting})", set()).add(str(value))
            elif setting not in UNCOUNTED and not run.record.get("kept"):
                shared.setdefault(f"training of {run.method} ({setting})", set()).add(str(value))
        for setting, value in ({} if run.record.get("kept") else spec.get("config") or {}).items():
            shared.setdefault(f"settings of {run.method} ({setting})", set()).add(str(value))
    return [what for what, values in shared.items() if len(values) > 1]
