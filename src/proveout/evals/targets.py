"""Absolute targets of `app.yaml`: `correct: ">= 0.8"`, `ttft_p95: "<= 1 s"`; read, and judged against a run."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import msgspec

from proveout.evals.distributions import normal_quantile, t_quantile
from proveout.evals.statistics import (
    Answers,
    Interval,
    Kind,
    amounts_interval,
    case_means,
    exact_interval,
    quantile_interval,
    scores_interval,
)

Verdict = Literal["pass", "fail", "inconclusive"]
CONFIDENCE = 0.95  # one-sided
_POWER = 0.8
_MOST = 10_000_000
_LEAST = 10  # cases, for a target that no number of cases shows
_RELATION = re.compile(r"\s*(<|>|≤|≥|=)")
_TEXT = re.compile(r"\s*(<=|>=|<|>|≤|≥)\s*([0-9]*\.?[0-9]+(?:e-?[0-9]+)?)\s*(%|ms|s|USD|tokens)?\s*", re.IGNORECASE)
_QUANTILE = re.compile(r"_p([1-9][0-9]?)$")
Mean = Callable[[float], Interval]
_PER = re.compile(r"_per_(answer|call|request|question)$")


class Target(msgspec.Struct, frozen=True):
    """What a metric must reach. `name` and `text` as the app says it; `metric` as the scorer is called.

    `level` is a quantile (0.95), or None for the mean. `limit` is in the scorer's unit: ms, USD, a share.
    """

    name: str
    text: str
    metric: str
    relation: Literal["<", "<=", ">", ">="]
    limit: float
    level: float | None = None


class Judged(msgspec.Struct, frozen=True):
    """A target and what a run says of it. `bound` is the one-sided 95 % bound that decides, `interval` the two-sided
    one to show; each is None where there are too few cases for it."""

    target: Target
    verdict: Verdict
    reason: str
    interval: Interval | None
    bound: float | None = None
    more_cases: int | None = None
    advises: bool = False  # it is shown, and decides nothing


def parse_target(metric: str, text: object) -> Target | None:
    """A target from a line of `targets`; None where it is prose.

    `NAME_p95` is a quantile of NAME, `NAME_per_answer` its mean; times are kept in ms, under the scorer `NAME_ms`.
    """
    found = _TEXT.fullmatch(str(text))
    if found is None:
        return None
    relation, number, unit = found.group(1), float(found.group(2)), (found.group(3) or "").lower()
    name = _PER.sub("", metric)
    level = _QUANTILE.search(name)
    name = _QUANTILE.sub("", name)
    if unit in ("s", "ms"):
        number *= 1000 if unit == "s" else 1
        name = name.removesuffix("_s")
        name = name if name.endswith("_ms") else f"{name}_ms"
    elif unit == "%":
        number /= 100
    spelled: Literal["<", "<=", ">", ">="] = {"≤": "<=", "≥": ">="}.get(relation, relation)  # type: ignore[assignment]
    return Target(metric, str(text), name, spelled, number, int(level.group(1)) / 100 if level else None)


def mistakes(declared: Mapping[str, object], kinds: Mapping[str, Kind]) -> Iterator[tuple[str, str]]:
    """What is wrong with targets that are meant to be measured, by name: one that cannot be read would be taken for
    prose, and hold nobody to it. `kinds`: of all that is measured."""
    for name, text in declared.items():
        target = parse_target(name, text)
        if target is None:
            number = isinstance(text, int | float) and not isinstance(text, bool)
            if number or (isinstance(text, str) and _RELATION.match(text)):
                yield name, f'{text!r} cannot be read: write it as ">= 0.8", "< 1 %", "<= 1 s" or "<= 0.002 USD"'
        elif target.metric not in kinds:
            near = difflib.get_close_matches(target.metric, kinds, 1, 0.8)
            if f"{target.metric}_ms" in kinds:
                yield name, f"{text}: say the unit, ms or s"
            elif near:
                yield name, f"nothing measures {target.metric}: did you mean `{near[0]}`?"
        elif kinds[target.metric] != "positive" and not 0 <= target.limit <= 1:
            yield name, f"{text}: {target.metric} goes from 0 to 1: write 0.8, or 80 %"


def judge_target(target: Target, cases: Answers, kind: Kind, mean: Mean | None = None) -> Judged:
    """Whether a run meets a target: `pass` when even the unfavourable one-sided 95 % bound does, `fail` when not even
    the favourable one does, else `inconclusive`, with how many more cases would decide it four times in five if what
    was seen is the truth. No number of cases shows `<= 0` or `>= 1` of a share: that is judged on these cases alone,
    ten at least.

    `mean`: the mean's interval at a given confidence, if it is not computed from `cases`."""
    if len(case_means(cases)) < 2:
        return Judged(target, "inconclusive", f"{target.metric} was measured on fewer than two cases", None)
    sure, shown = (
        mean(c) if mean and target.level is None else _interval(target, cases, kind, c)
        for c in (2 * CONFIDENCE - 1, CONFIDENCE)
    )
    at_most, strict = target.relation in ("<", "<="), target.relation in ("<", ">")
    bad, good = (sure.high, sure.low) if at_most else (sure.low, sure.high)
    alone = kind != "positive" and target.level is None and target.limit == (0.0 if at_most else 1.0)
    verdict: Verdict = "inconclusive"
    if _meets(sure.estimate if alone else bad, target.limit, at_most, strict):
        verdict = "inconclusive" if alone and sure.n < _LEAST else "pass"
    elif not _meets(sure.estimate if alone else good, target.limit, at_most, False):
        verdict = "fail"
    bound = good if verdict == "fail" else bad
    more = None
    if verdict == "inconclusive":
        more = max(_LEAST - sure.n, 0) if alone else _more_cases(target, cases, kind, sure)
    side = "at most" if at_most != (verdict == "fail") else "at least"
    known = f"{side} {bound:.4g} with 95 % confidence" if math.isfinite(bound) else "too few cases for a bound"
    these = f" of these {sure.n} cases, which alone are judged" if alone else ""
    reason = f"{sure.estimate:.4g}{these}, {known}; the target is {target.text}"
    if more:
        reason += f"; about {more} more cases would decide"
    kept = shown if math.isfinite(shown.low) and math.isfinite(shown.high) else None
    return Judged(target, verdict, reason, kept, bound if math.isfinite(bound) else None, more)


def unmeasured(target: Target) -> Judged:
    """A target that nothing here measures: shown, for people to attest."""
    return Judged(target, "inconclusive", f"nothing here measures {target.metric}", None, advises=True)


def _interval(target: Target, cases: Answers, kind: Kind, confidence: float) -> Interval:
    if target.level is not None:
        return quantile_interval(cases, target.level, confidence)
    if kind == "positive":
        return amounts_interval(cases, confidence)
    one_sided = confidence < CONFIDENCE
    return exact_interval(cases, confidence) if one_sided else scores_interval(cases, confidence)


def _meets(value: float, limit: float, at_most: bool, strict: bool) -> bool:
    if value == limit:
        return not strict
    return value < limit if at_most else value > limit


def _more_cases(target: Target, cases: Answers, kind: Kind, sure: Interval) -> int | None:
    """How many more cases would move the bound past the limit, were the truth what these cases show."""
    gap = abs(sure.estimate - target.limit)
    n = sure.n
    unbounded = not (math.isfinite(sure.low) and math.isfinite(sure.high))
    if target.level is not None and unbounded:
        rare = min(target.level, 1 - target.level)
        return max(1, math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-rare)) - n)
    if gap == 0:
        return None
    if kind != "positive" and target.level is None and sure.estimate in (0.0, 1.0):
        needed = math.log(1 - CONFIDENCE) / math.log1p(-min(gap, 1 - 1e-9))
        return max(1, math.ceil(needed) - n)
    width = (sure.high - sure.low) / 2 / t_quantile(CONFIDENCE, n - 1) * math.sqrt(n)
    reach = normal_quantile(CONFIDENCE) + normal_quantile(_POWER)
    needed = (reach * width / gap) ** 2
    return max(1, math.ceil(needed) - n) if needed < _MOST else None
