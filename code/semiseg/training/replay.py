"""Steps of a GPU recorded once and replayed: one launch instead of hundreds, which is what small images wait for."""

import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Generator, Tensor, nn

from semiseg.method import Batch, Progress
from semiseg.training.draws import Unrepeatable
from semiseg.training.optimization import Optimization
from semiseg.training.showing import Showing
from semiseg.training.watched import ROOM, Watched

HOST_DRAWS = "the host draws a random number"
WARM_UP = 3  # steps that are carried out before one is recorded; libraries set themselves up in them
MOST = 16  # recordings that are kept, the latest ones
ROUNDING = 0.05  # of what a step changes, which bfloat16 may do in another order
CHECKS = 3  # how often a recording may differ from what it stands for before it is given up

Learn = Callable[[Batch, Progress], dict[str, Tensor]]
Shown = tuple[Tensor, Tensor]  # images as they are stored, and their labels


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

    def __init__(self, generators: Iterable[Generator], pool: list[Any]) -> None:
        self.graph, self.pool = torch.cuda.CUDAGraph(), pool
        self.generators = [*generators]
        for generator in self.generators:
            self.graph.register_generator_state(generator)

    def record(self, work: Callable[[], None]) -> None:
        """Take down what the work launches."""
        memory = self.pool[0] if self.pool else torch.cuda.graph_pool_handle()
        drawn = torch.get_rng_state()  # of the host, as no recording of a device can repeat
        try:
            with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(self.graph, pool=memory):
                work()
        except Exception:
            self._clear_up(memory)
            raise
        self.pool[:] = self.pool or [memory, self.graph]
        if not torch.equal(drawn, torch.get_rng_state()):
            raise Unrepeatable(HOST_DRAWS)

    def _clear_up(self, memory: Any) -> None:
        """A recording that broke off leaves PyTorch's generators, and its memory, as if it went on (pytorch#171263)."""
        device = torch.cuda.current_device()
        for generator in (*self.generators, torch.cuda.default_generators[device]):
            generator.graphsafe_set_state(generator.clone_state())
        with suppress(RuntimeError):  # the memory may be given back already
            torch._C._cuda_endAllocateToPool(device, memory)

    def replay(self) -> None:
        """Launch all of it."""
        self.graph.replay()


@dataclass
class Recorded:
    """A step that can be replayed, and what must be the same for that."""

    recording: Recording
    batch: Batch
    given: Shown  # where it looks for them
    names: list[str]  # of the losses
    losses: Tensor
    noted: dict[str, Tensor | float]
    watched: Watched
    state: list[Any]  # what the method keeps on the host
    checked: bool = False  # to do what a step that comes later does
    failed: int = 0  # how often it did not

    def fits(self, progress: Progress, state: list[Any], shown: Shown) -> bool:
        """Whether a step would do the same."""
        shapes = [tensor.shape for tensor in self.given] == [tensor.shape for tensor in shown]
        return shapes and state == self.state and all(ask(progress) == answer for ask, answer in self.watched.asks)


class Replay:
    """Takes the steps of a training: the first ones as they come, the others by recordings, as far as these hold.

    What a recording cannot know is not recorded: values that the host reads or draws, fields of cases, images of a
    stream, and optimizers other than the benchmark's. What else a method may keep from it, such as a counter in a plain
    attribute, shows when a step is taken both ways, which every recording has to pass. All else is taken as it comes.
    """

    def __init__(self, learn: Learn, showing: Showing, recorder: Recorder) -> None:
        self.learn, self.showing, self.recorder = learn, showing, recorder
        self.method, self.replayed = showing.method, 0  # steps
        self.keepers = [m for m in self.method.modules() if type(m).get_extra_state is not nn.Module.get_extra_state]

    def begin(self, optimization: Optimization) -> None:
        """A stage is next; recordings of another one are of no use."""
        self.optimization, self.taken, self.recorded = optimization, 0, 0  # steps of the stage
        self.refused = "" if optimization.repeatable else "it has optimizers of its own"  # why nothing is recorded
        self.kept: list[Recorded] = []

    def step(self, number: int, progress: Progress) -> tuple[dict[str, Tensor], Batch]:
        """The losses of a step, counted through all stages, and its images."""
        self.taken += 1
        shown = self.showing.data.batch(number)
        if self.refused or self.taken <= WARM_UP:
            return self._as_it_comes(number, progress, shown)
        state = [_told(keeper.get_extra_state()) for keeper in self.keepers]
        known = next((known for known in self.kept if known.fits(progress, state, shown)), None)
        if known is None:
            self._record(number, progress, shown, state)
            return self._as_it_comes(number, progress, shown)
        if not known.checked:
            return self._check(known, number, progress, shown)
        self.replayed += 1
        return self._replay(known, number, progress, shown), known.batch

    def _as_it_comes(self, number: int, progress: Progress, shown: Shown) -> tuple[dict[str, Tensor], Batch]:
        self.showing.draws.begin(number)
        batch = self.showing.show(*shown, number)
        return self.learn(batch, progress), batch

    def _refuse(self, why: str) -> None:
        self.refused, self.kept = why, []

    def _record(self, number: int, progress: Progress, shown: Shown, state: list[Any]) -> None:
        """Make a recording for steps like this one, or find that there can be none."""
        if self.recorded > MOST + self.taken // 8:
            return self._refuse("hardly two of its steps are alike")
        self.recorded += 1
        self.kept = self.kept[-MOST + 1 :]
        try:
            self.kept.append(self._recorded(number, progress, shown, state))
        except (Unrepeatable, RuntimeError) as error:
            self._refuse(str(error) or type(error).__name__)

    def _recorded(self, number: int, progress: Progress, shown: Shown, state: list[Any]) -> Recorded:
        given = shown[0].clone(), shown[1].clone()
        watched = Watched(progress, torch.zeros(ROOM, device=shown[0].device))
        made: list[tuple[Batch, dict[str, Tensor], Tensor]] = []

        def work() -> None:
            batch = self.showing.show(*given, number)
            losses = self.learn(batch, watched)
            made.append((batch, losses, torch.stack([*losses.values()])))

        recording, places = self.recorder(self.showing.draws.generators), self._places
        noted, self.method.noted, drawn = self.method.noted, {}, random.getstate()
        try:
            with self.showing.draws.recorded():
                recording.record(work)
            new = self.method.noted
        finally:
            self.method.noted = noted
        if places != self._places:
            raise Unrepeatable("it puts new tensors in the place of those that it keeps")
        if drawn != random.getstate():
            raise Unrepeatable(HOST_DRAWS)
        batch, losses, together = made[0]
        return Recorded(recording, batch, given, [*losses], together, new, watched, state)

    @property
    def _groups(self) -> list[list[Tensor]]:
        """All that a step may change; weights and their momenta as a whole, as rounding alone moves some of them."""
        momenta = [*self.optimization.state_dict().values()]
        return [[*self.method.parameters()], *([momenta] if momenta else []), *([b] for b in self.method.buffers())]

    @property
    def _places(self) -> list[int]:
        return [tensor.data_ptr() for group in self._groups for tensor in group]

    def _replay(self, known: Recorded, number: int, progress: Progress, shown: Shown) -> dict[str, Tensor]:
        for place, tensor in zip(known.given, shown, strict=True):
            place.copy_(tensor)
        for place, ask in zip(known.watched.room, known.watched.slots, strict=False):
            place.fill_(ask(progress))
        self.showing.draws.begin(number)
        known.recording.replay()
        self.method.noted |= known.noted
        return dict(zip(known.names, known.losses.clone().unbind(), strict=True))

    @torch.no_grad()
    def _check(self, known: Recorded, number: int, progress: Progress, shown: Shown) -> tuple[dict[str, Tensor], Batch]:
        """Take a step both ways; what counts is the step as it comes."""
        groups = self._groups
        before = [[tensor.clone() for tensor in group] for group in groups]
        said = self._replay(known, number, progress, shown)
        after = [[tensor.clone() for tensor in group] for group in groups]
        for group, old in zip(groups, before, strict=True):
            for tensor, value in zip(group, old, strict=True):
                tensor.copy_(value)
        with torch.enable_grad():
            losses, batch = self._as_it_comes(number, progress, shown)
        known.checked = (
            said.keys() == losses.keys()
            and all(_close([said[name]], [loss], [torch.zeros_like(loss)]) for name, loss in losses.items())
            and all(map(_close, after, groups, before))
        )
        known.failed += not known.checked
        if known.failed == CHECKS:
            self._refuse("it does something else when it is replayed")
        return losses, batch


def _close(replayed: list[Tensor], wanted: list[Tensor], before: list[Tensor]) -> bool:
    """Whether a step changed tensors alike both ways, but for rounding, whose order is not fixed on a GPU."""
    if not wanted[0].is_floating_point():
        return all(map(torch.equal, replayed, wanted))
    off = torch.cat([(a - b).flatten().float() for a, b in zip(replayed, wanted, strict=True)])
    moved = torch.cat([(a - b).flatten().float() for a, b in zip(wanted, before, strict=True)])
    return bool(off.norm() <= ROUNDING * moved.norm() + 1e-6 * off.numel() ** 0.5)


def _told(state: Any) -> Any:
    """What a module keeps on the host, comparable; what it keeps on a device is there for a recording, too."""
    if not isinstance(state, Tensor):
        return state
    return state.tolist() if state.device.type == "cpu" else ()
