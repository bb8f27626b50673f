"""The job that evaluates a release: asks, scores, compares, judges by the app's targets, and records the evidence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from proveout.access.keys import principal_of, system
from proveout.domain import Outcome, Principal, Release
from proveout.errors import InvalidInput, NotFound, Unavailable
from proveout.evals.bias import gaps, variants
from proveout.evals.cases import Case, copies, digest, read_cases
from proveout.evals.compare import Comparison, Metric, compare
from proveout.evals.judge import JUDGE, Judge
from proveout.evals.runner import RANDOM_REPEATS, Answers, Asking, Runner, Tell, is_random
from proveout.evals.scorers import Scorer, scorers
from proveout.evals.scorers.confined import Confined
from proveout.evals.scorers.delivered import Delivered, Measure
from proveout.evals.scorers.meaning import AGREEING, agreeing
from proveout.evals.targets import Judged, Target, judge_target, parse_target, unmeasured
from proveout.guard.support import SupportCheck
from proveout.jobs.runtime import Result, Steps
from proveout.ledger.integrate import LogKeys
from proveout.releases import evidence
from proveout.releases.findings import Biased, Findings, Side, result_of, summarise, told_of_bias
from proveout.releases.judging import JudgedSides, Judging
from proveout.releases.own_tests import own_tests
from proveout.releases.policy import MARGIN, Policy
from proveout.serving.call import Rooms
from proveout.store.events import Kind, note
from proveout.store.pool import Row, Store, as_json
from proveout.store.sealing import Keyring, seal, unseal

T = TypeVar("T")
Draw = Callable[[Sequence[Case]], Sequence[Case]]

UNCOMPARED = {"ttft_ms", "per_token_ms", "total_ms"}  # taken at other times, under another load
_MARGIN_OF_AMOUNTS = 0.2  # parts of the baseline's mean
_SCORED = 16  # answers at a time
MAIN_WEIGHT = 5.0
_OF_FAILURES = ("correct", "answering")
_NEVER = {"personal_data", "toxicity"}
_TOLERATED = 1e-4  # of answers
_EVERY = 0.3  # seconds between two reports of progress


@dataclass(frozen=True, slots=True)
class Compared:
    """Two releases that were asked the same questions, and the digest of these."""

    data_set: str
    cases: int
    comparison: Comparison


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
            release = self._rooms.directory().releases[steps.scope.workspace, row["app"], row["release"]]
            own = await own_tests(session, self._keyring, release)
        given = read_cases(unseal(key, row["dataset"], "dataset").decode(), "dataset")
        cases = [case for case in given if case.counts]
        if not cases:
            raise InvalidInput("No case of the data set counts yet: cases that nobody wrote by hand need a review.")
        if own.judge:
            self._rooms.catalogue.resolve(own.judge.model)  # one that is not there is said before the long work
        async with AsyncExitStack() as stack:
            measures = await self._scorers(stack, own.scorers, release)
            candidate = await self._side(steps, row, release.label, cases, measures, row["budget_usd"])
            left = _left(row["budget_usd"], candidate.answers)
            biased = await self._biased(steps, row, release.label, cases, left) if row["bias"] else None
            left = _left(left, biased.answers) if biased else left
            baseline = await self._side(steps, row, row["baseline"], cases, measures, left) if row["baseline"] else None
        known: Mapping[str, Measure] = {**measures, **AGREEING}
        judged = None
        if own.judge:
            left = _left(left, baseline.answers) if baseline else left
            judged = await self._judged(steps, row, own.judge, cases, (candidate, baseline), left)
            candidate = candidate.scored(judged, 0)
            baseline = baseline.scored(judged, 1) if baseline else None
            known = {**known, JUDGE.name: JUDGE}
        targets = self._targets(release, candidate, known, judged)
        compared = _compare(cases, candidate, baseline, known, targets, judged) if baseline else None
        summary = summarise(cases, row, candidate, baseline, known, Findings(targets, compared, biased, judged))
        by = evidence.measured_by(cases, own.scorers)
        asked = {name: digest for name, digest in by.items() if name in release.facts}  # not in those of old
        if copied := copies(cases):
            summary["notes"].append(f"{copied} cases ask what another one asks: they show less than their number says.")
        summary["standard"] = evidence.standard({**release.facts, **asked})
        await self._finish(steps, row, release, cases, (candidate, baseline), summary)
        return {"evaluation": evaluation, "verdict": summary["verdict"]}

    async def against(self, steps: Steps, run: str, release: Release, baseline: Release, draw: Draw) -> Compared:
        """Asks both releases a sample (`draw`) of the baseline's golden questions and compares the scores.

        The system asks, in the name of `run`, and keeps no answer where people read them. Raises Unavailable where a
        question found no answer.
        """
        async with self._store.within(steps.scope) as session:
            own = await own_tests(session, self._keyring, baseline)
        cases = draw(own.cases)
        repeats = RANDOM_REPEATS if is_random(baseline) else 1
        row = {"id": run, "principal": system(steps.scope.workspace), "repeats": repeats}
        async with AsyncExitStack() as stack:
            measures = await self._scorers(stack, own.scorers, baseline)
            sides = [await self._side(steps, row, r.label, cases, measures, None) for r in (release, baseline)]
        failed = [d for side in sides for d in side.answers.delivered.values() if d.outcome is Outcome.FAILED]
        if failed:
            raise Unavailable(f"{len(failed)} questions found no answer: {failed[0].text}")
        known: Mapping[str, Measure] = {**measures, **AGREEING}
        targets = self._targets(baseline, sides[1], known, None)
        margin = self._policy.refresh.margin
        found = _compare(cases, sides[0], sides[1], known, targets, None, margin)
        return Compared(digest(cases), len(cases), found)

    async def _scorers(self, stack: AsyncExitStack, code: str, release: Release) -> dict[str, Scorer]:
        file = str(release.facts.get("scorers_file") or "scorers")  # facts of old have no name
        child = await stack.enter_async_context(Confined(code, file)) if code else None
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
        given = {turn: d for turn, d in answers.delivered.items() if d.outcome is not Outcome.FAILED}
        scores |= await agreeing(cases, given, row["repeats"], self._rooms.embed)
        return Side(model, answers, {name: by_case for name, by_case in scores.items() if by_case})

    async def _asked(self, steps: Steps, row: Row, model: str, cases: Sequence[Case], budget: float | None) -> Answers:
        principal = self._principal(row)
        asking = Asking(row["id"], model, principal, cases, row["repeats"], budget_usd=budget)
        return await self._runner.ask(steps.scope, asking, _told(steps, f"asking {model}"))

    async def _biased(self, steps: Steps, row: Row, model: str, cases: Sequence[Case], budget: float | None) -> Biased:
        made, correct = variants(cases), scorers()["correct"]
        answers = await self._asked(steps, row, model, [variant.case for variant in made], budget)
        of_case = {variant.case.id: variant.case for variant in made}
        outcomes: dict[str, list[float]] = {}
        for (case, _), delivered in answers.delivered.items():
            score = None if delivered.outcome is Outcome.FAILED else await correct.score(of_case[case], delivered)
            if score is not None:
                outcomes.setdefault(case, []).append(score)
        return Biased(made, answers, gaps(made, outcomes))

    async def _judged(
        self,
        steps: Steps,
        row: Row,
        judge: Judge,
        cases: Sequence[Case],
        sides: tuple[Side, Side | None],
        budget: float | None,
    ) -> JudgedSides:
        asking = Asking(row["id"], judge.model, self._principal(row), (), budget_usd=budget)
        judging = Judging(judge, self._runner, steps.scope, asking, _told(steps, f"asking the judge {judge.model}"))
        weights = self._rooms.catalogue.digest(judge.model)
        return await judging.judge(weights, cases, [side.answers.delivered for side in sides if side])

    def _principal(self, row: Row) -> Principal:
        principal = row["principal"] if "principal" in row else principal_of(self._rooms.directory(), row["key"])
        if principal is None:
            raise InvalidInput("The key that asked for this evaluation was revoked: start it again with another one.")
        return principal

    def _targets(
        self, release: Release, side: Side, measures: Mapping[str, Measure], judged: JudgedSides | None
    ) -> list[Judged]:
        """The app's measurable targets, and the policy's for what it sets none for, judged.

        The policy's are only of what its questions can show, unless the app sets no target at all.
        """
        declared = release.facts.get("targets")
        told = targets_of(declared if isinstance(declared, Mapping) else {})
        own = [target for target in told if target.metric in measures]
        known = measures.keys() - {target.metric for target in own}
        floor = [target for target in targets_of(self._policy.targets) if target.metric in known]
        found = [unmeasured(target) for target in told if target.metric not in measures]
        for target in [*own, *(t for t in floor if not own or side.scores.get(t.metric))]:
            values, kind = list(side.scores.get(target.metric, {}).values()), measures[target.metric].kind
            of_judge = judged is not None and target.metric == JUDGE.name
            word = judge_target(target, values, kind, judged.mean if judged and of_judge and values else None)
            if judged and of_judge and not judged.judgement.decides:
                reason = f"{judged.judgement.standing}; {word.reason}"
                word = msgspec.structs.replace(word, verdict="inconclusive", reason=reason, advises=True)
            found.append(word)
        return found

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
            results = [(case.id, result_of(case, candidate, baseline, row["repeats"])) for case in cases]
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
                "evidence": summary["evidence"],
                "data_set": summary["data_set"],
                "cases": summary["cases"],
                "targets": [
                    {"target": f"{t['name']} {t['text']}", "verdict": t["verdict"]} for t in summary["targets"]
                ],
                "standard": summary["standard"],
                "bias": told_of_bias(summary["bias"]),
                "judge": summary["judge"] and {name: summary["judge"][name] for name in ("digest", "standing")},
            }
            await note(session, workspace, Kind.EVALUATION_ENDED, row["key"], told)
            if row["golden"] and candidate.answers.whole and not summary["failing"]:
                found: evidence.Found = ("measured", summary["evidence"])
                await evidence.record(session, self._keys, release, evidence.EVALUATION, found, row["key"], told)


async def _scored(case: Case, delivered: Delivered, measures: Mapping[str, Scorer]) -> dict[str, float]:
    """What each scorer says; of a call that failed, which has no words, times or cost, only that it was no answer."""
    asked = _OF_FAILURES if delivered.outcome is Outcome.FAILED else measures
    scored = {name: await measures[name].score(case, delivered) for name in asked}
    return {name: score for name, score in scored.items() if score is not None}


def _batched(turns: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The turns in their order, so many at a time."""
    return (turns[start : start + size] for start in range(0, len(turns), size))


def targets_of(declared: Mapping[str, object]) -> list[Target]:
    """The targets that can be measured; what else is declared is prose, for people."""
    return [target for name, text in declared.items() if (target := parse_target(name, text))]


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


def metrics_of(
    names: Iterable[str], measures: Mapping[str, Measure], aimed: Set[str], margin: float = MARGIN
) -> dict[str, Metric]:
    """How each measure is compared. What a target is about, and whether answers are right, weighs most;
    what must never happen has a limit on the rate of its happening."""
    metrics = {}
    for name in names:
        kind, better = measures[name].kind, measures[name].better
        metrics[name] = Metric(
            name,
            kind,
            better,
            _MARGIN_OF_AMOUNTS if kind == "positive" else margin,
            limit=_TOLERATED if name in _NEVER else None,
            weight=MAIN_WEIGHT if name == "correct" or name in aimed else 1.0,
        )
    return metrics


def _compare(
    cases: Sequence[Case],
    candidate: Side,
    baseline: Side,
    measures: Mapping[str, Measure],
    targets: Sequence[Judged],
    judged: JudgedSides | None,
    margin: float = MARGIN,
) -> Comparison:
    advises = {JUDGE.name} if judged and not judged.judgement.decides else set[str]()
    left_out = UNCOMPARED | advises
    both = [n for n in measures if n in candidate.scores and n in baseline.scores and n not in left_out]
    tags = {case.id: frozenset(case.tags) for case in cases}
    aimed = {judged.target.metric for judged in targets}
    return compare(candidate.scores, baseline.scores, tags, metrics_of(both, measures, aimed, margin))
