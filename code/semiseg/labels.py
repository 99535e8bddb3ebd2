"""How much of the training cases is labelled: a share of them, or a number of groups or cases."""

import re
from typing import Any

Labels = float | str  # 0.05, or a count in the user's words: "3 patients", "10 cases"
COUNT = re.compile(r"(\d+) *([^\W\d_]+)")


def read_labels(value: Any) -> Any:
    """Read 0.05 or "5%" as a share above 0 and up to 1, and "3 patients" or "10 cases" as a count."""
    number = value
    if isinstance(value, str):
        if match := COUNT.fullmatch(value.strip()):
            return counted(int(match[1]), match[2])
        try:
            number = float(value.strip().removesuffix("%")) / (100 if value.strip().endswith("%") else 1)
        except ValueError:
            raise ValueError(f"{value!r} is no fraction and no count; write 5%, 0.05, 3 patients or 10 cases") from None
    if isinstance(number, bool) or not isinstance(number, int | float) or not 1e-6 <= number <= 1:
        raise ValueError(
            f"a fraction of labels lies above 0 and at most at 1 (100%), not {value!r}; "
            "of a count say what is counted: 3 patients, 10 cases"
        )
    return round(number, 6)


def counted(number: int, noun: str) -> str:
    """A count as it is kept: "1 patient", "3 patients"."""
    if not number:
        raise ValueError(f"0 {noun} are no labels; write a number above 0")
    return f"{number} {_singular(noun)}{'' if number == 1 else 's'}"


def count_of(labels: Labels) -> tuple[int, str] | None:
    """How many of what are labelled, in the singular: (3, "patient"); None for a share."""
    if not isinstance(labels, str):
        return None
    number, noun = labels.split()
    return int(number), _singular(noun)


def in_words(labels: Labels) -> str:
    """As people write it: "5 %", "3 patients"."""
    return labels if isinstance(labels, str) else f"{100 * labels:.10g} %"


def folder_of(labels: Labels) -> str:
    """The folder of runs with these labels: labels-05, labels-3-patients."""
    return f"labels-{labels.replace(' ', '-') if isinstance(labels, str) else f'{100 * labels:02g}'}"


def labels_of(folder: str) -> Labels:
    """What `folder_of` made a folder of."""
    words = folder.removeprefix("labels-").replace("-", " ")
    try:
        return str(read_labels(words)) if COUNT.fullmatch(words) else float(words) / 100
    except ValueError:
        return 0.0


def rank(labels: Labels) -> tuple[int, float, str]:
    """A key that sorts shares by size and counts by number, the shares first."""
    number, noun = count_of(labels) or (labels, "")
    return int(bool(noun)), float(number), noun


def same(labels: Labels) -> Labels:
    """Alike for counts that mean the same, whatever groups are called."""
    number, noun = count_of(labels) or (labels, "")
    return labels if noun in ("", "case") else f"{number} groups"


def _singular(noun: str) -> str:
    return noun.lower().removesuffix("s")
