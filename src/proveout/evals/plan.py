"""Before anything runs: how many cases and repeats show a change of a given size, and what that takes."""

from __future__ import annotations

import math

import msgspec

from proveout.domain import Price, Usage
from proveout.evals.compare import ALPHA
from proveout.evals.distributions import normal_quantile
from proveout.evals.statistics import Answers, Noise, cases_needed, within_variance

POWER = 0.98  # a regression of the planned size slips through once in fifty runs
WITHIN = 0.16  # variance between repeats where nothing was measured: answers that are right four times in five
SHARE = 0.2  # of the error budget: one metric of weight 5 among 20 others, or one of five alike
MOST_REPEATS = 50
_CHOICES = (1, 2, 3, 5, 10, 20)


class Effort(msgspec.Struct, frozen=True):
    """What one answer takes on average: seconds, tokens in and out, USD. Unmeasured: a guess for a small model.

    Not `priced`: nobody knows what it costs.
    """

    seconds: float = 2.0
    prompt_tokens: float = 800.0
    completion_tokens: float = 80.0
    usd: float = 0.0
    measured: bool = False
    priced: bool = True

    @classmethod
    def guess(cls, price: Price | None) -> Effort:
        """What an answer of a model with this price may take, before any was measured."""
        if price is None:
            return cls(priced=False)
        made = cls()
        return cls(usd=price.cost(Usage(round(made.prompt_tokens), round(made.completion_tokens))))


class Option(msgspec.Struct, frozen=True):
    """A number of repeats, and the cases that it needs."""

    repeats: int
    cases: int
    answers: int


class Biased(msgspec.Struct, frozen=True):
    """What the bias questions (`evals.bias`) add; they are asked of the candidate alone."""

    questions: int
    answers: int
    seconds: float
    usd: float


class Judging(msgspec.Struct, frozen=True):
    """How often a judge is asked, at most: about labels, answers, and pairs in both orders; and what that costs."""

    calls: int
    usd: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to run so that a drop of `effect` in a score ends as `fail` with probability `power`.

    `repeats` is None if even 50 are too few for these `cases`; `answers`, `seconds`, tokens and `usd` are then those of
    the cheapest of `options`. They count both releases. `noise`: the variance between repeats that was assumed;
    `measured`: whether it comes from a past run.
    """

    effect: float
    power: float
    cases: int
    repeats: int | None
    options: list[Option]
    noise: float
    measured: bool
    answers: int
    seconds: float
    prompt_tokens: int
    completion_tokens: int
    usd: float
    bias: Biased
    priced: bool = True


def plan(
    effect: float,
    cases: int | None = None,
    *,
    past: Answers = (),
    share: float = SHARE,
    power: float = POWER,
    effort: Effort | None = None,
    concurrent: int = 4,
    biased: int = 0,
) -> Plan:
    """How often to ask `cases` (without a number: how many to ask) to see a score in [0, 1] drop by `effect`.

    `past`: the scores of an earlier run, repeats per case, of the same app; `share`: the metric's part of the error
    budget (its weight over the sum of the weights of all that vary); `biased`: how many questions `evals.bias` makes.
    Raises ValueError for numbers out of range.

    A drop is taken at its hardest: all of it in cases that turn from right to wrong. With cases given, they are what
    the release is judged on, and only repeats are chance: r repeats suffice when
    e√n ≥ z(α)·√(e + 2v/r) + z(power)·√(2v/r), with v the variance between repeats.
    """
    if not 0 < effect <= 1 or not 0.5 <= power < 1 or not 0 < share <= 1 or concurrent < 1:
        raise ValueError("a plan needs 0 < effect ≤ 1, 0.5 ≤ power < 1, 0 < share ≤ 1 and at least one at a time")
    measured = within_variance(past)
    within = WITHIN if measured is None else _cautious(measured, past)
    alpha = ALPHA * share
    options = [_option(effect, within, repeats, alpha, power) for repeats in _CHOICES if repeats == 1 or within > 0]
    cheapest = min(options, key=lambda o: (o.answers, o.cases))
    asked = cases or cheapest.cases
    repeats = enough_repeats(effect, asked, within, alpha, power) if cases else cheapest.repeats
    cost = effort or Effort()
    answers = 2 * asked * repeats if repeats else cheapest.answers
    of_bias = biased * (repeats or cheapest.repeats)
    return Plan(
        effect=effect,
        power=power,
        cases=asked,
        repeats=repeats,
        options=options,
        noise=within,
        measured=measured is not None,
        answers=answers,
        seconds=answers * cost.seconds / concurrent,
        prompt_tokens=round(answers * cost.prompt_tokens),
        completion_tokens=round(answers * cost.completion_tokens),
        usd=answers * cost.usd,
        bias=Biased(biased, of_bias, of_bias * cost.seconds / concurrent, of_bias * cost.usd),
        priced=cost.priced,
    )


def judging(made: Plan, labels: int, repeats: int, usd: float) -> Judging:
    """What a judge adds to a plan: `repeats` calls for each label and answer, two for each pair, at `usd` a call."""
    calls = (labels + made.answers) * repeats + 2 * made.cases
    return Judging(calls, calls * usd)


def enough_repeats(effect: float, cases: int, within: float, alpha: float = ALPHA, power: float = POWER) -> int | None:
    """The least number of repeats that `plan` asks for; None above 50."""
    reach = effect * math.sqrt(cases)
    for repeats in range(1, MOST_REPEATS + 1):
        noise = 2 * within / repeats
        needed = normal_quantile(1 - alpha) * math.sqrt(effect + noise) + normal_quantile(power) * math.sqrt(noise)
        if reach >= needed:
            return repeats
    return None


def _option(effect: float, within: float, repeats: int, alpha: float, power: float) -> Option:
    noise = Noise(within, effect * (1 - effect))
    cases = cases_needed(effect, noise, repeats, alpha, power)
    return Option(repeats, cases, 2 * cases * repeats)


def _cautious(within: float, past: Answers) -> float:
    """An upper 80 % bound of a variance that was measured with few repeats, at most the 0.25 of a coin."""
    freedom = sum(len(case) - 1 for case in past if len(case) > 1)
    return min(0.25, within * (1 + 0.84 * math.sqrt(2 / freedom)))
