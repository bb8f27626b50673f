"""The four distributions that the statistics need, from one function: the regularised incomplete beta function.

Scalars only. Everything else (t, binomial, negative binomial) follows from it, DLMF 8.17 and 26.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist

_NORMAL = NormalDist()
_TINY = 1e-300


def normal_cdf(z: float) -> float:
    """P(Z ≤ z) of a standard normal."""
    return _NORMAL.cdf(z)


@lru_cache(maxsize=1024)
def normal_quantile(p: float) -> float:
    """The z with P(Z ≤ z) = p, 0 < p < 1."""
    return _NORMAL.inv_cdf(p)


def beta_cdf(x: float, a: float, b: float) -> float:
    """I_x(a, b) for a, b > 0: Lentz's continued fraction (DLMF 8.17.22), relative error about 1e-14."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_cdf(1 - x, b, a)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away(1 + term * d)
            c = _away(1 + term / c)
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return min(1.0, math.exp(front) * fraction / a)


@lru_cache(maxsize=8192)
def beta_quantile(p: float, a: float, b: float) -> float:
    """The x with I_x(a, b) = p, to 1e-12."""
    return root(lambda x: beta_cdf(x, a, b) - p, 0.0, 1.0)


@lru_cache(maxsize=4096)
def t_quantile(p: float, freedom: float) -> float:
    """The t with P(T ≤ t) = p for Student's t with `freedom` degrees of freedom."""
    if p == 0.5:
        return 0.0
    tail = 2 * min(p, 1 - p)
    x = beta_quantile(tail, freedom / 2, 0.5)
    size = math.sqrt(freedom * (1 - x) / x)
    return size if p > 0.5 else -size


def binomial_tail(x: int, n: int, rate: float) -> float:
    """P(X ≥ x) for X ~ Binomial(n, rate)."""
    if x <= 0:
        return 1.0
    return 0.0 if x > n else beta_cdf(rate, x, n - x + 1)


def negative_binomial_tail(x: int, shape: float, p: float) -> float:
    """P(X ≥ x) for X ~ NegativeBinomial(shape, p), the counts of a Poisson whose rate is Gamma distributed."""
    return 1.0 if x <= 0 else 1 - beta_cdf(p, shape, x)


def root(f: Callable[[float], float], low: float, high: float) -> float:
    """Where an increasing `f` crosses zero between `low` and `high`, by bisection to 1e-12 of the width."""
    step = high - low
    for _ in range(42):
        step /= 2
        if f(low + step) < 0:
            low += step
    return low + step / 2


def _away(value: float) -> float:
    """Lentz's guard against a division by zero."""
    return value if abs(value) > _TINY else _TINY
