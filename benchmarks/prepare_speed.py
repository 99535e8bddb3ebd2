"""Measures how fast pictures are prepared: `python benchmarks/prepare_speed.py [IMAGES] [SIZE] [JOBS]`."""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from semiseg.data.prepare import prepare
from semiseg.data_prep.image_folder import ImageFolder


def write_pictures(source: Path, number: int, size: int) -> None:
    """Color pictures as smooth, and as noisy, as endoscopy frames, with round masks."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size - 0.5
    for folder in ("images", "masks"):
        (source / folder).mkdir(parents=True)
    for case in range(number):
        shade = 150 + 80 * np.cos(6 * x * rng.random() + y)[..., None] * (1, 0.6, 0.5)
        frame = np.clip(shade + rng.normal(0, 4, (size, size, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(frame).save(source / f"images/{case:05}.png", compress_level=3)
        Image.fromarray((np.hypot(x, y) < 0.3).astype(np.uint8) * 255).save(source / f"masks/{case:05}.png")


def main(number: int = 400, size: int = 512, jobs: int = 2) -> None:
    """Print how long it takes, who is busy, and the peak memory."""
    with tempfile.TemporaryDirectory() as root:
        write_pictures(Path(root, "pictures"), number, size)
        begun, busy = time.perf_counter(), time.process_time()
        path, _ = prepare(ImageFolder(Path(root, "pictures")), Path(root, "out"), jobs=jobs)
        seconds, busy = time.perf_counter() - begun, time.process_time() - busy
        megabytes = path.stat().st_size / 1e6
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    unit = 2**20 if sys.platform == "darwin" else 2**10  # of `ru_maxrss`, in parts of a MB
    print(
        f"{number} pictures of {size} × {size}, {jobs} processes: {seconds:.1f} s, {megabytes:.0f} MB, "
        f"10,000 would take {seconds / number * 10_000 / 60:.1f} min; processor time {busy:.1f} s here, "
        f"{children.ru_utime + children.ru_stime:.1f} s in loading processes; "
        f"peak memory {own.ru_maxrss / unit:.0f} MB here, {children.ru_maxrss / unit:.0f} MB in one of them"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
