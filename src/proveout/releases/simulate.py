"""Rollouts on invented traffic, through the tests and decisions of real ones: what a plan catches, and how soon."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from random import Random

from proveout.evals.online import Reading
from proveout.releases.plan import Plan
from proveout.releases.rollout import Machine, Progress, State, Units, decide, freeze

_SAMPLED = 1000  # earlier answers of the stable release, from which thresholds are frozen


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a release answers: rates of bad events, the median (ms) and log-normal spread of times, scores if judged."""

    bad: dict[str, float] = field(default_factory=lambda: {"errors": 0.01, "refused": 0.05, "unsupported": 0.02})
    median_ms: float = 400
    spread: float = 0.5
    scores: Mapping[str, float] = field(default_factory=dict)  # means; the standard deviation is SCORE_SD, if it can be
    scored: Mapping[str, float] = field(default_factory=dict)  # the share of requests with each score; default: all
    measured: bool = True  # False: its times are not there


SCORE_SD = 0.25
_BROADEST = 0.5  # a + b of a beta distribution, where the mean is too near 0 or 1 for that deviation
_LOWER = 0.1  # of a regression of scores
_CURSED = Behaviour({"errors": 1.0})


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests a second, and of how many users; None: every request is drawn for itself.

    `cursed` users have clients that fail with every release. `split` is the weight that is drawn with, where that is
    not the one that was set.
    """

    per_second: float = 10
    users: int | None = None
    cursed: int = 0
    split: float | None = None


@dataclass(frozen=True, slots=True)
class End:
    """How a simulated rollout ended; `running` if the requests ended first."""

    state: State
    reason: str
    requests: int
    candidate: int  # requests that the candidate got


def simulate(
    plan: Plan,
    stable: Behaviour,
    candidate: Behaviour,
    traffic: Traffic,
    requests: int,
    random: Random,
    every: int = 10,
) -> End:
    """One rollout over at most `requests` requests, with a decision after every `every` of them."""
    machine, took = Machine(plan, 0.0, Progress(0.0)), 0
    units: Units = {}
    for name in ("first_text", "total"):
        freeze(machine.progress, name, [_time(stable, random) for _ in range(_SAMPLED)])
    reason = ""
    people = [random.random() for _ in range(traffic.users or 0)]
    for begun in range(0, requests, every):
        batch, now = [], (begun + every) / traffic.per_second
        for _ in range(every):
            who = random.randrange(len(people)) if people else None
            place = random.random() if who is None else people[who]
            arm = place < (machine.weight if traffic.split is None else traffic.split)
            took += arm
            behaviour = candidate if arm else stable
            unit = None if who is None else str(who)
            if who is not None and who < traffic.cursed:
                behaviour = _CURSED
            batch.append(_reading(behaviour, arm, machine.weight, now, unit, random))
        reason = decide(machine, batch, units, now).reason
        if machine.state != "running":
            return End(machine.state, reason, begun + every, took)
    return End("running", reason, requests, took)


@dataclass(frozen=True, slots=True)
class Regression:
    """A candidate that is worse than the stable release in one way."""

    name: str
    candidate: Behaviour


def regressions(stable: Behaviour) -> list[Regression]:
    """Regressions of several sizes to simulate; the first is none."""
    found = [Regression("none", stable)]
    for name, sizes in (("errors", (0.02, 0.1, 0.5)), ("unsupported", (0.1, 0.3))):
        for size in sizes if name in stable.bad else ():
            worse = {**stable.bad, name: min(1.0, stable.bad[name] + size)}
            found.append(Regression(f"{name} + {size:.0%}", replace(stable, bad=worse)))
    for size in (0.25, 0.5, 1.0):
        found.append(Regression(f"times + {size:.0%}", replace(stable, median_ms=stable.median_ms * (1 + size))))
    for name, mean in stable.scores.items():
        lower = {**stable.scores, name: max(0.0, mean - _LOWER)}
        found.append(Regression(f"{name} − {_LOWER:.2f}", replace(stable, scores=lower)))
    return found


def _reading(behaviour: Behaviour, arm: bool, weight: float, now: float, unit: str | None, random: Random) -> Reading:
    bad = {name: float(random.random() < rate) for name, rate in behaviour.bad.items()}
    bad.setdefault("guarded", 0.0)
    answered = not (bad.get("errors") or bad.get("refused"))
    if not answered:
        bad.pop("unsupported", None)
    times = {name: _time(behaviour, random) if behaviour.measured else math.nan for name in ("first_text", "total")}
    scores = {
        name: _score(mean, random)
        for name, mean in behaviour.scores.items()
        if name not in behaviour.scored or random.random() < behaviour.scored[name]
    }
    return Reading(arm, weight, now, unit, True, True, bad=bad, amounts=times if answered else {}, scores=scores)


def _time(behaviour: Behaviour, random: Random) -> float:
    return random.lognormvariate(math.log(behaviour.median_ms), behaviour.spread)


def _score(mean: float, random: Random) -> float:
    """From a beta distribution with this mean."""
    mean = min(max(mean, 0.001), 0.999)
    size = max(mean * (1 - mean) / SCORE_SD**2 - 1, _BROADEST)
    return random.betavariate(mean * size, (1 - mean) * size)


def seeds(count: int, base: int = 0) -> Iterator[Random]:
    """`count` independent random generators."""
    return (Random(f"{base}/{number}") for number in range(count))  # noqa: S311 - invented traffic
