"""Image and text: the objective that was asked for, of the pairs that count."""

from math import exp, log, log1p

import pytest
import torch

from semiseg.contract import tiny_task
from semiseg.method import Batch, Progress
from semiseg.methods.image_text import ImageText
from semiseg.texts import STUDY, TEXT

CASES = {  # the first two are of one study, the last two read alike: neither are told apart
    "a": {STUDY: "1", TEXT: "A small nodule"},
    "b": {STUDY: "1", TEXT: "No fracture seen"},
    "c": {STUDY: "2", TEXT: "Lungs are clear"},
    "d": {STUDY: "3", TEXT: "Lungs are clear"},
}
TOLD_APART = [(i, j) for i in range(4) for j in range(4) if i // 2 != j // 2]


def infonce(s):
    total = 0.0
    for i in range(4):
        others = [j for a, j in TOLD_APART if a == i]
        for row in ({j: s[i][j] for j in (i, *others)}, {j: s[j][i] for j in (i, *others)}):
            total += log(sum(map(exp, row.values()))) - row[i]
    return total / 8


def donsker_varadhan(s):
    others = [exp(s[i][j]) for i, j in TOLD_APART]
    return log(sum(others) / len(others)) - sum(s[i][i] for i in range(4)) / 4


def jensen_shannon(s):
    others = [log1p(exp(s[i][j])) for i, j in TOLD_APART]
    return sum(log1p(exp(-s[i][i])) for i in range(4)) / 4 + sum(others) / len(others)


FORMULAS = {"infonce": infonce, "dv": donsker_varadhan, "jsd": jensen_shannon}


@pytest.mark.parametrize("level", ["local", "global"])
@pytest.mark.parametrize("objective", FORMULAS)
def test_the_objective_asked_for_is_minimized_over_the_pairs_that_count(objective, level):
    method = ImageText(tiny_task(2), ImageText.Config(objective=objective, level=level))
    torch.manual_seed(0)
    batch = Batch(
        {"weak": torch.rand(4, 1, 32, 32)},
        torch.zeros(0, 32, 32, dtype=torch.long),
        [*CASES],
        read=lambda case, field: CASES[case].get(field),
    )
    scored = []
    method.pairing.critic.register_forward_hook(lambda module, given, scores: scored.append(scores))
    losses = method.losses(batch, Progress(0, 10))
    assert losses.keys() == {objective}
    (scores,) = scored  # of every place of an image with every text
    best = scores.detach().double().amax(1).tolist()
    assert losses[objective].item() == pytest.approx(FORMULAS[objective](best), rel=1e-4)
