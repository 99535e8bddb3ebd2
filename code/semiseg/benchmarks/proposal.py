"""Settings for a new benchmark that suit the sizes of its images, the number of its cases, and the machine.

No label and no pixel takes part: what is chosen here is chosen before training, and the labels of unlabelled and test
cases may not decide it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import log, prod
from operator import le

from semiseg.data.census import Outline
from semiseg.data.splits import FOLDS, Splits
from semiseg.errors import UserError
from semiseg.method import Method
from semiseg.settings import BenchmarkSettings, RunSpec

# The two bounds, and methods of different kinds between them.
METHODS = (
    "supervised", "mean_teacher", "ua_mt", "cps", "min_max_similarity", "mutual_exemplar", "fully_supervised",
)  # fmt: skip
FRACTIONS = (0.05, 0.2, 0.5, 1.0)
DEEP, EVEN = 16, 3.0  # slices that make a volume worth 3D, and how much further apart than pixels they may be
LARGER = 0.1  # by so much a size may exceed the images
MULTIPLE = 16  # networks halve their images four times
LEAST, MOST = {2: 300, 3: 60}, 30_000  # steps: below, little is learned; the most are those of the SSL4MIS family


@dataclass(frozen=True)
class Setup:
    """What is trained on the images, each value with its reason."""

    network: str
    size: tuple[int, ...]
    batch: int  # labelled images of a step, and unlabelled ones
    why_network: str
    why_size: str
    why_batch: str


def set_up(outline: Outline, has_gpu: bool) -> Setup:
    """Network, size and batch, in 3D where slices lie about as close as pixels and are many."""
    machine = "a GPU" if has_gpu else "a CPU"
    shape = outline.size
    if outline.is_volumetric:
        spacing = outline.spacing or (1.0,) * 3
        deep, even = min(shape) >= DEEP, max(spacing) <= EVEN * min(spacing)
        if deep and even:
            size = _within(shape, 96**3 if has_gpu else 64 * 32 * 32)
            return Setup(
                "unet_3d" if has_gpu else "unet_3d_small", size, 2,
                f"3D, since volumes are deep and their slices lie close; the {'usual' if has_gpu else 'small'} one "
                f"for {machine}",
                f"patches, as large as suits {machine}; volumes usually have {_times(shape)} voxels",
                "customary in 3D",
            )  # fmt: skip
        slices = f"slice by slice, since {'slices lie far apart' if deep else 'there are few slices'}"
        shape = shape[1:]
    else:
        slices = "2D"
    size = _within(shape, 256**2 if has_gpu else 96**2)
    small = prod(size) <= 64**2
    return Setup(
        "unet" if has_gpu else "unet_small", size, 12 if has_gpu else 8 if small else 4,
        f"{slices}; the {'usual' if has_gpu else 'small'} one for {machine}",
        f"images usually have {_times(shape)} pixels and are resized to this, which suits {machine}",
        "customary" if has_gpu else "12 are customary on a GPU",
    )  # fmt: skip


def _within(shape: Sequence[int], most: int) -> tuple[int, ...]:
    """A size of about the same shape, hardly larger, with at most about so many pixels and sides that can be halved."""
    scale = min(1.0, (most / prod(shape)) ** (1 / len(shape)))
    roomy = [(1 + LARGER) * length for length in shape]
    lengths = [max(1, int(scale * length / MULTIPLE + 1e-6)) for length in shape]
    sizes = product(*([MULTIPLE * n, MULTIPLE * (n + 1)] for n in lengths))
    down = tuple(MULTIPLE * n for n in lengths)
    fitting = [s for s in sizes if prod(s) <= 1.05 * most and all(map(le, s, roomy))] or [down]

    def distortion(size: tuple[int, ...]) -> float:
        scales = [log(want / have) for want, have in zip(size, shape, strict=True)]
        return max(scales) - min(scales)

    return min(fitting, key=lambda size: (round(distortion(size), 2), -prod(size)))


def _times(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def fractions(splits: Splits, groups: dict[str, str]) -> dict[float, list[str]]:
    """The customary fractions with the cases that they label in the first fold.

    At least one group is labelled, so with few cases a small fraction would be none of these, or the same as a larger
    one; such are left out, and so is all of them, unless every fold has images without a mask.
    """
    labeled = [list(splits.partition(0, fraction, groups).labeled) for fraction in FRACTIONS]
    train = len(splits.folds[0].train)
    beyond = [*map(len, labeled[1:]), train]
    if all(splits.partition(fold, 1.0, groups).unlabeled for fold in range(FOLDS)):
        beyond[-1] += 1
    found = {
        fraction: cases
        for fraction, cases, more in zip(FRACTIONS, labeled, beyond, strict=True)
        if len(cases) < more and fraction * train >= 1
    }
    if not found:
        raise UserError(
            f"{splits.dataset}: one group holds nearly all training cases of a fold, so that nothing is left "
            "unlabelled; name finer groups."
        )
    return found


@dataclass(frozen=True)
class Pace:
    """How fast this machine is, and how many runs it carries out at the same time."""

    step: float  # seconds of a step of the first method, which sees labelled images alone
    test: float  # seconds to predict and measure one case
    jobs: int = 1


def seconds(settings: BenchmarkSettings, runs: Sequence[RunSpec], found: dict[str, type[Method]], pace: Pace,
            tests: float) -> tuple[float, float]:  # fmt: skip
    """How long all runs take for each step, and for what does not depend on steps; about.

    A network's step takes as long as it sees images, and every network is trained and tested.
    """
    training = settings.training
    more = 1 + training.unlabeled_batch / training.labeled_batch
    methods = [found[run.implementation] for run in runs]
    per_step = sum(pace.step * m.networks * (more if m.uses_unlabeled else 1) for m in methods)
    return per_step / pace.jobs, sum(pace.test * m.networks * tests for m in methods) / pace.jobs


def budget(hours: float, per_step: float, beside: float, dims: int) -> int:
    """The steps that fit the hours, two digits of them, neither too few to learn from nor more than customary."""
    fitting = (3600 * hours - beside) / per_step
    steps = min(max(fitting, LEAST[dims]), MOST)
    digit = 10 ** (len(str(int(steps))) - 2)
    return int(steps / digit) * digit
