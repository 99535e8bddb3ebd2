"""Says which command makes a data set that is missing."""

import shlex
from pathlib import Path

from semiseg.data.discovery import recipes
from semiseg.data.files import visible_files
from semiseg.data.recipe import Recipe
from semiseg.errors import UserError
from semiseg.names import did_you_mean


def missing(name: str, data: Path) -> UserError:
    """The error for a data set that is not in the folder of prepared ones."""
    known = recipes()
    own = [kind for kind in known.values() if kind.is_for_any_folder()]
    path = data / f"{name}.h5"
    if name in known and known[name] not in own:
        kind = known[name]
        if kind.downloads or (data / "raw" / name).is_dir():
            return UserError(f"{path}: there is no such data set; make it with {command(name, None, data)}.")
        how = command(name, Path("DIR"), data)
        return UserError(f"{path}: there is no such data set; make it with {how}. {kind.expected()}")
    for folder in (Path(name), data / name, data / "raw" / name):
        if folder.is_dir() and (chosen := reader(folder, own)):
            how = command(chosen.name, folder, data)
            return UserError(f"{path}: there is no such data set, but the folder {folder}; make it with {how}.")
    for kind in own:
        if kind.folder and name == kind.folder:
            how = command(kind.name, Path("DIR", name), data)
            expected = kind.expected().replace("DIR/", f"DIR/{name}/")
            return UserError(f"{path}: there is no such data set; make it with {how}. {expected}")
    ways = [
        f"{command(kind.name, Path('DIR', name), data)} for {kind.summary}" for kind in own if kind.takes_thresholds()
    ]
    others = [*(other for other, kind in known.items() if kind not in own), *(file.stem for file in data.glob("*.h5"))]
    if meant := did_you_mean(name, others):
        return UserError(f"{path}: there is no such data set; {meant}`semiseg datasets` lists what is known.")
    return UserError(
        f"{path}: there is no such data set, and neither a recipe nor a folder is called so; `semiseg datasets` lists "
        f"what is known, and files of your own become one by {', by '.join(ways)}."
    )


def no_recipe(name: str, source: Path | None, data: Path) -> UserError | None:
    """The error for the name of no recipe where it, or the source, is a folder of files of one's own."""
    known, folder = recipes(), source or Path(name)
    if name in known or did_you_mean(name, known) or not folder.is_dir():
        return None
    chosen = reader(folder, [kind for kind in known.values() if kind.is_for_any_folder()])
    how = chosen and command(chosen.name, folder, data)
    return (
        UserError(f"{name!r}: there is no such data set recipe; read the folder {folder} with {how}.") if how else None
    )


def command(recipe: str, source: Path | None, data: Path) -> str:
    """How to prepare, as it is typed."""
    words = ["semiseg", "prepare", recipe]
    words += ["--source", str(source)] if source else []
    words += ["--out", str(data)] if data != Path("data") else []
    return f"`{shlex.join(words)}`"


def reader(folder: Path, kinds: list[type[Recipe]]) -> type[Recipe] | None:
    """The recipe that finds most of its cases whole in a folder, or else knows most of the files; None if none does."""
    files = [path.lower() for path in visible_files(folder)]

    def promise(kind: type[Recipe]) -> tuple[int, int, bool, int]:
        try:
            whole = sum(not getattr(item, "problem", "") for item in kind(folder).items())
        except UserError:
            whole = 0
        # Of recipes that read the same files, the one for anybody's comes first, and the one that reads little else.
        return whole, sum(file.endswith(kind.endings) for file in files), kind.takes_thresholds(), -len(kind.endings)

    best = max(kinds, key=promise)
    return best if any(promise(best)[:2]) else None
