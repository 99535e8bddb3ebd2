"""Whether a method's difference to a reference could be chance: over trainings, and apart from that over test cases."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan, sqrt

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import stdtr, stdtrit

from semiseg.data.splits import FOLDS
from semiseg.labels import Labels
from semiseg.report.results import Entry, Results
from semiseg.report.summary import fold_scores, primary_scores

ENOUGH = 3  # folds; with two, Student's t has one degree of freedom and reaches 12.7 standard errors either way
EQUIVALENT = 0.01  # of Dice: two methods within one point of each other are as good as equal


@dataclass(frozen=True)
class Evidence:
    """What paired differences say of their true mean; NaN for what cannot be said."""

    p: float = nan  # two-sided, of a true mean of 0
    low: float = nan  # ends of the 95 % interval
    high: float = nan
    worse: float = nan  # probability of a true mean below −EQUIVALENT
    equivalent: float = nan  # in between
    better: float = nan  # above +EQUIVALENT


@dataclass(frozen=True)
class Difference:
    """A method against the reference with the same labels, in all folds and seeds that both finished on one split."""

    method: str
    labels: Labels
    mean: float  # of Dice, over the pairs
    pairs: int  # folds of all repeats, or groups of test cases
    above: int
    evidence: Evidence
    partial: bool  # some run of either is missing
    p_adjusted: float = nan  # for the number of methods with these labels


def differences(results: Results, reference: Entry) -> list[Difference]:
    """Every method but upper bounds against `reference`, with all labels that both have, over trainings."""
    return _compare(results, reference, lambda cases: primary_scores(fold_scores(cases)), corrected_t_test)


def case_differences(results: Results, reference: Entry) -> list[Difference]:
    """The same over groups of test cases, whose Dice is the mean over cases, classes and trainings."""
    return _compare(
        results,
        reference,
        lambda cases: primary_scores(cases).groupby([cases.method, cases.group]).mean(),
        signed_rank_test,
    )


def corrected_t_test(folds: np.ndarray) -> Evidence:
    """Evidence of the mean d̄ of differences d₁ … d_k in the folds of all repeats; none for fewer than ENOUGH.

    Trainings of different folds share cases, so that s²/k is too small a variance of the mean. Nadeau and Bengio
    (Machine Learning 2003) take (1/k + n_test/n_train) s², here with n_test/n_train = 1/(FOLDS − 1), and Student's t
    with k − 1 degrees of freedom. The same t around d̄ is the posterior of the true mean (Corani and Benavoli, Machine
    Learning 2015), of which `worse`, `equivalent` and `better` are three parts: that a method makes no difference is a
    finding, too, and no p-value can show it.

    In simulated benchmarks of three repeats without a true difference (tests/test_significance.py) p < 0.05 came out in
    1 to 7 %, and with s²/k in 21 to 38 %. It does not cure everything: the more of a difference comes from training
    cases that folds share, the more often p is too small, in up to 56 % if that were all.
    """
    count, mean = len(folds), float(np.mean(folds))
    if count < ENOUGH:
        return Evidence()
    error = sqrt((1 / count + 1 / (FOLDS - 1)) * float(np.var(folds, ddof=1)))
    if not error:
        certain = (mean < -EQUIVALENT, abs(mean) <= EQUIVALENT, mean > EQUIVALENT)
        return Evidence(float(not mean), mean, mean, *map(float, certain))

    def below(value: float) -> float:
        return float(stdtr(count - 1, (value - mean) / error))

    p = 2 * float(stdtr(count - 1, -abs(mean) / error))
    width = float(stdtrit(count - 1, 0.975)) * error
    worse, not_better = below(-EQUIVALENT), below(EQUIVALENT)
    return Evidence(p, mean - width, mean + width, worse, not_better - worse, 1 - not_better)


def signed_rank_test(groups: np.ndarray) -> Evidence:
    """Wilcoxon's p-value of differences in groups of test cases, 1 where there are none."""
    return Evidence(float(stats.wilcoxon(groups).pvalue) if groups.any() else 1.0)


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979); NaN where there is none."""
    order = sorted((i for i in range(len(p)) if not isnan(p[i])), key=lambda i: p[i])
    adjusted, highest = [nan] * len(p), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p[index]))
        adjusted[index] = highest
    return adjusted


def _compare(
    results: Results,
    reference: Entry,
    score: Callable[[pd.DataFrame], pd.Series],
    test: Callable[[np.ndarray], Evidence],
) -> list[Difference]:
    """The differences in `score`, one for each method and what is paired, and what `test` says of them."""
    methods = [e.name for e in results.entries if e.role != "upper bound" and e != reference]
    bounds = {e.name for e in results.entries if e.role == reference.role == "lower bound"}
    folds, seeds = results.grid
    found: list[Difference] = []
    for labels in results.amounts:
        trained = {name: results.trained.get((name, labels), set()) for name in (*methods, reference.name)}
        block = []
        for name in methods:
            common = {(fold, seed) for fold, seed, _ in trained[name] & trained[reference.name]}
            if not common:
                continue
            cases = results.cases[(results.cases.labels == labels) & results.cases.method.isin([name, reference.name])]
            scores = score(cases[pd.MultiIndex.from_frame(cases[["fold", "seed"]]).isin(list(common))])
            pairs = (scores.loc[name] - scores.loc[reference.name]).to_numpy(dtype=float)
            partial = len(common) < len(folds) * len(seeds)
            above = int((pairs > 0).sum())
            block.append(Difference(name, labels, float(pairs.mean()), len(pairs), above, test(pairs), partial))
        # Compared with a lower bound, another one, such as three Supervised networks, has no gain that is in question.
        adjusted = holm([nan if d.method in bounds else d.evidence.p for d in block])
        found += [replace(d, p_adjusted=p) for d, p in zip(block, adjusted, strict=True)]
    return found
