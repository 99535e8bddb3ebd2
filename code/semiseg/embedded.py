"""The benchmark files and frozen splits that come with semiseg, in a checkout and in an installed package alike."""

from pathlib import Path

import semiseg.benchmark_files
from semiseg.errors import UserError
from semiseg.names import did_you_mean

FOLDER = Path(semiseg.benchmark_files.__path__[0])
SPLITS = FOLDER / "splits"


def find_benchmark(asked: Path) -> Path:
    """A benchmark file, or the embedded one of that name, which needs no path."""
    if asked.is_file():
        return asked
    known = embedded_benchmarks()
    if str(asked) not in known:
        names = ", ".join(known)
        meant = did_you_mean(asked.stem, known)
        raise UserError(
            f"{asked}: no such file; {meant}give the path of a benchmark file, or one of the names {names}."
        )
    return known[str(asked)]


def embedded_benchmarks() -> dict[str, Path]:
    """The benchmark files that come with semiseg, by name."""
    return {path.stem: path for pattern in ("*.yaml", "protocols/*.yaml") for path in sorted(FOLDER.glob(pattern))}
