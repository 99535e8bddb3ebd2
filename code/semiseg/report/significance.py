"""Whether a method's difference to the lower bound could be chance: two tests, since each answers another question."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, isnan, nan, sqrt

import numpy as np
import pandas as pd
from scipy import stats

from semiseg.data.splits import FOLDS
from semiseg.report.summary import Entry, Results, fold_scores


@dataclass(frozen=True)
class Difference:
    """A method against the lower bound with the same labels, in all folds and seeds that both finished."""

    method: str
    labels: float
    mean: float  # of Dice, over the folds
    low: float  # ends of the 95 % interval; NaN for a single fold, like p_folds
    high: float
    folds: int
    folds_above: int
    p_folds: float  # corrected t-test over folds
    groups: int  # of test cases
    groups_above: int
    p_groups: float  # Wilcoxon's signed-rank test over them
    partial: bool  # some run of either is missing
    p_folds_adjusted: float = nan  # for the number of methods at this fraction
    p_groups_adjusted: float = nan


def lower_bound(results: Results) -> Entry | None:
    """What all other methods are compared with."""
    return next((entry for entry in results.entries if entry.role == "lower bound"), None)


def differences(results: Results, bound: Entry) -> list[Difference]:
    """Every method but upper bounds against `bound`, at every label fraction that both have."""
    methods = [e.name for e in results.entries if e.role != "upper bound" and e != bound]
    found: list[Difference] = []
    for labels in results.fractions:
        block = [d for name in methods if (d := _difference(results, name, bound.name, labels))]
        for_folds, for_groups = holm([d.p_folds for d in block]), holm([d.p_groups for d in block])
        found += [
            replace(d, p_folds_adjusted=f, p_groups_adjusted=g)
            for d, f, g in zip(block, for_folds, for_groups, strict=True)
        ]
    return found


def corrected_t_test(folds: Sequence[float]) -> tuple[float, float, float]:
    """p-value and 95 % interval of the mean of per-fold differences d₁ … d_k; NaN for fewer than two.

    Trainings of different folds share cases, so that s²/k is too small a variance of the mean. Nadeau and Bengio
    (Machine Learning 2003) take (1/k + n_test/n_train) s², here with n_test/n_train = 1/(FOLDS − 1), and Student's t
    with k − 1 degrees of freedom.
    """
    count, mean = len(folds), float(np.mean(folds))
    if count < 2:
        return nan, nan, nan
    error = sqrt((1 / count + 1 / (FOLDS - 1)) * float(np.var(folds, ddof=1)))
    width = float(stats.t.ppf(0.975, count - 1)) * error
    t = abs(mean) / error if error else inf if mean else 0.0
    return 2 * float(stats.t.sf(t, count - 1)), mean - width, mean + width


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979); NaN where there is none."""
    order = sorted((i for i in range(len(p)) if not isnan(p[i])), key=lambda i: p[i])
    adjusted, highest = [nan] * len(p), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p[index]))
        adjusted[index] = highest
    return adjusted


def _difference(results: Results, method: str, bound: str, labels: float) -> Difference | None:
    finished = {
        name: {(run.fold, run.seed) for run in results.finished if (run.method, run.labels) == (name, labels)}
        for name in (method, bound)
    }
    common = finished[method] & finished[bound]
    if not common:
        return None
    cases = results.cases[(results.cases.labels == labels) & results.cases.method.isin([method, bound])]
    cases = cases[pd.MultiIndex.from_frame(cases[["fold", "seed"]]).isin(list(common))]
    by_fold, by_group = (
        (scores.loc[method] - scores.loc[bound]).to_numpy(dtype=float)
        for scores in (fold_scores(cases).dice, cases.groupby(["method", "group"]).dice.mean())
    )
    p_folds, low, high = corrected_t_test(by_fold)
    folds, seeds = results.grid()
    return Difference(
        method,
        labels,
        mean=float(by_fold.mean()),
        low=low,
        high=high,
        folds=len(by_fold),
        folds_above=int((by_fold > 0).sum()),
        p_folds=p_folds,
        groups=len(by_group),
        groups_above=int((by_group > 0).sum()),
        p_groups=float(stats.wilcoxon(by_group).pvalue) if by_group.any() else 1.0,
        partial=len(common) < len(folds) * len(seeds),
    )
