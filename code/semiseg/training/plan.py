"""Which stage of a training every step belongs to."""

from bisect import bisect_right
from collections.abc import Sequence

from semiseg.errors import UserError
from semiseg.method import Progress, Stage


class Plan:
    """The stages of a training with their steps, which are dealt in proportion to their shares."""

    def __init__(self, stages: Sequence[Stage], total: int, where: str) -> None:
        names = [stage.name for stage in stages]
        if len(set(names)) < len(names):
            raise UserError(f"{where}: two stages have one name; they are called {', '.join(names)}.")
        shares = [stage.share for stage in stages]
        if any(share < 0 for share in shares) or not sum(shares) > 0:
            raise UserError(f"{where}: the shares of its stages are {shares}; none may be negative, and one positive.")
        self.stages = {stage.name: stage for stage in stages}
        self.total = total
        self.ends = [round(total * sum(shares[: k + 1]) / sum(shares)) for k in range(len(shares))]
        self.starts: dict[str, int] = {}  # the first steps of those that are not left out
        for stage, start, end in zip(stages, [0, *self.ends], self.ends, strict=False):
            if stage.share and start == end:
                raise UserError(f"{where}: its stage {stage.name} gets none of {total} steps; train for more.")
            if stage.share:
                self.starts[stage.name] = start

    def progress(self, step: int) -> Progress:
        """How far the training is at a step, counted from 0 through all stages."""
        number = bisect_right(self.ends, step)  # stages without steps are passed over
        start = self.ends[number - 1] if number else 0
        return Progress(step - start, self.ends[number] - start, [*self.stages][number], start)
