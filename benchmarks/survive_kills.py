"""Kill a training with SIGKILL at random moments, again and again, and compare its scores with an undisturbed run's.

    python benchmarks/survive_kills.py 100

Every trial forks a process that carries out a run on generated data, and kills it after a random time. The next one
goes on from what was left. A run that gets through is compared byte for byte and a new one begins. Prints what came of
it, and ends with code 1 if a single byte differs.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

from semiseg.contract import CPU, tiny_dataset
from semiseg.settings import RunSpec, TrainingSettings
from semiseg.training.lease import holder
from semiseg.training.places import Places
from semiseg.training.run import earlier_record, execute

TRAINING = TrainingSettings(
    steps=24, size=(16, 16), labeled_batch=2, unlabeled_batch=2, precision="float32", log_every=5, checkpoint_every=3
)


def specification(method: str, seed: int) -> RunSpec:
    """A run of about a second."""
    return RunSpec(
        benchmark="kills", dataset="tiny", method=method, implementation=method, config={}, labels=0.25, fold=0,
        seed=seed, network="unet_small", weights=None, training=TRAINING,
    )  # fmt: skip


def attempt(spec: RunSpec, places: Places, seconds: float | None) -> bool:
    """Carry out a run in a process of its own, killed after so many seconds; whether it got to its end."""
    process = os.fork()
    if not process:
        try:
            os._exit(0 if execute(spec, places, CPU)["status"] == "finished" else 1)
        finally:
            os._exit(2)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f"{spec.folder}: failed with {code}: {earlier_record(places.results / spec.folder)}")
    return code == 0


def trials(kills: int, root: Path, method: str = "mean_teacher", seed: int = 0) -> dict[str, int]:
    """Kill so many times; how many runs got through, and in how many of them a byte differed."""
    torch.set_num_threads(1)  # so that forked processes inherit no threads
    moments = random.Random(seed)
    (root / "data").mkdir()
    tiny_dataset(root / "data" / "tiny.h5", 2)
    undisturbed = Places(root / "undisturbed", root / "data", root / "splits")
    places = Places(root / "killed", root / "data", root / "splits")
    spec = specification(method, 0)
    execute(spec, undisturbed, CPU)  # in this process, so that those forked from it have everything imported
    begun = time.perf_counter()
    attempt(specification(method, 1), undisturbed, None)
    whole = time.perf_counter() - begun
    expected = (undisturbed.results / spec.folder / "cases.csv").read_bytes()
    survived = finished = different = 0
    while survived < kills:
        done = attempt(spec, places, moments.uniform(0, whole))
        survived += not done
        folder = places.results / spec.folder
        if holder(folder) is not None:
            raise SystemExit(f"{folder}: a dead process still holds it")
        if done or survived == kills:
            done = done or attempt(spec, places, None)
            finished += 1
            different += (folder / "cases.csv").read_bytes() != expected
            folder.rename(root / f"finished-{finished}")
    return {"kills": survived, "runs": finished, "different": different}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kills", type=int, nargs="?", default=100)
    parser.add_argument("--method", default="mean_teacher")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = trials(options.kills, Path(folder), options.method)
    print(", ".join(f"{value} {name}" for name, value in result.items()))
    sys.exit(bool(result["different"]))
