"""Anytime-valid statistics: evidence that may be looked at after every request without losing its level.

Each test is an e-process: a wealth that starts at 1 and, while its null hypothesis holds, is not expected to grow
whatever happened before and however often one looks; P(it ever reaches 1/α) ≤ α (Ville 1939). A state is a small
frozen value, kept as JSON between ticks; `update` gives the next one. Wealth is kept as its logarithm, bounded so that
it stays a finite number in JSON.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

RATIOS = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
RARE = (3.0, 10.0, 30.0, 100.0)
"""Ratios for events that hardly happen unless something is broken."""
CAPS = {"harm": 0.75, "no_harm": 0.5}  # of the wealth that one D can take at most
_LIMIT = 690.0  # e^690 is still a finite float
_WAITING = 4  # values of the candidate, or as many blocks of the stable release's, that wait for the other arm's
_PRIOR = 1.0  # how many observations the guess of the spread, which starts a bet, counts for


class Seen(NamedTuple):
    """One request as a test sees it: its arm, its value, and the candidate's weight when its arm was drawn.

    The value is 0 or 1 (a bad event, an exceedance) or a score in [0, 1]; NaN: the metric was not there.
    """

    candidate: bool
    value: float
    weight: float


class BadEvents(msgspec.Struct, frozen=True):
    """Does the candidate have more bad events than its share? Lindon & Malek, arXiv 2011.03567, sections 3 and 5.

    Looks at bad events alone. While the candidate's rate is at most the stable release's, an event is the candidate's
    with probability ≤ w, its weight then. E = mean over the ratios ρ of ∏ LR(ρ), where an event multiplies LR(ρ) by
    ρ / (wρ + 1 − w) if it is the candidate's and by 1 / (wρ + 1 − w) if not. Common causes hit both arms and cancel.
    For latency, tokens and cost an event is a value above a threshold that was frozen from the stable release.
    """

    logs: tuple[float, ...] = (0.0,) * len(RATIOS)
    candidate: int = 0
    stable: int = 0
    ratios: tuple[float, ...] = RATIOS

    @classmethod
    def of(cls, ratios: tuple[float, ...]) -> BadEvents:
        """Before any request."""
        return cls((0.0,) * len(ratios), ratios=ratios)

    def update(self, seen: Iterable[Seen]) -> BadEvents:
        """After some requests. Those without a bad event, or with NaN, say nothing."""
        logs, counts = list(self.logs), [self.stable, self.candidate]
        for arm, value, weight in seen:
            if not value > 0.5 or not 0 <= weight <= 1:
                continue
            counts[arm] += 1
            for i, ratio in enumerate(self.ratios):
                step = (math.log(ratio) if arm else 0.0) - math.log(weight * ratio + 1 - weight)
                logs[i] = _bounded(logs[i] + step)
        return BadEvents(tuple(logs), counts[1], counts[0], self.ratios)

    @property
    def log_e(self) -> float:
        return log_mean(self.logs)

    @property
    def e_value(self) -> float:
        return math.exp(self.log_e)


class Betting(msgspec.Struct, frozen=True):
    """A bet on how much worse the candidate is: D = mean(some stable scores) − a candidate's score, in [−1, 1].

    Waudby-Smith & Ramdas, arXiv 2010.09686, section 4: wealth ∏ (1 + λ(D − δ)) against E[D] ≤ δ (`harm`: growing
    wealth says that the candidate is worse by more than δ), ∏ (1 + λ(δ − D)) against E[D] ≥ δ (`no_harm`: it says that
    the candidate is worse by less than δ). λ is set before D is seen: mean / (variance + mean²) of what was seen so
    far, capped so that no single D can take more than CAPS of the wealth.

    Every value is used in one D at most, and arms are drawn independently of scores. A D is of values that came about
    together, so that common drifts cancel: few may wait for the other arm, and the oldest make way, whatever they are.
    Bad events are the scores 1 − event: then D is the difference of rates, and none in either arm is evidence of
    `no_harm`.
    """

    against: Literal["harm", "no_harm"]
    delta: float
    log_wealth: float = 0.0
    bets: int = 0
    total: float = 0.0  # of the D so far
    squares: float = 0.0
    missing: int = 0  # values that were NaN or out of range: no evidence for anything
    stable: tuple[float, ...] = ()
    candidate: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.delta < 1:
            raise ValueError("a bet needs 0 ≤ delta < 1")

    def update(self, seen: Iterable[Seen]) -> Betting:
        """After some requests, in their order."""
        stable, candidate = list(self.stable), list(self.candidate)
        log_wealth, bets, total, squares = self.log_wealth, self.bets, self.total, self.squares
        missing = self.missing
        for arm, value, weight in seen:
            if not (0 <= value <= 1 and 0 < weight < 1):
                missing += 1
                continue
            (candidate if arm else stable).append(value)
            block = max(1, round(1 / weight - 1))
            del stable[: -_WAITING * block], candidate[:-_WAITING]
            if candidate and stable:
                used = stable[:block]
                d = sum(used) / len(used) - candidate.pop(0)
                del stable[: len(used)]
                log_wealth = _bounded(log_wealth + math.log1p(self._stake(bets, total, squares) * self._gain(d)))
                bets, total, squares = bets + 1, total + d, squares + d * d
        return msgspec.structs.replace(
            self,
            log_wealth=log_wealth,
            bets=bets,
            total=total,
            squares=squares,
            missing=missing,
            stable=tuple(stable),
            candidate=tuple(candidate),
        )

    def _gain(self, d: float) -> float:
        return d - self.delta if self.against == "harm" else self.delta - d

    def _stake(self, bets: int, total: float, squares: float) -> float:
        """λ from the bets so far and a prior that counts for one: no difference, and a spread of one half."""
        worst = 1 + self.delta if self.against == "harm" else 1 - self.delta
        mean = total / (bets + _PRIOR)
        spread = (squares + _PRIOR * 0.25) / (bets + _PRIOR) - mean * mean
        edge = self._gain(mean)
        if edge <= 0:
            return 0.0
        return min(CAPS[self.against] / worst, edge / (max(spread, 0.0) + edge * edge))

    @property
    def log_e(self) -> float:
        return self.log_wealth

    @property
    def e_value(self) -> float:
        return math.exp(self.log_wealth)


class SampleRatio(msgspec.Struct, frozen=True):
    """Do the arms get the share of users that was set? Counts first exposures of users, never requests.

    Lindon & Malek, arXiv 2011.03567, section 2: the likelihood ratio of a Beta(κw, κ(1 − w)) mixture against w, begun
    anew when the weight changes (a product of e-values is one). A user in an arm of weight 0 is proof.
    """

    strength: float = 100.0  # κ: a smaller one sees gross mismatches sooner, a larger one slight ones
    weight: float | None = None
    candidate: int = 0  # since the weight last changed
    stable: int = 0
    closed: float = 0.0  # log of the product of the tests at earlier weights

    def update(self, seen: Iterable[tuple[bool, float]]) -> SampleRatio:
        """After some users were first exposed: the arm of each, and the weight when it was drawn."""
        now = self
        weight, closed, counts = now.weight, now.closed, [now.stable, now.candidate]
        for arm, share in seen:
            if not 0 <= share <= 1:
                continue
            if share != weight:
                closed = _bounded(closed + self._log_ratio(weight, counts[1], counts[0]))
                weight, counts = share, [0, 0]
            counts[arm] += 1
        return SampleRatio(self.strength, weight, counts[1], counts[0], closed)

    def _log_ratio(self, weight: float | None, candidate: int, stable: int) -> float:
        if weight is None:
            return 0.0
        if weight in (0.0, 1.0):
            return _LIMIT if (candidate if weight == 0 else stable) else 0.0
        a, b = self.strength * weight, self.strength * (1 - weight)
        mixture = _log_beta(a + candidate, b + stable) - _log_beta(a, b)
        return mixture - candidate * math.log(weight) - stable * math.log1p(-weight)

    @property
    def log_e(self) -> float:
        return _bounded(self.closed + self._log_ratio(self.weight, self.candidate, self.stable))

    @property
    def e_value(self) -> float:
        return math.exp(self.log_e)


def weighted_log_e(log_e: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The log of the weighted average of e-values: an e-value again, whatever the dependence between them.

    The weights are fixed at the start and sum to 1. A test without evidence yet, or with NaN, counts as 1.
    Raises ValueError for other weights, or evidence without a weight.
    """
    if any(not w >= 0 for w in weights.values()) or abs(sum(weights.values()) - 1) > 1e-9:
        raise ValueError("the weights of guardrails are not negative and sum to 1")
    if unknown := set(log_e) - set(weights):
        raise ValueError(f"there is no weight for {', '.join(sorted(unknown))}")
    terms = [math.log(w) + _sane(log_e.get(name, 0.0)) for name, w in weights.items() if w > 0]
    return _log_sum(terms)


def crosses(log_e: float, alpha: float) -> bool:
    """Whether evidence reached 1/α. NaN never does."""
    return log_e >= -math.log(alpha)


def _bounded(log: float) -> float:
    return min(_LIMIT, max(-_LIMIT, log))


def _sane(log: float) -> float:
    return 0.0 if math.isnan(log) else _bounded(log)


def _log_sum(logs: Iterable[float]) -> float:
    values = list(logs)
    top = max(values)
    return top + math.log(sum(math.exp(v - top) for v in values))


def log_mean(logs: Sequence[float]) -> float:
    """The log of the mean of e-values, which is an e-value again."""
    return _log_sum(logs) - math.log(len(logs))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
