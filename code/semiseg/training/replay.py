"""Steps of a GPU recorded once and replayed: one launch instead of hundreds, which is what small images wait for."""

import pickle
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from semiseg.method import Batch, Progress
from semiseg.training.draws import Unrepeatable
from semiseg.training.host_state import HostState
from semiseg.training.optimization import Optimization
from semiseg.training.showing import Showing
from semiseg.training.watched import ROOM, Number, Watched

WARM_UP = 3  # steps that are carried out before one is recorded; libraries set themselves up in them
MOST = 16  # recordings that are kept, the latest ones
CHECKS = 3  # in a row that a recording has to pass; as many failures since, or recordings that break off, are the end
CHECK_EVERY = 500  # replayed steps, from then on
SPARSE = 100  # steps that a recording beyond the first ones should be good for
ROUNDING = 0.05  # of what a step changes, which bfloat16 may do in another order
HOST_DRAWS = "the host draws a random number"

Losses = dict[str, Tensor]


class Recording(Protocol):
    """Work on a device that can be repeated without the host."""

    def record(self, work: Callable[[], None]) -> None:
        """Take down what the work launches; nothing of it is carried out."""

    def replay(self) -> None:
        """Carry it out."""


Recorder = Callable[[Iterable[Generator]], Recording]  # begins a recording in which these generators draw


class CudaGraph:
    """A recording as CUDA has it. All of a training share memory, since none is used while another is replayed.

    The first that succeeds is kept to the end, as shared memory that nobody uses cannot be used again.
    """

    def __init__(self, generators: Iterable[Generator], device: torch.device, pool: list[Any]) -> None:
        self.device, self.pool, self.generators = device, pool, [*generators]
        with torch.cuda.device(device):
            self.graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            self.graph.register_generator_state(generator)

    def record(self, work: Callable[[], None]) -> None:
        """Take down what the work launches."""
        free, _ = torch.cuda.mem_get_info(self.device)
        free += torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        if not self.pool and free < 2 * torch.cuda.max_memory_allocated(self.device):
            raise Unrepeatable("the GPU has no room for a recording beside the steps that are launched")
        memory = self.pool[0] if self.pool else torch.cuda.graph_pool_handle()
        drawn = torch.get_rng_state()  # of the host, as no recording of a device can repeat
        with torch.cuda.device(self.device):
            try:
                with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(self.graph, pool=memory):
                    work()
            except Exception:
                self._clear_up(memory)
                raise
        self.pool[:] = self.pool or [memory, self.graph]
        if not torch.equal(drawn, torch.get_rng_state()):
            torch.set_rng_state(drawn)
            raise Unrepeatable(HOST_DRAWS)

    def _clear_up(self, memory: Any) -> None:
        """A recording that broke off leaves PyTorch's generators, and its memory, as if it went on (pytorch#171263)."""
        device = torch.cuda.current_device()
        for generator in (*self.generators, torch.cuda.default_generators[device]):
            generator.graphsafe_set_state(generator.clone_state())
        with suppress(RuntimeError):  # the memory may be given back already
            torch._C._cuda_endAllocateToPool(device, memory)
            torch._C._cuda_releasePool(device, memory)

    def replay(self) -> None:
        """Launch all of it."""
        with torch.cuda.device(self.device):
            self.graph.replay()


@dataclass
class Recorded:
    """A step that can be replayed, and what must be the same for that."""

    recording: Recording
    given: tuple[Tensor, Tensor]  # where it looks for images as they are stored, and for their labels
    names: list[str]  # of the losses, and then of what is noted
    numbers: Tensor  # those
    loss_count: int  # of the numbers
    told: dict[str, float]  # noted numbers of the host
    grads: list[Tensor | None]  # where it leaves gradients
    watched: Watched
    state: list[Any]  # of the host
    passed: int = 0  # checks in a row
    failed: int = 0  # since it passed them
    since: int = 0  # replayed steps after the last check

    def fits(self, progress: Progress, state: list[Any], shown: tuple[Tensor, Tensor]) -> bool:
        """Whether a step would do the same."""
        shapes = [tensor.shape for tensor in self.given] == [tensor.shape for tensor in shown]
        return shapes and state == self.state and all(ask(progress) == answer for ask, answer in self.watched.asks)


class Replay:
    """Takes the steps of a training: the first ones launched, the others by recordings, as far as these hold.

    A recording holds for steps that begin with the same on the host. What it cannot know is not recorded: values that
    the host reads, draws or keeps from step to step, fields of cases, images of a stream, and optimizers other than the
    benchmark's. Each has to do what the step does when it is launched, three times in a row and every now and then.
    """

    def __init__(self, learn: Callable[[Batch, Progress], Losses], showing: Showing, recorder: Recorder) -> None:
        self.learn, self.showing, self.recorder = learn, showing, recorder
        self.method, self.replayed = showing.method, 0  # steps

    def begin(self, optimization: Optimization) -> None:
        """A stage is next; recordings of another one are of no use."""
        self.optimization, self.host = optimization, HostState(self.method)
        self.latest: Recorded | None = None  # by whose gradients parameters were moved last
        self.taken = self.recorded = self.broken = 0  # steps of the stage, recordings, and those that broke off
        self.refused = "" if optimization.repeatable else "it has optimizers of its own"  # why nothing is recorded
        self.kept: list[Recorded] = []

    def step(self, number: int, progress: Progress, launch: Callable[[], Losses]) -> Losses:
        """The losses of a step, counted through all stages; `launch` takes it as it comes."""
        self.taken += 1
        latest, self.latest = self.latest, None
        if self.refused or self.taken <= WARM_UP:
            return launch()
        state, shown = self.host.now(), self.showing.data.batch(number)
        known = next((known for known in self.kept if known.fits(progress, state, shown)), None)
        if known is None:
            losses = launch()  # first, for what is set up by the way
            self._record(number, progress, shown)
            return losses
        if known.passed < CHECKS or known.since >= CHECK_EVERY:
            return self._check(known, number, progress, shown, launch)
        self.replayed += 1
        known.since += 1
        if latest is not known:
            for parameter, grad in zip(self.host.parameters, known.grads, strict=True):
                parameter.grad = grad
        self.latest = known
        return self._replay(known, number, progress, shown)

    def _refuse(self, why: str) -> None:
        self.refused, self.kept = why, []

    def _record(self, number: int, progress: Progress, shown: tuple[Tensor, Tensor]) -> None:
        """Make a recording for steps like this one, or find that there can be none."""
        if self.recorded >= MOST + self.taken // SPARSE:
            return self._refuse("hardly two of its steps are alike")
        self.recorded += 1
        self.kept = self.kept[-MOST + 1 :]
        try:
            self.kept.append(self._recorded(number, progress, shown))
        except Unrepeatable as error:
            self._refuse(str(error))
        except Exception as error:  # what is wrong with the step itself shows when it is launched
            self.broken += 1
            self.kept = []  # they draw from generators that are no longer seeded
            if self.broken == CHECKS:
                self._refuse(str(error) or type(error).__name__)

    def _recorded(self, number: int, progress: Progress, shown: tuple[Tensor, Tensor]) -> Recorded:
        given, state = (shown[0].clone(), shown[1].clone()), self.host.now()
        watched = Watched(progress, torch.zeros(ROOM, device=shown[0].device))
        recording = self.recorder(self.showing.draws.generators)
        made: list[tuple[list[str], Tensor, int, dict[str, float], list[Tensor | None]]] = []

        def work() -> None:
            losses = self.learn(self.showing.show(*given, number), watched)
            noted = {name: v.tensor if isinstance(v, Number) else v for name, v in self.method.noted.items()}
            told = {name: v for name, v in noted.items() if not isinstance(v, Tensor)}
            pairs = [*losses.items(), *((name, v) for name, v in noted.items() if isinstance(v, Tensor))]
            numbers = torch.stack([v.detach().float() for _, v in pairs])
            grads = [parameter.grad for parameter in self.host.parameters]
            made.append(([name for name, _ in pairs], numbers, len(losses), told, grads))

        with self.host.untouched(), _host_draws_nothing(), self.showing.draws.unseeded():
            self.method.noted = {}
            recording.record(work)
        return Recorded(recording, given, *made[0], watched, state)

    def _replay(self, known: Recorded, number: int, progress: Progress, shown: tuple[Tensor, Tensor]) -> Losses:
        for place, tensor in zip(known.given, shown, strict=True):
            place.copy_(tensor)
        for place, ask in zip(known.watched.room, known.watched.slots, strict=False):
            place.fill_(ask(progress))
        self.showing.draws.begin(number)
        known.recording.replay()
        numbers = [*zip(known.names, known.numbers.clone().unbind(), strict=True)]  # others write to their place
        self.method.noted |= {**known.told, **dict(numbers[known.loss_count :])}
        return dict(numbers[: known.loss_count])

    @torch.no_grad()
    def _check(
        self,
        known: Recorded,
        number: int,
        progress: Progress,
        shown: tuple[Tensor, Tensor],
        launch: Callable[[], Losses],
    ) -> Losses:
        """Take a step both ways; what counts is the step as it comes."""
        groups = self._groups
        before = [[tensor.clone() for tensor in group] for group in groups]
        said = self._replay(known, number, progress, shown)
        after = [[tensor.clone() for tensor in group] for group in groups]
        for group, old in zip(groups, before, strict=True):
            for tensor, value in zip(group, old, strict=True):
                tensor.copy_(value)
        with torch.enable_grad():
            losses = launch()
        alike = (
            said.keys() == losses.keys()
            and all(_close([said[name]], [loss], [torch.zeros_like(loss)]) for name, loss in losses.items())
            and all(map(_close, after, groups, before))
        )
        known.passed = known.passed + 1 if alike else 0
        known.failed = 0 if known.passed >= CHECKS else known.failed + (not alike)
        known.since = 0
        if known.failed == CHECKS:
            self._refuse("it does something else when it is replayed")
        return losses

    @property
    def _groups(self) -> list[list[Tensor]]:
        """All that a step may change; weights and their momenta as a whole, as rounding alone moves some of them."""
        momenta = [*self.optimization.state_dict().values()]
        return [[*self.method.parameters()], *([momenta] if momenta else []), *([b] for b in self.method.buffers())]


def _close(replayed: list[Tensor], wanted: list[Tensor], before: list[Tensor]) -> bool:
    """Whether a step changed tensors alike both ways, but for rounding, whose order is not fixed on a GPU."""
    if not wanted[0].is_floating_point():
        return all(map(torch.equal, replayed, wanted))
    off = torch.cat([(a - b).flatten().float() for a, b in zip(replayed, wanted, strict=True)])
    moved = torch.cat([(a - b).flatten().float() for a, b in zip(wanted, before, strict=True)])
    return bool(off.norm() <= ROUNDING * moved.norm() + 1e-6 * off.numel() ** 0.5)


@contextmanager
def _host_draws_nothing() -> Iterator[None]:
    """Draws of Python and NumPy are undone, and refused."""
    drawn = random.getstate(), pickle.dumps(np.random.get_state())
    try:
        yield
        now = random.getstate(), pickle.dumps(np.random.get_state())
    finally:
        random.setstate(drawn[0])
        np.random.set_state(pickle.loads(drawn[1]))
    if now != drawn:
        raise Unrepeatable(HOST_DRAWS)
