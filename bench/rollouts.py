"""Rollouts by simulation: invented traffic through the tests and decisions that real rollouts run through."""

from __future__ import annotations

import argparse
import math
import random as chances
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from proveout.releases.plan import Plan
from proveout.releases.simulate import Behaviour, End, Traffic, seeds, simulate
from proveout.serving.arms import chance, hashed

SOUND = Behaviour()  # 1 % errors, 5 % refused, 2 % unsupported, log-normal times with σ = 0.5
JUDGED = replace(SOUND, scores={"score": 0.7})
WHOLE = replace(SOUND, bad={**SOUND.bad, "tool_errors": 0.02}, scores={"score": 0.7, "judge": 0.8})


def plan(**given: Any) -> Plan:
    return Plan.model_validate(
        {"steps": ["10%"], "minimum": {"calls": 10**6}, "seconds_per_step": 0, "deadline": "300d", **given}
    )


def broken(**rates: float) -> Behaviour:
    return replace(SOUND, bad={**SOUND.bad, **rates})


@dataclass(frozen=True)
class Planted:
    """A fault in the candidate, at a weight of 10 %; the shares and medians that are aimed at."""

    name: str
    candidate: Behaviour
    requests: int
    caught: float
    median: int
    stable: Behaviour = SOUND


PLANTED = (
    Planted("errors 1 % → 50 %", broken(errors=0.5), 5_000, 1.0, 12),
    Planted("errors 1 % → 10 %", broken(errors=0.1), 20_000, 1.0, 70),
    Planted("errors 1 % → 3 %", broken(errors=0.03), 60_000, 0.99, 650),
    Planted("times + 50 %", replace(SOUND, median_ms=600), 10_000, 0.99, 150),
    Planted("score − 0.10 (sd 0.25)", replace(SOUND, scores={"score": 0.6}), 20_000, 0.99, 250, JUDGED),
    Planted("unsupported 2 % → 30 %", broken(unsupported=0.3), 10_000, 0.99, 60),
)


def detection(runs: int) -> Iterator[str]:
    """Every planted fault, in many rollouts that are looked at after each request."""
    yield "| planted in the candidate | caught | aim | candidate requests, median | aim | p90 | others |"
    yield "|---|---|---|---|---|---|---|"
    for one in PLANTED:
        every = 1 if one.requests <= 20_000 else 5
        ends = [simulate(plan(), one.stable, one.candidate, Traffic(), one.requests, r, every) for r in seeds(runs)]
        caught = sorted(end.candidate for end in ends if end.state == "rolled_back")
        p90 = caught[math.ceil(0.9 * len(caught)) - 1]
        others = sum(end.state != "rolled_back" for end in ends)
        share = len(caught) / runs
        yield (
            f"| {one.name} | {share:.1%} | {one.caught:.0%} | {statistics.median(caught):.0f} | {one.median} | {p90} "
            f"| {others} |"
        )


def told(ends: Sequence[End]) -> str:
    return ", ".join(f"{state} {count}" for state, count in Counter(end.state for end in ends).most_common())


def ends_of(
    runs: int, by: Plan, candidate: Behaviour, traffic: Traffic, requests: int, every: int, stable: Behaviour = SOUND
) -> list[End]:
    return [simulate(by, stable, candidate, traffic, requests, random, every) for random in seeds(runs, 1)]


def sound(runs: int) -> Iterator[str]:
    """A/A: the candidate behaves as the stable release does."""
    steps = plan(steps=["10%", "50%"], minimum={"calls": 100})
    ends = ends_of(runs, steps, WHOLE, Traffic(), 15_000, 50, WHOLE)
    wrong = sum(end.state == "rolled_back" for end in ends)
    promoted = [end.requests for end in ends if end.state == "promoted"]
    yield f"{runs:,} rollouts of a candidate that is as the stable release is, with feedback, a judge and calls of"
    yield "tools, steps 10 % and 50 %, α = 1 %:"
    yield f"{told(ends)}."
    yield f"Rolled back wrongly: {wrong} (aim: at most {4 * runs // 1000} of {runs:,})."
    yield f"Requests until promotion, median: {statistics.median(promoted):,.0f}." if promoted else ""


def conditions(runs: int) -> Iterator[str]:
    """What else may happen to a rollout."""
    ready = plan(minimum={"calls": 100}, margins={"bad_events": 0.05, "latency": 0.1})
    rising = plan(steps=["10%", "25%", "50%"], minimum={"calls": 100})
    blind = replace(SOUND, measured=False)
    rows: list[tuple[str, Callable[[], list[End]]]] = [
        ("50 users, 2 of them with clients that always fail", partial(
            ends_of, runs, plan(steps=["10%", "50%"]), SOUND, Traffic(users=50, cursed=2), 5_000, 50)),
        *(
            (f"errors 50 %, {users} users, {name}", partial(
                ends_of, runs, by, broken(errors=0.5), Traffic(users=users), 5_000, 10))
            for users in (50, 100, 500) for name, by in (("at 10 %", plan()), ("10 %, 25 %, 50 %", rising))
        ),
        ("split of 20 % where 10 % was set", partial(ends_of, runs, plan(), SOUND, Traffic(split=0.2), 5_000, 10)),
        ("the candidate's times are not measured", partial(ends_of, runs, ready, blind, Traffic(), 10_000, 50)),
        ("the same, measured", partial(ends_of, runs, ready, SOUND, Traffic(), 10_000, 50)),
    ]  # fmt: skip
    yield "| what | ends |"
    yield "|---|---|"
    for name, run in rows:
        yield f"| {name} | {told(run())} |"


def assignment() -> Iterator[str]:
    """How evenly users are drawn, and what a draw costs."""
    users, random = [f"user {number}" for number in range(100_000)], chances.Random(0)
    salts = [f"{random.getrandbits(128):032x}" for _ in range(2)]
    places = [[chance(hashed(salt, user)) for user in users] for salt in salts]
    counts = Counter(int(place * 100) for place in places[0])
    uniform = sum((counts[n] - 1000) ** 2 / 1000 for n in range(100))
    cells = Counter((int(a * 10), int(b * 10)) for a, b in zip(*places, strict=True))
    independent = sum((cells[i, j] - 1000) ** 2 / 1000 for i in range(10) for j in range(10))
    began = time.perf_counter_ns()
    for user in users:
        chance(hashed(salts[0], user))
    each = (time.perf_counter_ns() - began) / len(users) / 1000
    yield "χ² of 100,000 users over 100 equal parts: "
    yield f"{uniform:.0f}, and over the 10 × 10 parts of two rollouts: {independent:.0f} (99 degrees of freedom;"
    yield "148 at p = 0.001)."
    yield f"A draw takes {each:.1f} µs (aim: 50)."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--sound", type=int, default=1000)
    given = parser.parse_args()
    parts = [
        "# Rollouts",
        "Written by `python -m bench.rollouts`: invented traffic through the tests and decisions of real rollouts. "
        "A request names no user, so that each is drawn for itself, except where it says so. Times are log-normal "
        "with σ = 0.5, their thresholds frozen from 1,000 earlier answers.",
    ]
    for title, lines in (
        (f"Faults that were planted, {given.runs} rollouts each, α = 1 %", detection(given.runs)),
        ("Sound candidates", sound(given.sound)),
        (f"Other conditions, {given.runs // 4} rollouts each", conditions(given.runs // 4)),
        ("Assignment", assignment()),
    ):
        parts.append(f"## {title}\n\n" + "\n".join(lines))
        sys.stderr.write(f"{parts[-1]}\n\n")
    text = "\n\n".join(parts) + "\n"
    if given.output:
        given.output.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
