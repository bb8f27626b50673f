"""The job that evaluates a release: asks, scores, compares, judges by the app's targets, and records the evidence."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from proveout.access.keys import principal_of
from proveout.domain import Principal, Release
from proveout.errors import InvalidInput, NotFound
from proveout.evals.bias import Gap, Variant, gaps, variants
from proveout.evals.cases import Case, digest, read_cases
from proveout.evals.compare import Change, Comparison, Metric, changed_most, compare
from proveout.evals.report import Missed, Report, Score
from proveout.evals.runner import Answers, Asking, Runner, Tell
from proveout.evals.scorers import Scorer, scorers
from proveout.evals.scorers.confined import Confined
from proveout.evals.scorers.delivered import Delivered, Measure
from proveout.evals.scorers.meaning import AGREEING, agreeing
from proveout.evals.statistics import Interval, amounts_interval, scores_interval
from proveout.evals.targets import Judged, Target, judge_target, parse_target
from proveout.guard.support import SupportCheck
from proveout.jobs.runtime import Result, Steps
from proveout.ledger.integrate import LogKeys
from proveout.releases import evidence
from proveout.releases.policy import Policy
from proveout.serving.call import Rooms
from proveout.store.events import Kind, note
from proveout.store.pool import Row, Session, Store, as_json
from proveout.store.sealing import Keyring, seal, unseal

T = TypeVar("T")
Scores = Mapping[str, Mapping[str, Sequence[float]]]
"""scorer → case → one score a repeat, as `evals.compare` takes them."""

_UNCOMPARED = {"ttft_ms", "per_token_ms", "total_ms"}  # taken at other times, under another load
_MARGIN = 0.05  # points of a score
_MARGIN_OF_AMOUNTS = 0.2  # parts of the baseline's mean
_SCORED = 16  # answers at a time
MAIN_WEIGHT = 5.0
_NEVER = {"personal_data", "toxicity"}
_TOLERATED = 1e-4  # of answers
_CHANGES = 20
_MISSED = ("correct", "facts", "refusal", "restricted", "exact", "numeric", "regex", "json_schema")
_NOBODY = "Bias was not measured: no question names a person whom another could stand in for."
_CUT_SHORT = "The budget ended it before every question was asked: it cannot pass."
_EVERY = 0.3  # seconds between two reports of progress


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that are asked: its answers and their scores."""

    model: str
    answers: Answers
    scores: Scores


@dataclass(frozen=True, slots=True)
class Biased:
    """The questions about somebody else: what was answered, and the gaps between groups, surest first."""

    made: Sequence[Variant]
    answers: Answers
    gaps: Sequence[Gap]


class Evaluate:
    """The job `evaluate`: its argument is an evaluation's id, its result the id and the verdict."""

    def __init__(self, store: Store, keyring: Keyring, keys: LogKeys, rooms: Rooms, policy: Policy) -> None:
        self._store = store
        self._keyring = keyring
        self._keys = keys
        self._rooms = rooms
        self._policy = policy
        self._runner = Runner(store, keyring, rooms)

    async def __call__(self, steps: Steps, evaluation: str) -> Result:
        return await steps.run("evaluate", self._evaluate, steps, evaluation)

    async def _evaluate(self, steps: Steps, evaluation: str) -> dict[str, Any]:
        async with self._store.within(steps.scope) as session:
            row = await session.row("evaluations.get", evaluation=evaluation)
            if row is None:
                raise NotFound(f"There is no evaluation {evaluation}.")
            key = await self._keyring.workspace(session, steps.scope.workspace)
            about = {"workspace": steps.scope.workspace, "app": row["app"], "number": row["release"]}
            brought = await session.row("releases.golden", **about)
        cases = [case for case in read_cases(unseal(key, row["dataset"], "dataset").decode(), "dataset") if case.counts]
        if not cases:
            raise InvalidInput("No case of the data set counts yet: cases that nobody wrote by hand need a review.")
        release = self._rooms.directory().releases[steps.scope.workspace, row["app"], row["release"]]
        code = unseal(key, brought["scorers"], "scorers").decode() if brought and brought["scorers"] else ""
        async with AsyncExitStack() as stack:
            measures = await self._scorers(stack, code)
            candidate = await self._side(steps, row, release.label, cases, measures, row["budget_usd"])
            left = _left(row["budget_usd"], candidate.answers)
            biased = await self._biased(steps, row, release.label, cases, left) if row["bias"] else None
            left = _left(left, biased.answers) if biased else left
            baseline = await self._side(steps, row, row["baseline"], cases, measures, left) if row["baseline"] else None
        known: Mapping[str, Measure] = {**measures, **AGREEING}
        judged = self._targets(release, candidate, known)
        aimed = {j.target.metric for j in judged}
        compared = _compare(cases, candidate, baseline, known, aimed) if baseline else None
        summary = _summary(cases, row, candidate, baseline, known, judged, compared, biased)
        await self._finish(steps, row, release, cases, (candidate, baseline), summary)
        return {"evaluation": evaluation, "verdict": summary["verdict"]}

    async def _scorers(self, stack: AsyncExitStack, code: str) -> dict[str, Scorer]:
        child = await stack.enter_async_context(Confined(code, "evals.scorers")) if code else None
        return scorers(self._rooms.embed, SupportCheck(self._rooms.embed).weigh, child)

    async def _side(
        self,
        steps: Steps,
        row: Row,
        model: str,
        cases: Sequence[Case],
        measures: Mapping[str, Scorer],
        budget: float | None,
    ) -> Side:
        answers = await self._asked(steps, row, model, cases, budget)
        turns = [(c, d) for c in cases for seed in range(row["repeats"]) if (d := answers.delivered.get((c.id, seed)))]
        scores: dict[str, dict[str, list[float]]] = {name: {} for name in measures}
        for batch in _batched(turns, _SCORED):  # side by side, for what is embedded is embedded in batches
            found = await asyncio.gather(*(_scored(case, delivered, measures) for case, delivered in batch))
            for (case, _), by_name in zip(batch, found, strict=True):
                for name, score in by_name.items():
                    scores[name].setdefault(case.id, []).append(score)
        scores |= await agreeing(cases, answers.delivered, row["repeats"], self._rooms.embed)
        return Side(model, answers, {name: by_case for name, by_case in scores.items() if by_case})

    async def _asked(self, steps: Steps, row: Row, model: str, cases: Sequence[Case], budget: float | None) -> Answers:
        principal = self._principal(row["key"])
        asking = Asking(row["id"], model, principal, cases, row["repeats"], budget_usd=budget)
        return await self._runner.ask(steps.scope, asking, _told(steps, f"asking {model}"))

    async def _biased(self, steps: Steps, row: Row, model: str, cases: Sequence[Case], budget: float | None) -> Biased:
        made, correct = variants(cases), scorers()["correct"]
        answers = await self._asked(steps, row, model, [variant.case for variant in made], budget)
        of_case = {variant.case.id: variant.case for variant in made}
        outcomes: dict[str, list[float]] = {}
        for (case, _), delivered in answers.delivered.items():
            score = await correct.score(of_case[case], delivered)
            if score is not None:
                outcomes.setdefault(case, []).append(score)
        return Biased(made, answers, gaps(made, outcomes))

    def _principal(self, key: str) -> Principal:
        principal = principal_of(self._rooms.directory(), key)
        if principal is None:
            raise InvalidInput("The key that asked for this evaluation was revoked: start it again with another one.")
        return principal

    def _targets(self, release: Release, side: Side, measures: Mapping[str, Measure]) -> list[Judged]:
        """The app's measurable targets, or the policy's where it sets none, judged."""
        declared = release.facts.get("targets")
        own = targets_of(declared if isinstance(declared, Mapping) else {}, measures)
        found = own or targets_of(self._policy.targets, measures)
        return [judge_target(t, list(side.scores.get(t.metric, {}).values()), measures[t.metric].kind) for t in found]

    async def _finish(
        self,
        steps: Steps,
        row: Row,
        release: Release,
        cases: Sequence[Case],
        sides: tuple[Side, Side | None],
        summary: Mapping[str, Any],
    ) -> None:
        """Keeps the result, and the evidence where the questions were the release's own, once."""
        candidate, baseline = sides
        workspace = steps.scope.workspace
        async with self._store.within(steps.scope) as session:
            key = await self._keyring.workspace(session, workspace)
            if await session.row("evaluations.finish", evaluation=row["id"], summary=as_json(summary)) is None:
                return
            where = {"workspace": workspace, "evaluation": row["id"]}
            results = [(case.id, _result(case, candidate, baseline, row["repeats"])) for case in cases]
            rows = [
                {**where, "case": case, "result": seal(key, msgspec.json.encode(result), "case")}
                for case, result in results
            ]
            await session.run_many("evaluations.put_case", rows)
            told = {
                "evaluation": row["id"],
                "app": release.app,
                "release": release.number,
                "digest": release.digest,
                "verdict": summary["verdict"],
                "data_set": summary["data_set"],
                "cases": summary["cases"],
                "targets": [
                    {"target": f"{t['name']} {t['text']}", "verdict": t["verdict"]} for t in summary["targets"]
                ],
            }
            await note(session, workspace, Kind.EVALUATION_ENDED, row["key"], told)
            if row["golden"] and candidate.answers.whole:
                found: evidence.Found = ("measured", summary["verdict"])
                await evidence.record(session, self._keys, release, evidence.EVALUATION, found, row["key"], told)


async def _scored(case: Case, delivered: Delivered, measures: Mapping[str, Scorer]) -> dict[str, float]:
    scored = {name: await scorer.score(case, delivered) for name, scorer in measures.items()}
    return {name: score for name, score in scored.items() if score is not None}


def _batched(turns: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The turns in their order, so many at a time."""
    return (turns[start : start + size] for start in range(0, len(turns), size))


def targets_of(declared: Mapping[str, object], measures: Mapping[str, Measure]) -> list[Target]:
    """The targets that a scorer measures; what else is declared is prose, for people."""
    found = [target for name, text in declared.items() if (target := parse_target(name, text))]
    return [target for target in found if target.metric in measures]


async def scored_cases(session: Session, keyring: Keyring, workspace: str, evaluation: str) -> list[dict[str, Any]]:
    """What was asked, answered and scored in an evaluation."""
    key = await keyring.workspace(session, workspace)
    rows = await session.fetch("evaluations.cases", evaluation=evaluation)
    return [msgspec.json.decode(unseal(key, row["result"], "case")) for row in rows]


def _left(budget: float | None, answers: Answers) -> float | None:
    return None if budget is None else max(0.0, budget - answers.spent)


def _told(steps: Steps, what: str) -> Tell:
    last = 0.0

    async def report(done: int, total: int, spent: float) -> None:
        nonlocal last
        if done == total or time.monotonic() - last > _EVERY:
            last = time.monotonic()
            await steps.progress(done, total, f"{what}, {spent:.4f} USD" if spent else what)

    return report


def metrics_of(names: Iterable[str], measures: Mapping[str, Measure], aimed: Set[str]) -> dict[str, Metric]:
    """How each measure is compared. What a target is about, and whether answers are right, weighs most;
    what must never happen has a limit on the rate of its happening."""
    metrics = {}
    for name in names:
        kind, better = measures[name].kind, measures[name].better
        metrics[name] = Metric(
            name,
            kind,
            better,
            _MARGIN_OF_AMOUNTS if kind == "positive" else _MARGIN,
            limit=_TOLERATED if name in _NEVER else None,
            weight=MAIN_WEIGHT if name == "correct" or name in aimed else 1.0,
        )
    return metrics


def _compare(
    cases: Sequence[Case], candidate: Side, baseline: Side, measures: Mapping[str, Measure], aimed: Set[str]
) -> Comparison:
    both = [n for n in measures if n in candidate.scores and n in baseline.scores and n not in _UNCOMPARED]
    tags = {case.id: frozenset(case.tags) for case in cases}
    return compare(candidate.scores, baseline.scores, tags, metrics_of(both, measures, aimed))


def _summary(
    cases: Sequence[Case],
    row: Row,
    candidate: Side,
    baseline: Side | None,
    measures: Mapping[str, Measure],
    judged: Sequence[Judged],
    compared: Comparison | None,
    biased: Biased | None,
) -> dict[str, Any]:
    delivered = list(candidate.answers.delivered.values())
    alarm = biased is not None and any(gap.alarm for gap in biased.gaps)
    verdicts = [*(j.verdict for j in judged), *([compared.verdict] if compared else []), *(["fail"] if alarm else [])]
    verdict = "fail" if "fail" in verdicts else "pass" if verdicts and set(verdicts) == {"pass"} else "inconclusive"
    asked = [candidate.answers, *(side.answers for side in (biased, baseline) if side)]
    whole = all(answers.whole for answers in asked)
    first = {c: d for (c, seed), d in candidate.answers.delivered.items() if seed == 0}
    before = {c: d.text for (c, seed), d in baseline.answers.delivered.items() if seed == 0} if baseline else {}
    return {
        "verdict": verdict if whole or verdict == "fail" else "inconclusive",
        "data_set": digest(cases),
        "cases": len(cases),
        "answers": len(delivered),
        "asked": sum(answers.asked for answers in asked),
        "repeats": row["repeats"],
        "spent_usd": sum(answers.spent for answers in asked),
        "whole": whole,
        "effort": _effort(delivered),
        "quoted": sum(d.quoted for d in delivered) / max(len(delivered), 1),
        "scores": {name: _score(by_case, measures[name]) for name, by_case in candidate.scores.items()},
        "targets": [{"name": j.target.name, "text": j.target.text, **_plain(j, without="target")} for j in judged],
        "bias": [{**msgspec.to_builtins(gap), "alarm": gap.alarm} for gap in biased.gaps] if biased else [],
        "notes": [_NOBODY] if biased and not biased.made else [],
        "baseline": None if baseline is None else baseline.model,
        "comparison": msgspec.to_builtins(compared) if compared else None,
        "changed": msgspec.to_builtins(
            changed_most(before, {c: d.text for c, d in first.items()}, _CHANGES) if baseline else []
        ),
    }


def report_of(release: Release, row: Row, cases: Sequence[Mapping[str, Any]]) -> Report:
    """The report of an evaluation that is done, from what is kept of it."""
    summary: Any = _bounded(row["summary"])
    scores = [
        Score(name, s["kind"], s["better"], Interval(s["mean"], s["low"], s["high"], s["cases"]))
        for name, s in sorted(summary["scores"].items())
    ]
    missed = [
        Missed(case["case"], case["question"], case["answer"] or "", names)
        for case in cases
        if (names := [name for name in _MISSED if case["scores"].get(name, 1) < 1])
    ]
    targets = [{**t, "target": parse_target(t["name"], t["text"])} for t in summary["targets"]]
    return Report(
        release=release.label,
        digest=release.digest,
        dataset=summary["data_set"],
        made=row["created"].isoformat(timespec="seconds"),
        cases=summary["cases"],
        repeats=summary["repeats"],
        scores=scores,
        targets=[msgspec.convert(t, Judged) for t in targets],
        baseline=summary["baseline"] or "",
        comparison=msgspec.convert(summary["comparison"], Comparison) if summary["comparison"] else None,
        missed=missed,
        changes=[msgspec.convert(change, Change) for change in summary["changed"]],
        usd=summary["spent_usd"],
        bias=msgspec.convert(summary.get("bias", []), list[Gap]),
        notes=summary.get("notes", []) + ([] if summary["whole"] else [_CUT_SHORT]),
        whole=summary["whole"],
    )


def _bounded(value: object) -> object:
    """JSON as it was kept, its bounds that are null infinite again."""
    if isinstance(value, list):
        return [_bounded(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _bounded(item) for key, item in value.items()}
    without_end = {"low": -math.inf, "high": math.inf}
    return {key: without_end[key] if item is None and key in without_end else item for key, item in found.items()}


def _effort(delivered: Sequence[Delivered]) -> dict[str, float]:
    """What an answer took on average, as `evals.plan` reckons with it."""
    n = max(len(delivered), 1)
    return {
        "seconds": sum(d.total_ms for d in delivered) / n / 1000,
        "prompt_tokens": sum(d.usage.prompt_tokens for d in delivered) / n,
        "completion_tokens": sum(d.usage.completion_tokens for d in delivered) / n,
        "usd": sum(d.cost or 0.0 for d in delivered) / n,
    }


def _plain(value: msgspec.Struct, without: str) -> dict[str, Any]:
    return {key: v for key, v in msgspec.to_builtins(value).items() if key != without}


def _score(by_case: Mapping[str, Sequence[float]], scorer: Measure) -> dict[str, Any]:
    values = list(by_case.values())
    interval = (amounts_interval if scorer.kind == "positive" else scores_interval)(values)
    bounds = {"low": interval.low, "high": interval.high} if interval.n > 1 else {"low": None, "high": None}
    return {"mean": interval.estimate, **bounds, "cases": interval.n, "better": scorer.better, "kind": scorer.kind}


def _result(case: Case, candidate: Side, baseline: Side | None, repeats: int) -> dict[str, Any]:
    answers = [d for seed in range(repeats) if (d := candidate.answers.delivered.get((case.id, seed)))]
    first = answers[0] if answers else None
    before = baseline.answers.delivered.get((case.id, 0)) if baseline else None
    scores = {name: by_case[case.id] for name, by_case in candidate.scores.items() if case.id in by_case}
    return {
        "case": case.id,
        "question": case.asked,
        "tags": case.tags,
        "answer": first.text if first else None,
        "outcome": first.outcome if first else None,
        "documents": first.documents if first else [],
        "quoted": first.quoted if first else False,
        "total_ms": round(first.total_ms, 1) if first else None,
        "scores": {name: sum(values) / len(values) for name, values in scores.items()},
        "repeats": [{"answer": a.text, "outcome": a.outcome} for a in answers[1:]],
        "every_score": scores if len(answers) > 1 else {},
        "baseline": {"answer": before.text, "outcome": before.outcome} if before else None,
    }
