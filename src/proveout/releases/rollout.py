"""What a rollout does next, from what it has seen: pure functions, so that thousands of rollouts can be simulated.

RELIABILITY of the decisions: a rollback is demanded when the weighted average of the guardrails' e-values reaches 1/α,
so a sound candidate is rolled back with probability ≤ α however the guardrails depend on each other and however often
one looks. A promotion demands that every criterion by itself is shown to be no worse. Missing data never promotes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from proveout.evals import online
from proveout.evals.online import Reading
from proveout.evals.sequential import (
    RARE,
    RATIOS,
    BadEvents,
    Betting,
    SampleRatio,
    Seen,
    crosses,
    log_mean,
    weighted_log_e,
)
from proveout.releases.plan import Plan

State = Literal["running", "paused", "frozen", "promoted", "rolled_back", "aborted"]
ACTIVE: tuple[State, ...] = ("running", "paused", "frozen")
Action = Literal["hold", "step", "promote", "roll_back", "freeze", "abort"]
Arm = Literal["stable", "candidate"]

AMOUNTS = ("first_text", "total", "tokens", "cost")
SLOWNESS = ("first_text_p95", "total_p95")
HOLDING = ("errors", "unsupported", "refused", "guarded", "tool_errors")
"""The bad events whose rates hold a promotion. Feedback comes late and `left` is the client's: they only guard."""
SCORES = ("score", "judge")
"""The scores that decide: feedback's, and those of judges that may. Other judges' `advice` is shown."""

SPLIT_ALPHA = 1e-4  # a sound split is frozen with this probability at most
_HARM_IN_SCORES = 0.02  # the mean of scores may be lower by this before it counts as harm
_SAMPLE = 100  # answers of the stable release from which the thresholds are frozen
_COMPARABLE = 20  # scores, or answers that call tools, of the stable release from which on they hold a promotion
_ANSWERS = ("first_text", "total", "unsupported")
_NOW_AND_THEN = ("unsupported", "tool_errors", *SCORES)  # what not every request tells of
_MISSED = 20  # answers in a row without a metric: it has stopped
_LARGEST = 1e15  # beyond, JSON's numbers are no longer exact
_USERS, _AGAIN = " of users", " again"  # the first event of each at a weight; the first that comes twice in a row
_KEPT = 240  # points of the e-value's history
_FRESH_SECONDS = (10.0, 900.0)  # what is older than a step, within these, is no longer news

_SHARES: Mapping[str, Mapping[str, float]] = {
    "errors": {"errors": 1},
    "unsupported": {"unsupported": 1},
    "latency": {f"{name}_{q}": 1 / 6 for name in AMOUNTS[:2] for q in online.QUANTILES},
    "rest": {
        **dict.fromkeys(SCORES, 1 / 4),
        **dict.fromkeys(("refused", "guarded", "tool_errors", "left", "feedback"), 1 / 20),
        **{f"{name}_{q}": 1 / 24 for name in AMOUNTS[2:] for q in online.QUANTILES},
    },
}
"""How each of the plan's four weights is shared among its tests."""

Units = MutableMapping[str, dict[str, float]]
"""By unit and metric: the weight up to which the unit's draw is known; `METRIC last`: its last request was bad. A
request whose feedback was counted is there too, without metrics."""


def weights(plan: Plan) -> dict[str, float]:
    """The weight of every test's e-value. They sum to 1."""
    groups = plan.guardrails.model_dump()
    return {test: groups[group] * share for group, tests in _SHARES.items() for test, share in tests.items()}


class Counts(msgspec.Struct):
    """Counts of one arm, over the whole rollout or this step."""

    calls: int = 0
    answered: int = 0
    measured: dict[str, int] = {}  # of each metric, how often it was there
    scores: dict[str, float] = {}  # of each score, the sum
    events: dict[str, int] = {}  # of each bad event, how often it happened
    missed: dict[str, int] = {}  # of each metric of answers, how often in a row it was not there
    above: dict[str, int] = {}  # of each threshold, how many answers were above it
    compared: dict[str, int] = {}  # of each threshold, with how many answers it was compared


class Progress(msgspec.Struct):
    """All that a rollout remembers of what it saw. JSON between ticks; times are seconds since the epoch."""

    stepped: float  # when this step began
    weights: dict[str, float] = {}  # of the tests' e-values, as published at the start
    tests: dict[str, BadEvents] = {}  # `METRIC` of requests, `METRIC of users`, `METRIC again`
    scores: dict[str, Betting] = {}
    criteria: dict[str, Betting] = {}
    split: SampleRatio = SampleRatio()
    explained: float = 0.0  # of the evidence against the candidate, by the split, when it froze
    thresholds: dict[str, float] = {}
    gathered: dict[str, list[float]] = {}  # of the stable release, for thresholds that are not frozen yet
    total: dict[Arm, Counts] = msgspec.field(default_factory=lambda: {"stable": Counts(), "candidate": Counts()})
    step: dict[Arm, Counts] = msgspec.field(default_factory=lambda: {"stable": Counts(), "candidate": Counts()})
    newest: dict[Arm, float] = {}
    judges: dict[Arm, str] = {}  # that decide, the last of each arm: a release has its own
    history: list[float] = []  # of log10 of the combined e-value
    closed: str = ""  # what the gate lacked when it was to be promoted
    held: str = ""  # the last of these that was put on record


@dataclass(slots=True)
class Machine:
    """A rollout as it stands."""

    plan: Plan
    started: float
    progress: Progress
    state: State = "running"
    step: int = 0

    def __post_init__(self) -> None:
        self.progress.weights = self.progress.weights or weights(self.plan)

    @property
    def weight(self) -> float:
        return self.plan.steps[self.step]

    @property
    def is_last_step(self) -> bool:
        return self.step == len(self.plan.steps) - 1


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, why, and the numbers behind it."""

    action: Action
    reason: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def decide(machine: Machine, batch: Sequence[Reading], units: Units, now: float, *, behind: bool = False) -> Decision:
    """Takes in what has ended since, changes the machine, and says what was decided.

    `units` holds what is known of the units of the batch and is changed too. A paused rollout is watched, and rolled
    back when it must be. `behind`: more has ended than was read; then nothing goes forward.
    """
    observe(machine, batch, units)
    combined = log_e(machine)
    if batch:
        _remember(machine.progress, combined)
    decision = _decided(machine, now, combined)
    if behind and decision.action in ("step", "promote"):
        decision = Decision("hold", "more has happened than was read yet")
    if decision.action == "step":
        machine.step += 1
        machine.progress.stepped = now
        machine.progress.step = {"stable": Counts(), "candidate": Counts()}
    ends: dict[Action, State] = {
        "promote": "promoted",
        "roll_back": "rolled_back",
        "abort": "aborted",
        "freeze": "frozen",
    }
    machine.state = ends.get(decision.action, machine.state)
    if decision.action == "freeze":
        machine.progress.explained = max(0.0, machine.progress.split.log_e)
    return decision


def outlook(machine: Machine, now: float) -> Decision:
    """The decision on a rollout as it stands. Changes nothing."""
    return _decided(machine, now, log_e(machine))


def _decided(machine: Machine, now: float, combined: float) -> Decision:
    plan, progress = machine.plan, machine.progress
    # Where the split itself is off, that explains as much of what looks like harm: what it was when it froze, for what
    # goes on under a broken split is a person's to end, and must not keep a broken candidate for ever.
    explained = progress.explained if machine.state == "frozen" else max(0.0, progress.split.log_e)
    if crosses(combined - explained, plan.alpha):
        heavy = {name: math.log(weight) for name, weight in progress.weights.items() if weight}
        worst = max(heavy, key=lambda name: heavy[name] + _log_e(progress, name))
        reason = f"{_compared(plan, progress, worst)}; combined e-value {_shown(combined)} ≥ {1 / plan.alpha:g}"
        return Decision("roll_back", reason, _numbers(machine))
    if machine.state != "frozen" and crosses(progress.split.log_e, SPLIT_ALPHA):
        split = progress.split
        reason = (
            f"the split is broken: of {split.candidate + split.stable} first exposures {split.candidate} were of the "
            f"candidate at a weight of {split.weight:.0%}; e-value {_shown(split.log_e)} ≥ {1 / SPLIT_ALPHA:g}"
        )
        return Decision("freeze", reason, _numbers(machine))
    if now - machine.started >= plan.deadline:
        return Decision("abort", "the deadline has passed without enough evidence to promote", _numbers(machine))
    if machine.state != "running":
        return Decision("hold", f"{machine.state}: resume, promote or abort it")
    missing = next(_awaited(machine, now), None)
    if missing:
        return Decision("hold", missing)
    if not machine.is_last_step:
        following = plan.steps[machine.step + 1]
        rise = f"{100 * machine.weight:.3g} % → {100 * following:.3g} % of the traffic"
        return Decision("step", rise, _numbers(machine))
    unshown = [name for name in criteria(progress) if not _is_shown(machine, name)]
    if unshown:
        return Decision("hold", f"not shown yet to be no worse: {', '.join(unshown)}")
    return Decision("promote", "every criterion is shown to be no worse", _numbers(machine))


def _awaited(machine: Machine, now: float) -> Iterator[str]:
    """What a step still needs to have seen."""
    plan, progress = machine.plan, machine.progress
    calls = progress.step["candidate"].calls
    if calls < plan.minimum.calls:
        yield f"{calls} of {plan.minimum.calls} calls of the candidate in this step"
    if now - progress.stepped < plan.seconds_per_step:
        yield f"{plan.seconds_per_step - (now - progress.stepped):.0f} s of this step are left"
    fresh = min(max(plan.seconds_per_step, _FRESH_SECONDS[0]), _FRESH_SECONDS[1])
    for arm in ("stable", "candidate"):
        if now - progress.newest.get(arm, -math.inf) > fresh:
            yield f"no call of the {arm} arm has ended for {fresh:.0f} s"
    yield from (f"{name} is no longer measured" for name in _ANSWERS if _stopped(machine, name))
    for name in criteria(progress):
        for arm in progress.step if name in _NOW_AND_THEN else ():
            if not progress.step[arm].measured.get(name):
                yield f"{name} was not measured with the {arm} arm in this step"


def _stopped(machine: Machine, name: str) -> bool:
    """Whether an arm has lost a metric of answers: missing 20 times in a row, or in most answers of this step."""
    progress = machine.progress
    ever = progress.total["stable"].measured.get(name, 0) + progress.total["candidate"].measured.get(name, 0)
    if not ever:
        return False  # it does not apply to this app; what applies to every app, latency, is demanded by its criterion
    if any(c.missed.get(name, 0) >= _MISSED for c in progress.total.values()):
        return True
    return any(c.measured.get(name, 0) < c.answered / 2 for c in progress.step.values())


def criteria(progress: Progress) -> list[str]:
    """The criteria of a promotion that apply to the app: rates of bad events, slowness, scores."""
    stable, candidate = (progress.total[arm].measured for arm in ("stable", "candidate"))
    applies = {name: stable.get(name, 0) >= _COMPARABLE for name in ("tool_errors", *SCORES)}
    applies["judge"] &= not _differ(progress.judges)
    applies["unsupported"] = bool(stable.get("unsupported") or candidate.get("unsupported"))
    return [name for name in (*HOLDING, *SLOWNESS, *SCORES) if applies.get(name, True)]


def _differ(judges: Mapping[Arm, str]) -> bool:
    """Whether the arms are judged by two judges, whose scores cannot be compared."""
    return len(set(judges.values())) > 1


def _is_shown(machine: Machine, name: str) -> bool:
    """Whether the candidate is shown to be no worse in one criterion."""
    bet = machine.progress.criteria.get(name)
    return bet is not None and crosses(bet.log_e, machine.plan.alpha)


# -- what is seen -----------------------------------------------------------------------------------


def observe(machine: Machine, batch: Sequence[Reading], units: Units) -> None:
    """Takes readings into every test."""
    if not batch:
        return
    progress, margins = machine.progress, machine.plan.margins
    seen = _Sorted()
    exposed: list[tuple[bool, float]] = []
    for reading in batch:
        if reading.about is not None:
            if not (reading.bad or reading.scores) or reading.about in units:
                continue  # the first word on a request counts, however often it is said
            units[reading.about] = {}
        if reading.exposed and (reading.unit is None or reading.unit not in units):
            exposed.append((reading.candidate, reading.weight))
        if reading.unit is not None:
            units.setdefault(reading.unit, {})
        tested = dict(_values(machine.plan, progress, reading))
        _count(progress, reading, tested)
        seen.sort(progress, reading, tested, units)
        _gather(progress, reading)
    for test, events in seen.harm.items():
        fresh = BadEvents.of(RARE if test.endswith(_AGAIN) else RATIOS)
        progress.tests[test] = progress.tests.get(test, fresh).update(events)
    for name, values in seen.scores.items():
        progress.scores[name] = progress.scores.get(name, Betting("harm", _HARM_IN_SCORES)).update(values)
    for name, values in seen.shown.items():
        margin = margins.scores if name in SCORES else margins.latency if name in SLOWNESS else margins.bad_events
        progress.criteria[name] = progress.criteria.get(name, Betting("no_harm", margin)).update(values)
    progress.split = progress.split.update(exposed)


class _Sorted:
    """What the tests take in of a batch, by test and metric."""

    def __init__(self) -> None:
        self.harm: dict[str, list[Seen]] = defaultdict(list)
        self.scores: dict[str, list[Seen]] = defaultdict(list)
        self.shown: dict[str, list[Seen]] = defaultdict(list)

    def sort(self, progress: Progress, reading: Reading, values: Mapping[str, float], units: Units) -> None:
        for name, value in values.items():
            of_user = reading.unit is not None and name in reading.bad
            if of_user and _is_again(reading, name, value, units):
                self.harm[name + _AGAIN] += _drawn(reading, name + _AGAIN, value, units)
            if value > 0.5:
                self.harm[name + _USERS if of_user else name] += _drawn(reading, name, value, units)
            if name in HOLDING or name in SLOWNESS:
                self.shown[name].append(Seen(reading.candidate, 1 - value, reading.weight))
        for name in reading.scores.keys() & SCORES:
            if name == "judge" and _differ(progress.judges):
                continue
            value = reading.scores[name]
            self.scores[name] += _drawn(reading, name, value, units)
            self.shown[name].append(Seen(reading.candidate, value, reading.weight))


def _remember(progress: Progress, combined: float) -> None:
    """Adds a point to the e-value's history; drops every second one when there are too many."""
    progress.history.append(round(combined / math.log(10), 3))
    if len(progress.history) > _KEPT:
        progress.history = progress.history[::2]


def _drawn(reading: Reading, name: str, value: float, units: Units) -> list[Seen]:
    """An event, or a score, with the probability that its unit was drawn to the candidate; empty if that is known.

    For a request that was drawn by itself it is the weight. A user is drawn once: a second event at the same weight
    says nothing new and is left out, and when the weight rises from f to w, a user who was not drawn at f is the
    candidate's with probability (w − f) / (1 − f). So a user with a broken client is one event, not a thousand.
    """
    if reading.unit is None:
        return [Seen(reading.candidate, value, reading.weight)]
    used = units[reading.unit]
    known = used.get(name, 0.0)
    if reading.weight <= known:
        return []
    used[name] = 1.0 if reading.candidate else reading.weight
    return [Seen(reading.candidate, value, (reading.weight - known) / (1 - known))]


def _is_again(reading: Reading, name: str, value: float, units: Units) -> bool:
    """Whether this user's previous request had the same bad event. Remembers this one.

    Only a user's draw is random, not what the user does, so no test can make more of one user than 1 / weight. First
    events happen to everybody sooner or later. Two in a row hardly happen unless something is broken: a test of their
    own, with the ratios of RARE, comes nearer to that bound.
    """
    used, last = units[str(reading.unit)], f"{name} last"
    was = used.pop(last, 0.0)
    if value > 0.5:
        used[last] = 1.0
    return bool(was) and value > 0.5


def _values(plan: Plan, progress: Progress, reading: Reading) -> Iterator[tuple[str, float]]:
    """What the tests see of a reading: bad events, and whether amounts are above their thresholds by more than is
    tolerated."""
    yield from reading.bad.items()
    for name, amount in reading.amounts.items():
        tolerated = 1 + plan.tolerance.of(name)
        for quantile in online.QUANTILES:
            threshold = progress.thresholds.get(test := f"{name}_{quantile}")
            if threshold is not None:
                yield test, float(amount > threshold * tolerated) if math.isfinite(amount) else math.nan


def _count(progress: Progress, reading: Reading, tested: Mapping[str, float]) -> None:
    arm: Arm = "candidate" if reading.candidate else "stable"
    values = {**reading.bad, **reading.amounts, **reading.scores}
    measured = [name for name, value in values.items() if math.isfinite(value)]
    above = {test: value > 0.5 for test, value in tested.items() if test in progress.thresholds and value == value}
    for counts in (progress.total[arm], progress.step[arm]):
        counts.calls += reading.call
        counts.answered += bool(reading.amounts)
        for name in measured:
            counts.measured[name] = counts.measured.get(name, 0) + 1
        for name in _ANSWERS if reading.amounts else ():
            counts.missed[name] = 0 if name in measured else counts.missed.get(name, 0) + 1
        for name in reading.scores.keys() & measured:
            counts.scores[name] = counts.scores.get(name, 0.0) + values[name]
        for name, value in reading.bad.items():
            if value > 0.5:
                counts.events[name] = counts.events.get(name, 0) + 1
        for test, is_above in above.items():
            counts.above[test] = counts.above.get(test, 0) + is_above
            counts.compared[test] = counts.compared.get(test, 0) + 1
    if "judge" in reading.scores:
        progress.judges[arm] = reading.judge
    if reading.call:
        progress.newest[arm] = max(reading.at, progress.newest.get(arm, -math.inf))


def _gather(progress: Progress, reading: Reading) -> None:
    """Freezes thresholds once the stable release has answered often enough."""
    if reading.candidate:
        return
    for name, amount in reading.amounts.items():
        if f"{name}_p50" not in progress.thresholds and math.isfinite(amount):
            progress.gathered.setdefault(name, []).append(amount)
            freeze(progress, name, progress.gathered[name])


def freeze(progress: Progress, name: str, values: Sequence[float]) -> None:
    """Freezes the thresholds of an amount, if the sample of the stable release's answers is large enough."""
    if len(values) >= _SAMPLE:
        progress.thresholds |= online.thresholds(name, values)
        progress.gathered.pop(name, None)


# -- what is told -----------------------------------------------------------------------------------


def log_e(machine: Machine) -> float:
    """The log of the combined e-value."""
    progress = machine.progress
    return weighted_log_e({name: _log_e(progress, name) for name in progress.weights}, progress.weights)


def _log_e(progress: Progress, name: str) -> float:
    """Multiplies the e-value of requests drawn one by one with that of users."""
    if name in progress.scores:
        return progress.scores[name].log_e
    tests = (progress.tests.get(name + part, BadEvents()) for part in ("", _USERS, _AGAIN))
    requests, first, again = (test.log_e for test in tests)
    return requests + log_mean((first, again))


def _events(progress: Progress, name: str) -> tuple[int, int]:
    """How many events of the candidate and of the stable release the tests have counted."""
    tests = [progress.tests[test] for test in (name, name + _USERS) if test in progress.tests]
    return sum(test.candidate for test in tests), sum(test.stable for test in tests)


def guardrails(machine: Machine) -> list[dict[str, Any]]:
    """Every test that guards against harm, as it stands."""
    progress = machine.progress
    return [
        {
            "name": name,
            "weight": round(weight, 6),
            "e_value": finite(_log_e(progress, name)),
            "threshold": progress.thresholds.get(name),
            "candidate": (counted := _events(progress, name))[0],
            "stable": counted[1],
        }
        for name, weight in progress.weights.items()
    ]


def shown_criteria(machine: Machine) -> list[dict[str, Any]]:
    """Every criterion of a promotion, as it stands; 1/α shows that the candidate is no worse by more than `margin`."""
    return [
        {
            "name": name,
            "margin": bet.delta if (bet := machine.progress.criteria.get(name)) else None,
            "e_value": finite(bet.log_e) if bet else 1.0,
            "needed": 1 / machine.plan.alpha,
        }
        for name in criteria(machine.progress)
    ]


def arms(counts: Mapping[Arm, Counts]) -> dict[str, Any]:
    """Both arms side by side."""
    return {arm: msgspec.to_builtins(one) for arm, one in counts.items()}


def _numbers(machine: Machine) -> dict[str, Any]:
    """The numbers behind a decision, for the record."""
    plan, progress = machine.plan, machine.progress
    e_values = {one["name"]: one["e_value"] for one in guardrails(machine) if one["e_value"] != 1}
    return {
        "step": machine.step,
        "weight": machine.weight,
        "alpha": plan.alpha,
        "combined": finite(log_e(machine)),
        "e_values": e_values,
        "criteria": {one["name"]: one["e_value"] for one in shown_criteria(machine)},
        "split": finite(progress.split.log_e),
        "arms": arms(progress.total),
        "thresholds": dict(progress.thresholds),
    }


def _compared(plan: Plan, progress: Progress, name: str) -> str:
    """A metric of both arms in words, its name first."""
    candidate, stable = progress.total["candidate"], progress.total["stable"]
    if name in SCORES:
        of = f"{_mean(candidate, name)} answers of the candidate, {_mean(stable, name)} of the stable release"
        return f"{name}: on average {of}"
    if name in progress.thresholds:
        amount, quantile = name.rsplit("_", 1)
        more, unit = _MORE[amount]
        tolerated = plan.tolerance.of(amount)
        most = _amount(progress.thresholds[name] * (1 + tolerated))
        above = f"{100 * tolerated:.3g} % above " if tolerated else ""
        happened = f"{more} than {most} {unit}, {above}the stable release's {_NAMED[quantile]}"
        counted = [(one.above.get(name, 0), one.compared.get(name, 0)) for one in (candidate, stable)]
        name, what = amount.replace("_", " "), "answers"
    else:
        happened, what = _HAPPENED[name]
        counted = [
            (one.events.get(name, 0), one.calls if what == "calls" else one.measured.get(name, 0))
            for one in (candidate, stable)
        ]
    (ours, all_ours), (theirs, all_theirs) = counted
    return (
        f"{name}: {ours:,} of {all_ours:,} {what} of the candidate {happened}; "
        f"{theirs:,} of {all_theirs:,} of the stable release"
    )


_HAPPENED = {
    "errors": ("failed", "calls"),
    "unsupported": ("had words that no passage supports", "answers"),
    "refused": ("were refused", "calls"),
    "guarded": ("set off a guard", "calls"),
    "tool_errors": ("called what cannot be carried out", "answers with tools"),
    "left": ("were left by their client", "calls"),
    "feedback": ("got negative feedback", "calls"),
}
_MORE = {
    "first_text": ("came later", "ms"),
    "total": ("took longer", "ms"),
    "tokens": ("took more", "tokens"),
    "cost": ("cost more", "USD"),
}
_NAMED = {"p50": "median", "p95": "95th percentile", "p99": "99th percentile"}


def _mean(counts: Counts, name: str) -> str:
    """`0.41 of 12`."""
    scored = counts.measured.get(name, 0)
    return f"{counts.scores[name] / scored:.2f} of {scored:,}" if scored else "none of 0"


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def finite(log: float) -> float:
    """An e-value as a number of four figures that canonical JSON (RFC 8785) can hold."""
    return float(f"{min(math.exp(log), _LARGEST):.4g}")


def _shown(log: float) -> str:
    return f"{math.exp(log):.3g}"
