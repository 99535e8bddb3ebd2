"""A quiet Ray cluster, and the question whether its nodes can carry out runs."""

import logging
import os
import signal
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from semiseg.errors import UserError, UserErrors
from semiseg.settings import RunSpec
from semiseg.training.identity import engine_hash
from semiseg.training.places import Places

PATIENCE = 300.0  # seconds for a node to start a process and to import torch, perhaps from a slow network folder
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # of what nodes print: dead processes are in the records of their runs
}
ON_THIS_MACHINE: dict[str, Any] = {
    "include_dashboard": False,
    "object_store_memory": 80 * 2**20,  # nearly the least possible: only settings and records pass through it
}


@contextmanager
def cluster(address: str | None) -> Iterator[Any]:
    """The module `ray`, connected to a running cluster, or to one that is here for as long as the context."""
    os.environ.update(QUIET)
    if address is None:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # which means: listen to this machine alone
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray: Ray is not installed; pip install 'semiseg[ray]'.") from None
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        if address and address != "auto":
            _knock(address)
        ray.init(
            address or "local",
            logging_level=logging.ERROR,
            log_to_driver=False,
            runtime_env={"env_vars": {"PYTHONUTF8": "1"}},
            **({} if address else ON_THIS_MACHINE),
        )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise UserError(
            f"--executor ray: no cluster can be used at {address or 'this machine'} ({one_line(error)}); "
            "begin one with `ray start --head`, or leave the address out to have one started here."
        ) from error
    finally:
        with suppress(ValueError):  # outside the main thread
            signal.signal(signal.SIGTERM, terminated)  # the command has its own way to end
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise an OSError if nobody answers, which Ray would find out only after minutes of complaints."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=10).close()


def room(ray: Any, needs: dict[str, float]) -> dict[str, int]:
    """For how many tasks with such needs every living node is large enough, by its number; none without any room."""
    nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    tasks = {
        node: min(int(resources.get(kind, 0) / amount) for kind, amount in needs.items() if amount)
        for node, resources in nodes.items()
    }
    return {node: number for node, number in tasks.items() if number}


@dataclass(frozen=True)
class Common:
    """What a node must have in common with the machine of the command."""

    folder: Path  # relative paths in settings are meant from here
    paths: tuple[Path, ...]  # all that must be seen
    versions: dict[str, str]

    def demand(self) -> None:
        """Refuse the machine that this is called on, in one line that names it, if it lacks anything."""
        here = f"the node {socket.gethostname()}"
        for path in self.paths:
            if not path.exists():
                raise UserError(f"{here} does not see {path}; work in a folder that all nodes share, at the same path.")
        for name, version in versions().items():
            if version != self.versions[name]:
                raise UserError(f"{here} has {name} {version[:12]}, not {self.versions[name][:12]}; install the same.")


@contextmanager
def common(runs: Sequence[RunSpec], places: Places) -> Iterator[Common]:
    """What is there to be shared, and a new file among the results: an old one could be another folder's, too."""
    places.results.mkdir(parents=True, exist_ok=True)
    paths = {places.data / f"{spec.dataset}.h5" for spec in runs} | {
        Path(s.weights).absolute() for s in runs if s.weights
    }
    paths |= {Path.cwd(), places.splits, *([places.methods_dir] if places.methods_dir else [])}
    with tempfile.NamedTemporaryFile(prefix=".seen-by-nodes-", dir=places.results) as token:
        seen = (Path(token.name), *sorted(path for path in paths if path.exists()))
        yield Common(Path.cwd(), seen, versions())


def versions() -> dict[str, str]:
    """The code that results depend on most."""
    return {"torch": torch.__version__, "the engine": engine_hash()}


def check_nodes(ray: Any, nodes: Sequence[str], needed: Common) -> None:
    """Refuse a cluster before anything starts if one of these nodes cannot carry out runs."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=0)(Common.demand)
    looks = [
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(needed)
        for node in nodes
    ]
    names = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes()}
    problems = []
    for node, ended in zip(nodes, looks, strict=True):
        try:
            ray.get(ended, timeout=PATIENCE)
        except UserError as error:
            problems.append(f"--executor ray: {one_line(error)}")
        except ray.exceptions.RayError as error:
            problems.append(f"--executor ray: the node {names[node]} cannot carry out runs ({one_line(error)}).")
    if problems:
        raise UserErrors(problems)


def one_line(error: Exception) -> str:
    """What went wrong, without the traceback that Ray adds."""
    cause = getattr(error, "cause", None) or error
    text = next(iter(str(cause).splitlines()), "")
    return text if isinstance(cause, UserError) else f"{type(cause).__name__}: {text}"
