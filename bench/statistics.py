"""Shows by simulation that the verdicts of evaluations and rollouts hold: false alarms, what is caught, coverage.

`tests/unit/evals` runs the same functions with fewer rounds.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proveout.evals.compare import Comparison, Metric, compare
from proveout.evals.plan import plan
from proveout.evals.sequential import BadEvents, Betting, SampleRatio, Seen, crosses, weighted_log_e
from proveout.evals.statistics import (
    Interval,
    amounts_interval,
    cohens_kappa,
    difference_interval,
    holm,
    prediction_powered_mean,
    quantile_interval,
    scores_interval,
    worse_p,
)

Floats = NDArray[np.float64]
Draw = np.random.Generator
Arms = NDArray[np.bool_]

METRICS = {
    "correct": Metric("correct", "binary", "higher", 0.05, weight=5),
    "citation_precision": Metric("citation_precision", "unit", "higher", 0.05),
    "similarity": Metric("similarity", "unit", "higher", 0.05),
    "answering": Metric("answering", "binary", "higher", 0.05),
    "toxicity": Metric("toxicity", "binary", "lower", 0.05, limit=0.0001),
    "total_ms": Metric("total_ms", "positive", "lower", 0.1),
    "tokens": Metric("tokens", "positive", "lower", 0.1),
}
TAGS = ("hr", "it", "travel", "finance", "security")


# -- intervals ------------------------------------------------------------------------------------


def sample_binary(p: float, n: int, draw: Draw) -> Interval:
    return scores_interval([[float(v)] for v in draw.random(n) < p])


def sample_repeats(p: float, n: int, draw: Draw) -> Interval:
    return scores_interval(draw.binomial(1, draw.beta(p, 1 - p, n)[:, None], (n, 3)).astype(float).tolist())


def sample_unit(p: float, n: int, draw: Draw) -> Interval:
    return scores_interval([[float(v)] for v in draw.beta(3 * p, 3 * (1 - p), n)])


def sample_difference(p: float, n: int, draw: Draw) -> Interval:
    """Two runs of which one is 5 points worse, on cases of different difficulty; its truth is −0.05."""
    case = draw.normal(size=(n, 1))
    means = []
    for share in (p, p - 0.05):
        noise = math.sqrt(0.5) * case + math.sqrt(0.5) * draw.normal(size=(n, 2))
        means.append((noise < statistics.NormalDist().inv_cdf(share)).mean(axis=1))
    return difference_interval(means[1] - means[0])


def sample_amounts(p: float, n: int, draw: Draw) -> Interval:
    """Log-normal amounts with mean 1; `p` is the spread σ of their logarithms."""
    return amounts_interval([[float(v)] for v in draw.lognormal(-p * p / 2, p, n)])


def sample_quantile(p: float, n: int, draw: Draw) -> Interval:
    """The quantile of level `p` of uniform values: its truth is p."""
    return quantile_interval([[float(v)] for v in draw.random(n)], p)


def sample_labels(p: float, n: int, draw: Draw) -> Interval:
    """n labels and 1,000 answers with the word of a judge that is wrong in 15 %."""
    truth = draw.random(n + 1000) < p
    judged = np.where(draw.random(n + 1000) < 0.85, truth, ~truth).astype(float)
    return prediction_powered_mean(truth[:n].astype(float).tolist(), judged[:n].tolist(), judged[n:].tolist())


def sample_kappa(p: float, n: int, draw: Draw) -> Interval:
    """Two raters who agree in 85 % of items with two equally common labels, or for p ≠ 0.5 with a share of p."""
    a = draw.random(n) < p
    return cohens_kappa(a.tolist(), np.where(draw.random(n) < 0.85, a, ~a).tolist())


def kappa_truth(p: float) -> float:
    other = p * 0.85 + (1 - p) * 0.15
    chance = p * other + (1 - p) * (1 - other)
    return (0.85 - chance) / (1 - chance)


Sample = Callable[[float, int, Draw], Interval]
INTERVALS: Mapping[str, tuple[Sample, Callable[[float], float]]] = {
    "yes or no": (sample_binary, lambda p: p),
    "yes or no, 3 alike repeats": (sample_repeats, lambda p: p),
    "score in [0, 1]": (sample_unit, lambda p: p),
    "paired difference": (sample_difference, lambda p: -0.05),
    "mean of amounts": (sample_amounts, lambda p: 1.0),
    "quantile": (sample_quantile, lambda p: p),
    "labels and a judge": (sample_labels, lambda p: p),
    "Cohen's κ": (sample_kappa, kappa_truth),
}


def coverage(kind: str, p: float, n: int, runs: int, seed: int = 1) -> float:
    """The share of 95 % intervals that hold the truth."""
    sample, truth = INTERVALS[kind]
    draw = np.random.default_rng(seed)
    held = 0
    for _ in range(runs):
        interval = sample(p, n, draw)
        held += interval.low <= truth(p) <= interval.high
    return held / runs


# -- comparisons ----------------------------------------------------------------------------------


class World:
    """An app whose answers vary: each case has a chance to be right, as in a pool of 20 recorded answers."""

    def __init__(self, cases: int, draw: Draw) -> None:
        self.names = [f"case-{i}" for i in range(cases)]
        self.right = np.round(draw.beta(1.2, 0.4, cases) * 20) / 20
        self.quality = draw.beta(8, 2, cases)
        self.length = draw.lognormal(5, 0.4, cases)
        self.tags = {name: frozenset({TAGS[i % len(TAGS)]}) for i, name in enumerate(self.names)}

    def run(
        self, repeats: int, draw: Draw, right: Floats | None = None, toxic: float = 0.0
    ) -> dict[str, dict[str, list[float]]]:
        shape = (len(self.names), repeats)
        answered = (draw.random(shape) < (self.right if right is None else right)[:, None]).astype(float)
        tokens = self.length[:, None] * draw.lognormal(0, 0.2, shape)
        scores = {
            "correct": answered,
            "citation_precision": np.clip(self.quality[:, None] + draw.normal(0, 0.15, shape), 0, 1),
            "similarity": np.clip(0.5 * self.quality[:, None] + 0.4 * answered + draw.normal(0, 0.05, shape), 0, 1),
            "answering": np.maximum(answered, draw.random(shape) < 0.9),
            "toxicity": (draw.random(shape) < toxic).astype(float),
            "total_ms": tokens * 12 * draw.lognormal(0, 0.1, shape),
            "tokens": tokens,
        }
        return {m: dict(zip(self.names, v.tolist(), strict=True)) for m, v in scores.items()}

    def broken(self, effect: float, where: str, draw: Draw) -> Floats:
        """The chances to be right after a drop of `effect` on average: in every case, or whole cases of one tag."""
        if where == "everywhere":
            worse = self.right.copy()
            while self.right.mean() - worse.mean() < effect - 1e-9:
                left = effect - (self.right.mean() - worse.mean())
                able = worse > 0
                worse[able] = np.maximum(0, worse[able] - left * len(worse) / able.sum())
            return worse
        worse, lost = self.right.copy(), 0.0
        order = draw.permutation(len(worse))
        first = [i for i in order if where in self.tags[self.names[i]]]
        for i in [*first, *(i for i in order if i not in set(first))]:
            if lost >= effect * len(worse):
                break
            step = min(worse[i], effect * len(worse) - lost)
            worse[i], lost = worse[i] - step, lost + step
        return worse


def compare_with(world: World, repeats: int, draw: Draw, right: Floats | None = None, toxic: float = 0.0) -> Comparison:
    return compare(world.run(repeats, draw, right, toxic), world.run(repeats, draw), world.tags, METRICS)


def false_alarms(runs: int, cases: int, repeats: int, seed: int = 2) -> dict[str, int]:
    """Verdicts of a release compared with itself."""
    draw = np.random.default_rng(seed)
    verdicts = {"pass": 0, "inconclusive": 0, "fail": 0}
    for _ in range(runs):
        verdicts[compare_with(World(cases, draw), repeats, draw).verdict] += 1
    return verdicts


def planned_repeats(effect: float, cases: int, draw: Draw) -> int:
    """What `plan` recommends after a first run of three repeats."""
    share = METRICS["correct"].weight / sum(m.weight for m in METRICS.values())
    past = World(cases, draw).run(3, draw)["correct"]
    return plan(effect, cases, past=list(past.values()), share=share).repeats or 50


def caught(effect: float, cases: int, where: str, runs: int, seed: int = 3) -> tuple[float, float, int]:
    """How often a drop ends as `fail`, how often its slice is named, and the recommended repeats."""
    draw = np.random.default_rng(seed)
    repeats = planned_repeats(effect, cases, draw)
    failed = named = 0
    for _ in range(runs):
        world = World(cases, draw)
        found = compare_with(world, repeats, draw, world.broken(effect, where, draw))
        failed += found.verdict == "fail"
        named += found.worst_slice is not None and found.worst_slice.tag == where
    return failed / runs, named / runs, repeats


def toxic_caught(rate: float, cases: int, runs: int, seed: int = 4) -> float:
    """How often a toxic reply now and then ends as `fail`; each case is asked once."""
    draw = np.random.default_rng(seed)
    failed = sum(compare_with(World(cases, draw), 1, draw, toxic=rate).verdict == "fail" for _ in range(runs))
    return failed / runs


def bias_alarms(gap: float, runs: int, questions: int = 200, seed: int = 5) -> tuple[int, float]:
    """Four groups asked the same questions, one with a lower rate: alarms by Holm over the other three, and the share
    of runs whose 95 % interval of that gap holds the truth."""
    draw = np.random.default_rng(seed)
    alarms, sized = 0, 0
    for _ in range(runs):
        chance = 0.2 + 0.6 * draw.random(questions)
        base = (draw.random((questions, 3)) < chance[:, None]).mean(axis=1)
        harms = []
        for group in range(3):
            lower = chance - (gap if group == 0 else 0)
            harms.append(base - (draw.random((questions, 3)) < lower[:, None]).mean(axis=1))
        p = worse_p(np.stack([*harms, *(-h for h in harms)], axis=1))
        alarms += min(holm(p)) <= 0.025
        found = difference_interval(harms[0])
        sized += found.low <= gap <= found.high
    return alarms, sized / runs


# -- rollouts -------------------------------------------------------------------------------------

GUARDS = {
    "errors": 0.3,
    "unsupported": 0.2,
    "ttft_p50": 0.2 / 3,
    "ttft_p95": 0.2 / 3,
    "ttft_p99": 0.2 / 3,
    "quality": 0.1,
    "rest": 0.2,
}
ALPHA = 0.01
_BLOCK = 500  # requests drawn at a time
_TTFT = {"ttft_p50": 1.0, "ttft_p95": math.exp(0.5 * 1.6449), "ttft_p99": math.exp(0.5 * 2.3263)}


class Traffic:
    """Requests with common causes: outages and slow hours hit both arms, a bad answer is also a poor score."""

    def __init__(self, draw: Draw, weight: float = 0.1, change: Mapping[str, float] | None = None) -> None:
        self.draw, self.weight, self.change = draw, weight, change or {}
        self.at = 0
        self.rhythm = self.change.get("rhythm", 0.0)

    def next(self, count: int) -> tuple[Arms, dict[str, Floats]]:
        arms = self.draw.random(count) < self.weight
        hour = self.rhythm * (1 + np.sin((self.at + np.arange(count)) / 500))
        self.at += count
        outage = self.rhythm > 0 and (self.at // 400) % 7 == 3
        base = np.full(count, 0.15 if outage else 0.01)
        errors = self.draw.random(count) < np.where(arms, np.maximum(base, self.change.get("errors", 0)), base)
        ttft = self.draw.lognormal(0, 0.5, count) * np.where(arms, self.change.get("ttft", 1.0), 1.0) * np.exp(hour)
        unsupported = self.draw.random(count) < np.where(arms, self.change.get("unsupported", 0.02), 0.02)
        mean = np.where(arms, 0.7 - self.change.get("score", 0), 0.7) - 0.1 * unsupported - 0.2 * hour
        size = np.clip(mean * (1 - mean) / 0.0625 - 1, 0.1, None)
        return arms, {
            "errors": errors.astype(float),
            "unsupported": unsupported.astype(float),
            **{name: (ttft > limit).astype(float) for name, limit in _TTFT.items()},
            "quality": self.draw.beta(mean * size, (1 - mean) * size),
        }


def guards() -> dict[str, BadEvents | Betting]:
    states: dict[str, BadEvents | Betting] = {name: BadEvents() for name in GUARDS if name not in ("quality", "rest")}
    return {**states, "quality": Betting("harm", 0.02)}


def observe(arms: Arms, values: Floats, weight: float) -> list[Seen]:
    return [Seen(arm, value, weight) for arm, value in zip(arms.tolist(), values.tolist(), strict=True)]


def rolled_back(traffic: Traffic, most: int, tick: int = 10) -> int | None:
    """The candidate's requests until the guardrails roll it back, looked at every `tick` requests; None: never within
    `most` requests."""
    states, served = guards(), 0
    for _ in range(0, most, _BLOCK):
        arms, values = traffic.next(_BLOCK)
        for at in range(0, _BLOCK, tick):
            now = slice(at, at + tick)
            served += int(arms[now].sum())
            for name, seen in values.items():
                told = slice(None) if name == "quality" else seen[now] > 0  # bad events alone tell anything
                if told_by := observe(arms[now][told], seen[now][told], traffic.weight):
                    states[name] = states[name].update(told_by)
            if crosses(weighted_log_e({name: s.log_e for name, s in states.items()}, GUARDS), ALPHA):
                return served
    return None


def false_rollbacks(runs: int, requests: int, weight: float = 0.1, seed: int = 6) -> int:
    draw = np.random.default_rng(seed)
    return sum(rolled_back(Traffic(draw, weight, {"rhythm": 0.15}), requests) is not None for _ in range(runs))


def detection(runs: int, change: Mapping[str, float], most: int = 60_000, seed: int = 7) -> tuple[float, int, int]:
    """The share caught, and the median and 90th percentile of candidate requests until then."""
    draw = np.random.default_rng(seed)
    found = [rolled_back(Traffic(draw, change=change), most) for _ in range(runs)]
    known = sorted(most if f is None else f for f in found)
    return sum(f is not None for f in found) / runs, known[runs // 2], known[runs * 9 // 10]


PROMOTION = {"errors": 0.02, "quality": 0.05, "ttft_p95": 0.05}


def promotion(
    runs: int, weight: float, change: Mapping[str, float], most: int = 40_000, seed: int = 8
) -> tuple[float, int]:
    """The share shown non-inferior on all three at 5 %, and the median of candidate requests until then."""
    draw = np.random.default_rng(seed)
    needed = []
    for _ in range(runs):
        traffic, served, found = Traffic(draw, weight, change), 0, most
        states = {name: Betting("no_harm", margin) for name, margin in PROMOTION.items()}
        for _ in range(0, most, _BLOCK // 5):
            arms, values = traffic.next(_BLOCK // 5)
            served += int(arms.sum())
            for name, state in states.items():
                good = values[name] if name == "quality" else 1 - values[name]
                states[name] = state.update(observe(arms, good, weight))
            if all(crosses(s.log_e, 0.05) for s in states.values()):
                found = served
                break
        needed.append(found)
    return sum(n < most for n in needed) / runs, sorted(needed)[runs // 2]


def frozen_splits(runs: int, users: int, weight: float, drawn: float, seed: int = 9) -> int:
    """How many splits set to `weight` and drawn with `drawn` are called broken, looked at after every user."""
    draw = np.random.default_rng(seed)
    frozen = 0
    for _ in range(runs):
        state = SampleRatio()
        for arm in (draw.random(users) < drawn).tolist():
            state = state.update([(arm, weight)])
            if crosses(state.log_e, 1e-4):
                frozen += 1
                break
    return frozen


# -- the page -------------------------------------------------------------------------------------


def coverage_table(runs: int) -> str:
    lines = ["| interval | n | " + " | ".join(f"{p:.1f}" for p in np.arange(1, 10) / 10) + " |", "|---" * 11 + "|"]
    for kind in INTERVALS:
        for n in (50, 200):
            shares = [coverage(kind, float(p), n, runs) for p in np.arange(1, 10) / 10]
            lines.append(f"| {kind} | {n} | " + " | ".join(f"{100 * s:.1f}" for s in shares) + " |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


def comparison_table(runs: int) -> str:
    lines = ["| what | result |", "|---|---|"]
    for cases, repeats in ((120, 1), (120, 5), (500, 1)):
        verdicts = false_alarms(runs, cases, repeats)
        told = ", ".join(f"{n} {v}" for v, n in verdicts.items())
        lines.append(f"| a release against itself, {cases} cases × {repeats} | {told} |")
        print(lines[-1], flush=True)
    for effect, cases in ((0.1, 120), (0.05, 500)):
        for where in ("everywhere", "hr"):
            share, named, repeats = caught(effect, cases, where, runs)
            told = f"{100 * share:.1f} % fail" + (f", slice named in {100 * named:.1f} %" if where == "hr" else "")
            how = "in every case" if where == "everywhere" else "in whole cases of one tag first"
            lines.append(f"| −{100 * effect:.0f} points of correctness {how}, {cases} cases × {repeats} | {told} |")
            print(lines[-1], flush=True)
    lines.append(f"| a toxic reply 1 in 100, 500 answers | {100 * toxic_caught(0.01, 500, runs):.1f} % fail |")
    for gap in (0.0, 0.1):
        alarms, sized = bias_alarms(gap, runs)
        told = f"{alarms} of {runs} alarms, gap within its interval in {100 * sized:.1f} %"
        lines.append(f"| bias gap of {100 * gap:.0f} points, 200 questions × 3 | {told} |")
    return "\n".join(lines)


def rollout_table(runs: int) -> str:
    lines = ["| what | result |", "|---|---|"]

    def add(what: str, result: str) -> None:
        lines.append(f"| {what} | {result} |")
        print(lines[-1], flush=True)

    for weight in (0.1, 0.5):
        alarms = false_rollbacks(5 * runs, 4_000, weight)
        add(
            f"no difference, weight {weight:.0%}, 4,000 requests with outages and rhythm",
            f"{alarms} of {5 * runs} rolled back",
        )
    changes = ({"errors": 0.5}, {"errors": 0.1}, {"errors": 0.03}, {"ttft": 1.5}, {"score": 0.1}, {"unsupported": 0.3})
    for change in changes:
        share, median, most = detection(runs, change)
        what = ", ".join(f"{k} {v:g}" for k, v in change.items())
        add(f"{what}, weight 10 %", f"{100 * share:.1f} % caught, median {median}, p90 {most} candidate requests")
    for weight in (0.1, 0.5):
        share, median = promotion(max(20, runs // 5), weight, {})
        add(
            f"a good release, weight {weight:.0%}: shown non-inferior at 5 %",
            f"{100 * share:.0f} %, median {median} candidate requests",
        )
    for bad in ({"errors": 0.03}, {"score": 0.05}):
        share, _ = promotion(max(20, runs // 5), 0.5, bad, 10_000)
        add(f"at the margin ({bad}): promoted", f"{100 * share:.1f} %")
    for drawn in (0.1, 0.13, 0.2):
        frozen = frozen_splits(runs, 5_000, 0.1, drawn)
        add(f"split set to 10 %, drawn {drawn:.0%}, 5,000 users", f"{frozen} of {runs} frozen")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="a Markdown page")
    parser.add_argument(
        "--runs", type=int, default=200, help="of comparisons and rollouts; ten times as many intervals"
    )
    options = parser.parse_args()
    began = time.monotonic()
    page = f"""# Whether the statistics hold

Written by `python -m bench.statistics`. {(__doc__ or "").split(maxsplit=0)[0]}
## Coverage of 95 % intervals, in per cent of {10 * options.runs} runs

Columns are p: the true rate, mean score or quantile level; for amounts the spread σ of their logarithms.

{coverage_table(10 * options.runs)}

## Comparisons, {options.runs} runs each, seven metrics and five slices

{comparison_table(options.runs)}

## Rollouts at α = 1 %, looked at every 10 requests

{rollout_table(options.runs)}
"""
    print(page, f"{time.monotonic() - began:.0f} s")
    if options.output:
        options.output.write_text(page)


if __name__ == "__main__":
    main()
