"""Fixed-sample statistics: intervals, paired tests, multiplicity, planning. Pure functions; no I/O, no clock.

A case is the unit. Its repeats are averaged first, so that asking a question ten times does not count as ten
questions. Scores are in [0, 1] (`binary`: 0 or 1; `unit`: anything between) or positive amounts (`positive`: ms, USD).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from functools import lru_cache
from statistics import fmean
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from proveout.evals.distributions import (
    beta_cdf,
    beta_quantile,
    binomial_tail,
    negative_binomial_tail,
    normal_cdf,
    normal_quantile,
    root,
    t_quantile,
)

Floats = NDArray[np.float64]
Kind = Literal["binary", "unit", "positive"]
Better = Literal["higher", "lower"]
Answers = Sequence[Sequence[float]]
"""One sequence of repeats a case. Values that are not finite are left out."""

FLIPS = 9_999
_MANY = 2_000
_PRODUCT = 250_000  # multiplications at a time: more would be spread over threads, which costs more than it saves
_ALL_CHANCE = 1 - 1e-12
_UNSEEN = 0.02  # prior events of a rate of which none was seen; small, so that 2 of 500 against 0 of 500 still tell


class Interval(msgspec.Struct, frozen=True):
    """An estimate between two bounds; an infinite bound is one that these data cannot give. `n` counts cases."""

    estimate: float
    low: float
    high: float
    n: int
    confidence: float = 0.95


# -- intervals of one sample ----------------------------------------------------------------------


def case_means(cases: Answers) -> Floats:
    """The mean of each case's finite repeats; cases without any are left out."""
    means = [fmean(kept) for case in cases if (kept := [v for v in case if math.isfinite(v)])]
    return np.array(means, dtype=np.float64)


def scores_interval(cases: Answers, confidence: float = 0.95) -> Interval:
    """The mean of scores in [0, 1].

    One yes or no a case: Jeffreys' interval (Brown, Cai & DasGupta 2001, Statistical Science 16:101). Else Wilson's
    with the number of cases that a sample of yes and no with this variance would have (Korn & Graubard 1998, Survey
    Methodology 24:193) and Student's t. Raises ValueError without a score.
    """
    x, mean = _sample(cases)
    n = len(x)
    if _single_binary(cases):
        yes, tail = float(x.sum()), (1 - confidence) / 2
        low = beta_quantile(tail, yes + 0.5, n - yes + 0.5) if yes > 0 else 0.0
        high = beta_quantile(1 - tail, yes + 0.5, n - yes + 0.5) if yes < n else 1.0
        return Interval(mean, low, high, n, confidence)
    low, high = _wilson(mean, _effective(x, mean), t_quantile((1 + confidence) / 2, max(n - 1, 1)))
    return Interval(mean, low, high, n, confidence)


def exact_interval(cases: Answers, confidence: float = 0.95) -> Interval:
    """The mean of scores in [0, 1] by Clopper & Pearson (1934) with Korn & Graubard's number of cases. Conservative,
    so it decides whether targets are met; to describe a mean, `scores_interval` is narrower."""
    x, mean = _sample(cases)
    effective, tail = _effective(x, mean), (1 - confidence) / 2
    if not _single_binary(cases) and len(x) > 1:
        effective *= (normal_quantile(1 - tail) / t_quantile(1 - tail, len(x) - 1)) ** 2
    yes, no = mean * effective, (1 - mean) * effective
    low = beta_quantile(tail, yes, no + 1) if yes > 0 else 0.0
    high = beta_quantile(1 - tail, yes + 1, no) if no > 0 else 1.0
    return Interval(mean, low, high, len(x), confidence)


def amounts_interval(cases: Answers, confidence: float = 0.95) -> Interval:
    """The mean of unbounded amounts, skewed as latencies are: Student's t after Hall's transformation, which takes the
    skewness out (Hall 1992, JRSS B 54:221). Raises ValueError without a value; one case has no bounds."""
    x, mean = _sample(cases)
    n = len(x)
    if n < 2:
        return Interval(mean, -math.inf, math.inf, n, confidence)
    deviation = x - mean
    spread = float(np.sqrt(np.mean(deviation**2)))
    if spread <= 1e-12 * abs(mean):
        return Interval(mean, mean, mean, n, confidence)
    bend = float(np.mean((deviation / spread) ** 3)) / math.sqrt(n)
    error, t = spread / math.sqrt(n - 1), t_quantile((1 + confidence) / 2, n - 1)
    low, high = (mean - _straight(y, bend) * error for y in (t, -t))
    return Interval(mean, low, high, n, confidence)


def quantile_interval(cases: Answers, level: float, confidence: float = 0.95) -> Interval:
    """The `level` quantile of all answers, by order statistics with fractional ranks (Hutson 1999, J. Applied
    Statistics 26:343); repeats of a case count for less the more alike they are (Woodruff 1952)."""
    groups = [[v for v in case if math.isfinite(v)] for case in cases]
    groups = [group for group in groups if group]
    values = np.sort(np.array([v for group in groups for v in group], dtype=np.float64))
    total = len(values)
    if total == 0:
        raise ValueError("an interval needs at least one value")
    estimate = float(np.quantile(values, level))
    n = float(len(groups))
    if total > len(groups):
        weights = np.array([len(group) for group in groups], dtype=np.float64)
        below = np.array([sum(v <= estimate for v in group) for group in groups], dtype=np.float64)
        variance = float(np.sum((below - weights * level) ** 2)) / total**2
        sure = normal_quantile((1 + confidence) / 2) / t_quantile((1 + confidence) / 2, max(len(groups) - 1, 1))
        n = min(float(total), max(n, sure**2 * level * (1 - level) / variance)) if variance > 0 else n
    tail = (1 - confidence) / 2
    low = _fractional_rank(n, level, 1 - tail)
    high = _fractional_rank(n, level, tail)
    at = np.arange(1, total + 1)

    def value(rank: float) -> float:
        return float(np.interp(rank / (n + 1) * (total + 1), at, values))

    low_value = value(low) if low > 0 else -math.inf
    high_value = value(high) if high < n else math.inf
    return Interval(estimate, min(low_value, estimate), max(high_value, estimate), len(groups), confidence)


@lru_cache(maxsize=1024)
def _fractional_rank(n: float, level: float, sure: float) -> float:
    """The rank k in (0, n) whose order statistic lies below the quantile with probability `sure`; 0 or n: none does."""

    def short(k: float) -> float:
        return beta_cdf(level, k, n - k + 1)

    smallest, largest = 1e-9, n
    if short(largest) > sure:
        return n
    if short(1.0) < sure:
        return 0.0
    return root(lambda k: sure - short(k), smallest, largest)


def _sample(cases: Answers) -> tuple[Floats, float]:
    x = case_means(cases)
    if len(x) == 0:
        raise ValueError("an interval needs at least one value")
    return x, float(x.mean())


def _single_binary(cases: Answers) -> bool:
    return all(len(case) <= 1 and all(v in (0.0, 1.0) or not math.isfinite(v) for v in case) for case in cases)


def _wilson(share: float, n: float, t: float) -> tuple[float, float]:
    """Wilson's (1927) bounds of a share in [0, 1] seen in `n` cases."""
    middle = (share + t * t / (2 * n)) / (1 + t * t / n)
    half = t * math.sqrt(max(0.0, share * (1 - share)) / n + (t / (2 * n)) ** 2) / (1 + t * t / n)
    return max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share))


def _effective(x: Floats, mean: float) -> float:
    """How many independent yes-or-no cases would leave the variance that the mean of `x` has."""
    n, spread = len(x), mean * (1 - mean)
    if n < 2 or spread <= 0:
        return float(n)
    yes_no = bool(np.all((x == 0) | (x == 1)))
    variance = float(x.var(ddof=0 if yes_no else 1))
    return n * spread / max(variance, 1e-9)


def _straight(y: float, bend: float) -> float:
    """The inverse of Hall's transformation of the t statistic; `bend` is skewness / √n."""
    if abs(bend) < 1e-6:
        return y
    return 3 / bend * (float(np.cbrt(1 + bend * (y - bend / 6))) - 1)


# -- differences on the same cases ----------------------------------------------------------------


def difference_interval(differences: Floats, confidence: float = 0.95, bounded: bool = True) -> Interval:
    """The mean of paired differences, one a case: Student's t whose variance holds one more case of the usual size of
    a difference. Few discordant cases then do not look surer than they are (after Agresti & Min 2005, Statistics in
    Medicine 24:729), and where differences are common it is the plain t interval.

    Of scores (`bounded`) that do not differ at all: the rate of differences that could still hide in n cases.
    """
    d = np.asarray(differences, dtype=np.float64)
    n = len(d)
    if n == 0:
        raise ValueError("an interval needs at least one difference")
    mean = float(d.mean())
    changed = d[d != 0]
    if len(changed) == 0:
        half = 1 - ((1 - confidence) / 2) ** (1 / n) if bounded else 0.0
    elif n == 1:
        half = math.inf
    else:
        half = t_quantile((1 + confidence) / 2, n - 1) * _spread(d) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, confidence)


def _spread(d: Floats) -> float:
    """The standard deviation of differences with one more case of the usual size of a difference."""
    n, changed = len(d), d[d != 0]
    usual = float(np.mean(changed**2)) if len(changed) else 1.0
    return math.sqrt(max((float(np.sum(d**2)) + usual) / (n + 1) - float(d.mean()) ** 2, 1e-18))


def spread(differences: Floats) -> float:
    """The standard deviation of paired differences, as plans and intervals use it."""
    return _spread(np.asarray(differences, dtype=np.float64))


def mcnemar_p(worse: int, better: int) -> float:
    """One-sided mid-p of McNemar's exact test: could `worse` of the discordant cases be chance? (Lancaster 1961;
    Fagerland, Lydersen & Laake 2013, BMC Med. Res. Meth. 13:91.) 1 without discordant cases."""
    n = worse + better
    if n == 0:
        return 1.0
    return (binomial_tail(worse, n, 0.5) + binomial_tail(worse + 1, n, 0.5)) / 2


def worse_p(harms: Floats, seed: int = 0) -> list[float]:
    """One-sided p of each column of `harms` (cases × tests; positive is worse) for "no worse on average".

    Under it a case's difference is as likely to have the other sign, so the signs are flipped: exactly where all
    differences have one size (McNemar), else 9,999 times at random, with mid-p (Phipson & Smyth 2010,
    arXiv 1603.05766); the sum of 2,000 and more is normal. Zeros say nothing; a column may be padded with them.
    """
    harms = np.atleast_2d(np.asarray(harms, dtype=np.float64).T).T
    result = [1.0] * harms.shape[1]
    drawn = []
    for column in range(harms.shape[1]):
        changed = harms[harms[:, column] != 0, column]
        sizes = np.abs(changed)
        if len(changed) == 0:
            continue
        if np.ptp(sizes) <= 1e-9 * sizes[0]:
            result[column] = mcnemar_p(int(np.sum(changed > 0)), int(np.sum(changed < 0)))
        elif len(changed) >= _MANY:
            result[column] = normal_cdf(-float(changed.sum() / np.sqrt(np.sum(changed**2))))
        else:
            drawn.append(column)
    step = max(1, _PRODUCT // 12 // max(1, harms.shape[0]))
    for block in (drawn[i : i + step] for i in range(0, len(drawn), step)):
        for column, p in zip(block, _flipped(harms[:, block], seed), strict=True):
            result[column] = p
    return result


def _flipped(harms: Floats, seed: int) -> list[float]:
    generator = np.random.default_rng(seed)
    seen = harms.sum(axis=0)
    near = 1e-9 * np.abs(harms).sum(axis=0)
    above, equal = np.zeros(harms.shape[1]), np.zeros(harms.shape[1])
    rows = min(FLIPS, max(8, _PRODUCT // harms.size))
    for start in range(0, FLIPS, rows):
        size = (min(rows, FLIPS - start), harms.shape[0])
        signs = generator.integers(0, 2, size, dtype=np.int8).astype(np.float64) * 2 - 1
        sums = signs @ harms
        above += np.sum(sums > seen + near, axis=0)
        equal += np.sum(np.abs(sums - seen) <= near, axis=0)
    return [float(p) for p in (above + (equal + 1) / 2) / (FLIPS + 1)]


def least_p(harms: Floats) -> float:
    """The least p that `worse_p` could give these differences whatever their signs (Tarone 1990)."""
    changed = int(np.count_nonzero(harms))
    return 1.0 if changed == 0 else 0.5 ** (changed + 1)


def holm(p: Sequence[float], weights: Sequence[float] | None = None) -> list[float]:
    """Holm's (1979) adjusted p-values: compared with α, they keep the chance of any false alarm at α.

    With weights, a test with twice the weight may spend twice the error (his section 4).
    """
    share = [1.0] * len(p) if weights is None else list(weights)
    order = sorted(range(len(p)), key=lambda i: p[i] / share[i])
    adjusted, reached, left = [1.0] * len(p), 0.0, sum(share)
    for i in order:
        reached = max(reached, min(1.0, p[i] * left / share[i]))
        adjusted[i] = reached
        left -= share[i]
    return adjusted


# -- rare bad events ------------------------------------------------------------------------------


def rare_p(bad: int, answers: int, bad_before: int, answers_before: int, limit: float) -> float:
    """p for "the rate of a bad event is neither above `limit` nor above the baseline's".

    Two events in 500 answers against none in 500 are no significant difference by any paired test, yet far more than
    a limit of 1 in 10,000 lets expect. The larger of two tails: the binomial one at the limit, and the predictive one
    given the baseline's events (Poisson–Gamma; Jeffreys' way with a prior of 0.02 events).
    """
    over = binomial_tail(bad, answers, limit)
    share = answers_before / (answers_before + answers) if answers else 1.0
    return over if answers_before == 0 else max(over, negative_binomial_tail(bad, bad_before + _UNSEEN, share))


# -- agreement and correction by labels -----------------------------------------------------------


def cohens_kappa(a: Sequence[Hashable], b: Sequence[Hashable], confidence: float = 0.95) -> Interval:
    """Cohen's κ of two raters over the same items (1960).

    The jackknife's standard error (Fleiss & Davies 1982, American J. of Epidemiology 115:841), which few items of a
    rare label do not make too small, gives the number of items that the agreement is worth; Wilson's bounds of the
    agreement for so many, turned into κ, do not run over 1 as κ ± 2 standard errors does.
    """
    n = len(a)
    if n == 0 or n != len(b):
        raise ValueError("two raters must have rated the same items, at least one")
    labels = list(dict.fromkeys([*a, *b]))
    joint = Counter(zip(a, b, strict=True))
    table = np.array([[joint[x, y] for y in labels] for x in labels], dtype=np.float64)
    agreed, chance = _agreement(table)
    if chance >= _ALL_CHANCE:
        return Interval(1.0, -1.0, 1.0, n, confidence)  # only one label was ever used: κ says nothing
    kappa = (agreed - chance) / (1 - chance)
    variance, spare = _jackknifed(table, kappa), agreed * (1 - agreed)
    effective = spare / (variance * (1 - chance) ** 2) if spare > 1e-12 and variance > 0 else float(n)
    t = t_quantile((1 + confidence) / 2, max(n - 1, 1))
    low, high = ((share - chance) / (1 - chance) for share in _wilson(agreed, effective, t))
    return Interval(kappa, low, high, n, confidence)


def _agreement(table: Floats) -> tuple[float, float]:
    """The share of items that two raters agree on, and the share that they would by chance; `table` counts items by
    the label of either."""
    n = table.sum()
    return float(np.trace(table) / n), float(table.sum(axis=1) @ table.sum(axis=0) / n**2)


def _jackknifed(table: Floats, kappa: float) -> float:
    """The variance of κ, from what it becomes without each of the items; items of one cell of the table are alike."""
    without, counts, n = [], [], table.sum()
    for cell in zip(*np.nonzero(table), strict=True):
        fewer = table.copy()
        fewer[cell] -= 1
        agreed, chance = _agreement(fewer) if n > 1 else (1.0, 1.0)
        without.append((agreed - chance) / (1 - chance) if chance < _ALL_CHANCE else kappa)
        counts.append(table[cell])
    deviation = np.array(without) - np.average(without, weights=counts)
    return float((n - 1) / n * np.sum(np.array(counts) * deviation**2))


def prediction_powered_mean(
    labels: Sequence[float], judged: Sequence[float], unlabelled: Sequence[float], confidence: float = 0.95
) -> Interval:
    """The mean that people would give, from few `labels`, the judge's word on the same items and on many others.

    Power-tuned prediction-powered inference (PPI++, Angelopoulos, Duchi & Zrnic, arXiv 2311.01453): unbiased whatever
    the judge's bias, and hardly ever wider than labels alone. Scores are in [0, 1]. Needs two labels.
    """
    y, f, g = (np.asarray(values, dtype=np.float64) for values in (labels, judged, unlabelled))
    n, many = len(y), len(g)
    if n < 2 or len(f) != n:
        raise ValueError("the correction needs at least two labels, each with the judge's word on it")
    variance = float(np.concatenate([f, g]).var(ddof=1))
    covariance = float(np.cov(y, f)[0, 1])
    tuned = covariance / ((1 + n / many) * variance) if many and variance > 0 else 0.0
    tuned = min(1.0, max(0.0, tuned))
    mean = float(np.mean(y - tuned * f)) + (tuned * float(g.mean()) if many else 0.0)
    error = float((y - tuned * f).var(ddof=1)) / n + (tuned**2 * float(g.var()) / many if many else 0.0)
    t = t_quantile((1 + confidence) / 2, n - 1)
    spare = mean * (1 - mean)
    if spare <= 0:  # the correction may leave [0, 1]
        half = t * math.sqrt(max(error, 1 / (n + 1) ** 2))
        return Interval(mean, mean - half, mean + half, n, confidence)
    low, high = _wilson(mean, spare / max(error, 1e-12), t)
    return Interval(mean, low, high, n, confidence)


# -- planning -------------------------------------------------------------------------------------


class Noise(msgspec.Struct, frozen=True):
    """Where differences between two releases come from, as variances of one answer's score.

    `within`: between repeats of one case. `between`: between cases, of the true difference.
    """

    within: float
    between: float


def within_variance(cases: Answers) -> float | None:
    """The pooled variance between repeats of a case; None when no case was repeated."""
    repeated = [case for case in cases if len(case) > 1]
    freedom = sum(len(case) - 1 for case in repeated)
    return sum(_scatter(case) for case in repeated) / freedom if freedom else None


def _scatter(values: Sequence[float]) -> float:
    mean = fmean(values)
    return sum((v - mean) ** 2 for v in values)


def detectable(spread: float, cases: int, alpha: float = 0.025, power: float = 0.8) -> float:
    """The least mean difference that a one-sided test at `alpha` finds with this power; infinite under two cases."""
    if cases < 2:
        return math.inf
    return (t_quantile(1 - alpha, cases - 1) + normal_quantile(power)) * spread / math.sqrt(cases)


def cases_needed(effect: float, noise: Noise, repeats: int = 1, alpha: float = 0.025, power: float = 0.8) -> int:
    """How many cases, each asked `repeats` times of both releases, show a mean difference of `effect`."""
    variance = noise.between + 2 * noise.within / repeats
    reach = normal_quantile(1 - alpha) + normal_quantile(power)
    return max(2, math.ceil(variance * (reach / effect) ** 2 + reach**2 / 4))
