"""Is the candidate as good as the baseline? One verdict from scores on the same cases, with what would decide it.

A metric *fails* when the candidate is significantly worse (amounts, such as milliseconds: worse by more than the
margin), *passes* when the 95 % interval shows that it is worse by less than the margin, and is *inconclusive*
otherwise. All tests together raise a false alarm in at most 2.5 % of comparisons of a release with itself; rare bad
events (`Metric.limit`) have an error budget of their own.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import msgspec
import numpy as np

from proveout.evals.distributions import normal_quantile
from proveout.evals.statistics import (
    Better,
    Floats,
    Kind,
    detectable,
    difference_interval,
    holm,
    least_p,
    rare_p,
    spread,
    within_variance,
    worse_p,
)
from proveout.evals.targets import Verdict

Runs = Mapping[str, Mapping[str, Sequence[float]]]
"""metric → case → one score a repeat."""

ALPHA = 0.025  # one-sided: what a two-sided 95 % interval leaves on the side that hurts
POWER = 0.8
SMALLEST_SLICE = 5
_MOST_LOST = 0.05  # the share of the baseline's cases that may lack a score of the candidate in a `pass`
_MOST_CASES = 1_000_000
_MOST_REPEATS = 100


class Metric(msgspec.Struct, frozen=True):
    """What is compared. `margin`: how much worse still counts as good; in points of a score, in parts of the
    baseline's mean for amounts.

    `limit`: the rate of bad answers that may be tolerated where one is one too many (a toxic reply: 0.0001); the worse
    half of the scale is bad. `weight`: its share of the error budget against the other metrics'.
    """

    name: str
    kind: Kind
    better: Better
    margin: float
    limit: float | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.margin < math.inf or not 0 < self.weight < math.inf:
            raise ValueError(f"{self.name}: a margin is not negative and a weight is positive")
        if self.limit is not None and (self.kind == "positive" or not 0 < self.limit < 1):
            raise ValueError(f"{self.name}: only a score in [0, 1] has a limit on bad answers, between 0 and 1")


class Rare(msgspec.Struct, frozen=True):
    """Bad answers counted against the metric's limit and the baseline; `p` adjusted over all metrics that have one."""

    bad: int
    answers: int
    bad_before: int
    answers_before: int
    p: float


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Candidate − baseline over `n` cases, with its 95 % interval in the metric's own unit and direction.

    `p`: one-sided, that the candidate is no worse; `p_adjusted`: for all metrics, or for all their slices.
    `detectable`: the least harm that these cases find with 80 % power. `more_cases`, `more_repeats`: either alone would
    decide with 80 % power if the difference seen is the true one; None if it would not, or if it is decided.
    """

    n: int
    candidate: float
    baseline: float
    difference: float
    low: float
    high: float
    p: float
    p_adjusted: float
    verdict: Verdict
    reason: str
    detectable: float | None = None
    more_cases: int | None = None
    more_repeats: int | None = None
    rare: Rare | None = None
    lost: int = 0  # cases with scores of the baseline and none of the candidate


class Compared(msgspec.Struct, frozen=True):
    """One metric: overall, and per tag with at least five cases."""

    metric: Metric
    overall: Difference
    slices: dict[str, Difference]


class WorstSlice(msgspec.Struct, frozen=True):
    """The tag where the candidate lost most surely, and of which metric."""

    metric: str
    tag: str
    n: int
    difference: float
    p_adjusted: float


class Comparison(msgspec.Struct, frozen=True):
    """The whole verdict: `fail` if any metric fails, else `inconclusive` if any is (or none was measured), else `pass`.

    A slice's verdict is shown and decides nothing.
    """

    verdict: Verdict
    metrics: list[Compared]
    worst_slice: WorstSlice | None


class Change(msgspec.Struct, frozen=True):
    """How much the answer to a case changed, from 0 (the same words) to 1."""

    case: str
    change: float
    before: str
    after: str


def compare(
    candidate: Runs, baseline: Runs, tags: Mapping[str, frozenset[str]], metrics: Mapping[str, Metric]
) -> Comparison:
    """Compares two runs over the same cases; only cases that both have finite scores of take part."""
    pairs = {
        name: _Pairs.of(metric, candidate.get(name, {}), baseline.get(name, {})) for name, metric in metrics.items()
    }
    groups = [_Group(name, None, pairs[name]) for name in metrics]
    for name in metrics:
        for tag in sorted({tag for case in pairs[name].cases for tag in tags.get(case, frozenset())}):
            part = pairs[name].only({case for case in pairs[name].cases if tag in tags.get(case, frozenset())})
            if len(part.cases) >= SMALLEST_SLICE:
                groups.append(_Group(name, tag, part))
    for group, p in zip(groups, _p_values(groups), strict=True):
        group.p = p
    overall = [g for g in groups if g.tag is None]
    sliced = [g for g in groups if g.tag is not None]
    for family in (overall, sliced):
        _adjust(family)
    total = sum(m.weight for m in metrics.values())
    compared = [
        Compared(
            g.pairs.metric,
            g.judged(ALPHA * g.pairs.metric.weight / total),
            {s.tag: s.judged(ALPHA) for s in sliced if s.name == g.name and s.tag is not None},
        )
        for g in overall
    ]
    verdicts = {c.overall.verdict for c in compared}
    verdict: Verdict = "fail" if "fail" in verdicts else "inconclusive" if verdicts != {"pass"} else "pass"
    return Comparison(verdict, compared, _worst(compared))


def changed_most(before: Mapping[str, str], after: Mapping[str, str], k: int = 10) -> list[Change]:
    """The `k` cases whose answers changed most, by words."""
    both = [(case, before[case], after[case]) for case in before if case in after and before[case] != after[case]]
    changes = [Change(case, word_distance(a, b), a, b) for case, a, b in both]
    return sorted(changes, key=lambda c: (-c.change, c.case))[:k]


def word_distance(a: str, b: str) -> float:
    """1 − the share of words that stay in their order (Ratcliff & Obershelp), in [0, 1]."""
    words = a.casefold().split(), b.casefold().split()
    return 1 - difflib.SequenceMatcher(None, *words, autojunk=False).ratio() if any(words) else 0.0


class _Pairs:
    """The cases that both runs scored, as arrays in one order."""

    def __init__(
        self, metric: Metric, scores: Mapping[str, tuple[list[float], list[float]]], lost: frozenset[str]
    ) -> None:
        self.metric = metric
        self.scores = scores
        self.cases = list(scores)
        self.lost = lost
        self.candidate = np.array([fmean(a) for a, _ in scores.values()], dtype=np.float64)
        self.baseline = np.array([fmean(b) for _, b in scores.values()], dtype=np.float64)

    @classmethod
    def of(cls, metric: Metric, after: Mapping[str, Sequence[float]], before: Mapping[str, Sequence[float]]) -> _Pairs:
        finite = {case: _finite(values) for case, values in after.items()}
        scores, lost = {}, set()
        for case, values in before.items():
            known = _finite(values)
            if known and finite.get(case):
                scores[case] = (finite[case], known)
            elif known:
                lost.add(case)
        return cls(metric, scores, frozenset(lost))

    def only(self, cases: set[str]) -> _Pairs:
        return _Pairs(self.metric, {case: pair for case, pair in self.scores.items() if case in cases}, frozenset())

    @property
    def harms(self) -> Floats:
        """Per case, how much worse the candidate is."""
        d = self.candidate - self.baseline
        return d if self.metric.better == "lower" else -d

    @property
    def tested(self) -> Floats:
        """Per case, what is tested to be positive: harm to a score, harm beyond the margin to an amount."""
        if self.metric.kind != "positive":
            return self.harms
        return self.harms - self.metric.margin * self.baseline

    def bad(self, of_candidate: bool) -> tuple[int, int]:
        """Bad answers and all answers of one run."""
        answers = [v for pair in self.scores.values() for v in pair[0 if of_candidate else 1]]
        lower = self.metric.better == "lower"
        return sum(v > 0.5 if lower else v < 0.5 for v in answers), len(answers)


class _Group:
    """A metric over all cases or over one tag's, on its way to a `Difference`."""

    def __init__(self, name: str, tag: str | None, pairs: _Pairs) -> None:
        self.name, self.tag, self.pairs = name, tag, pairs
        self.p = self.p_adjusted = 1.0
        self.rare: Rare | None = None
        if pairs.metric.limit is not None:
            counts = (*pairs.bad(True), *pairs.bad(False))
            self.rare = Rare(*counts, rare_p(*counts, pairs.metric.limit))

    def judged(self, alpha: float) -> Difference:
        """The difference and its verdict; `alpha` is the test's least share of the error budget, for planning."""
        pairs, metric = self.pairs, self.pairs.metric
        n, lost, bounded = len(pairs.cases), len(pairs.lost), metric.kind != "positive"
        if n == 0:
            return _unmeasured(lost, self.rare)
        shown = difference_interval(pairs.candidate - pairs.baseline, bounded=bounded)
        worst = difference_interval(pairs.tested, bounded=bounded).high  # of the harm, or of the harm beyond the margin
        allowed = metric.margin if bounded else 0.0
        complete = lost <= _MOST_LOST * (n + lost)
        verdict: Verdict = "inconclusive"
        if self.rare is not None and self.rare.p <= ALPHA:
            verdict = "fail"
        elif worst <= allowed and complete:  # amounts that are nothing in both, such as the cost of free models
            verdict = "pass"
        elif self.p_adjusted <= ALPHA:
            verdict = "fail"
        open_ = verdict == "inconclusive" and complete
        more_cases = _more_cases(pairs, alpha) if open_ else None
        more_repeats = _more_repeats(pairs, alpha) if open_ else None
        least = _detectable(pairs, alpha)
        reason = self._reason(verdict, complete) + (_to_decide(more_cases, more_repeats, least) if open_ else "")
        return Difference(
            n=n,
            candidate=float(pairs.candidate.mean()),
            baseline=float(pairs.baseline.mean()),
            difference=shown.estimate,
            low=shown.low if n > 1 else shown.estimate,
            high=shown.high if n > 1 else shown.estimate,
            p=self.p,
            p_adjusted=self.p_adjusted,
            verdict=verdict,
            reason=reason,
            detectable=least,
            more_cases=more_cases,
            more_repeats=more_repeats,
            rare=self.rare,
            lost=lost,
        )

    def _reason(self, verdict: Verdict, complete: bool) -> str:
        if not complete:
            return f"{len(self.pairs.lost)} cases have no score of the candidate"
        if self.rare is not None and self.rare.p <= ALPHA:
            return f"{self.rare.bad} bad answers of {self.rare.answers}; before {self.rare.bad_before}"
        margin = self.pairs.metric.margin
        within = f"{margin:g}" if self.pairs.metric.kind != "positive" else f"{margin:.0%}"
        return {
            "pass": f"worse by less than {within}, if at all",
            "fail": "worse than chance explains",
            "inconclusive": f"neither shown to be worse nor to be within {within}",
        }[verdict]


def _to_decide(cases: int | None, repeats: int | None, least: float | None) -> str:
    """What would decide, and what harm these cases find."""
    counts = ((cases, "case"), (repeats, "repeat"))
    more = [f"{count} more {name}{'s' if count > 1 else ''}" for count, name in counts if count]
    decided = f"; {' or '.join(more)} would decide" if more else ""
    return decided + (f"; harm of {least:.2g} or more is found" if least is not None else "")


def _unmeasured(lost: int, rare: Rare | None) -> Difference:
    return Difference(
        n=0,
        candidate=0.0,
        baseline=0.0,
        difference=0.0,
        low=0.0,
        high=0.0,
        p=1.0,
        p_adjusted=1.0,
        verdict="inconclusive",
        reason="no case was scored in both runs",
        rare=rare,
        lost=lost,
    )


def _finite(values: Sequence[float]) -> list[float]:
    return [float(v) for v in values if v is not None and math.isfinite(v)]


def _p_values(groups: Sequence[_Group]) -> list[float]:
    """One p a group; all at once, because the flips of signs are the same for all."""
    rows = {case: i for i, case in enumerate(dict.fromkeys(case for g in groups for case in g.pairs.cases))}
    harms = np.zeros((len(rows), len(groups)))
    for column, group in enumerate(groups):
        harms[[rows[case] for case in group.pairs.cases], column] = group.pairs.tested
    return worse_p(harms)


def _adjust(family: Sequence[_Group]) -> None:
    """Holm over the tests that could reject at all (Tarone 1990): a metric that never differs costs others nothing."""
    able = [g for g in family if least_p(g.pairs.tested) <= ALPHA]
    for group, p in zip(able, holm([g.p for g in able], [g.pairs.metric.weight for g in able]), strict=True):
        group.p_adjusted = p
    rares = [(g, g.rare) for g in family if g.rare is not None]
    for (group, rare), p in zip(rares, holm([rare.p for _, rare in rares]), strict=True):
        group.rare = msgspec.structs.replace(rare, p=p)


def _worst(compared: Sequence[Compared]) -> WorstSlice | None:
    """Of the failed metrics if any failed, else of all: the slice where the harm is surest."""
    failed = [c for c in compared if c.overall.verdict == "fail"] or compared
    found = []
    for c in failed:
        for tag, d in c.slices.items():
            harm = d.difference if c.metric.better == "lower" else -d.difference
            if harm > 0:
                p = min(d.p, d.rare.p) if d.rare else d.p
                scale = c.overall.baseline if c.metric.kind == "positive" and c.overall.baseline > 0 else 1.0
                adjusted = min(d.p_adjusted, d.rare.p) if d.rare else d.p_adjusted
                found.append((p, -harm / scale, WorstSlice(c.metric.name, tag, d.n, d.difference, adjusted)))
    return min(found, key=lambda f: f[:2])[2] if found else None


def _detectable(pairs: _Pairs, alpha: float) -> float | None:
    least = detectable(spread(pairs.tested), len(pairs.cases), alpha, POWER)
    if pairs.metric.kind == "positive":
        least += pairs.metric.margin * float(pairs.baseline.mean())
    return least if math.isfinite(least) else None


def _gaps(pairs: _Pairs, alpha: float) -> list[float]:
    """For each way still open (fail, pass): the largest standard error that decides it with a power of `POWER`."""
    seen = float(pairs.tested.mean())
    allowed = pairs.metric.margin if pairs.metric.kind != "positive" else 0.0
    ways = ((seen, alpha), (allowed - seen, ALPHA))
    return [gap / (normal_quantile(1 - level) + normal_quantile(POWER)) for gap, level in ways if gap > 1e-12]


def _more_cases(pairs: _Pairs, alpha: float) -> int | None:
    """Cases to add, if the difference seen is the true one."""
    n, margin = len(pairs.cases), pairs.metric.margin
    if not pairs.tested.any():  # nothing differs: so many that the rate of what could hide is below the margin
        needed = math.ceil(math.log(ALPHA) / math.log1p(-margin)) if 0 < margin < 1 else _MOST_CASES
    else:
        variance = spread(pairs.tested) ** 2
        needed = min((math.ceil(variance / gap**2) for gap in _gaps(pairs, alpha)), default=_MOST_CASES)
    return max(1, needed - n) if needed < _MOST_CASES else None


def _more_repeats(pairs: _Pairs, alpha: float) -> int | None:
    """Repeats to add a case and a release, where the noise between repeats is what hides the difference."""
    runs = [*(a for a, _ in pairs.scores.values()), *(b for _, b in pairs.scores.values())]
    within = within_variance(runs)
    if not within or len(pairs.cases) < 2:
        return None
    shares = [1 / len(a) + 1 / len(b) for a, b in pairs.scores.values()]
    between = max(0.0, spread(pairs.tested) ** 2 - within * float(np.mean(shares)))
    room = max((len(pairs.cases) * gap**2 - between for gap in _gaps(pairs, alpha)), default=0.0)
    if room <= 0:
        return None
    more = math.ceil(2 * within / room) - round(2 / float(np.mean(shares)))
    return more if 0 < more <= _MOST_REPEATS else None
