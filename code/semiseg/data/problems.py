"""Says once what is wrong with many files in the same way."""

import re
from itertools import takewhile
from pathlib import PurePath

# What two lines about the same kind of problem may differ in: quoted names, paths, and numbers in a row.
VARYING = re.compile(r"'[^']*'|\"[^\"]*\"|[^\s'(,;]*[/\\][^\s',;)]*|-?\d[\w.]*(?:, -?\d[\w.]*)*(?:, \.\.\.)?")
SHOWN = 3  # examples


def one_of_each_kind(problems: list[str]) -> list[str]:
    """The first line about each kind of problem; if there are others, with their number and two that it also concerns.

    A line begins with a path and a colon.
    """
    kinds: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for problem in problems:
        fixed, varying = _taken_apart(problem)
        kinds.setdefault(tuple(fixed), {})[problem] = varying
    return [_told(fixed, list(same.values())) for fixed, same in kinds.items()]


def _taken_apart(problem: str) -> tuple[list[str], list[str]]:
    """What a line has in common with others of its kind, and what stands between these parts, which is one less."""
    place, colon, text = problem.partition(": ")
    if not colon:
        return [problem], []
    # Other files of the case may be called alike, with spaces or whatever else would be taken for text.
    name = PurePath(place).name.partition(".")[0]
    namesake = rf"[^\s'(,;]*{re.escape(name)}(?:\.\w+)+|" if name else ""
    varying = re.compile(namesake + VARYING.pattern)
    return ["", *varying.split(colon + text)], [place, *varying.findall(text)]


def _told(fixed: tuple[str, ...], same: list[list[str]]) -> str:
    first, *others = same
    if others:
        differs = next(i for i, value in enumerate(first) if any(other[i] != value for other in others))
        values = dict.fromkeys(other[differs] for other in others if other[differs] != first[differs])
        examples = " and ".join([_from_where_they_part(first[differs], value) for value in values][: SHOWN - 1])
        first = [*first]
        first[differs] += f" (one of {len(same)}, like {examples})"
    return "".join(part for pair in zip(fixed, [*first, ""], strict=True) for part in pair)


def _from_where_they_part(path: str, other: str) -> str:
    """The other path without the folders that both are in."""
    parts = PurePath(other).parts
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(PurePath(path).parts, parts, strict=False)))
    return str(PurePath(*parts[same:]))
