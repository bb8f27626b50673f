"""What an evaluation found: the figures and answers that are kept of it, and the report that is made of these."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from proveout.domain import Outcome, Release
from proveout.evals.bias import Gap, Variant
from proveout.evals.cases import Case, digest
from proveout.evals.compare import Change, Comparison, changed_most
from proveout.evals.judge import JUDGE, Judgement
from proveout.evals.report import Missed, Report, Score, expectation, judge_lines, verdict_of
from proveout.evals.runner import Answers
from proveout.evals.scorers.delivered import Delivered, Measure
from proveout.evals.statistics import Interval, amounts_interval, scores_interval
from proveout.evals.targets import Judged, parse_target
from proveout.releases.judging import JudgedSides
from proveout.store.pool import Row, Session
from proveout.store.sealing import Keyring, unseal

Scores = Mapping[str, Mapping[str, Sequence[float]]]
"""scorer → case → one score a repeat, as `evals.compare` takes them."""

_CHANGES = 20
_FAILED = 0.05  # of the calls may fail: they count as wrong answers; with more nothing is decided
_RIGHT = ("correct", "facts", "refusal", "restricted", "exact", "numeric", "regex", "json_schema")
_NOBODY = "Bias was not measured: no question names a person whom another could stand in for."
_CUT_SHORT = "The budget ended it before every question was asked: it cannot pass."


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that are asked: its answers and their scores."""

    model: str
    answers: Answers
    scores: Scores

    def scored(self, judged: JudgedSides, at: int) -> Side:
        """The side with the judge's scores beside the others."""
        scores = judged.scores[at]
        return replace(self, scores={**self.scores, JUDGE.name: scores}) if scores else self


@dataclass(frozen=True, slots=True)
class Biased:
    """The bias questions (`evals.bias`), their answers, and the gaps between groups, surest first."""

    made: Sequence[Variant]
    answers: Answers
    gaps: Sequence[Gap]


@dataclass(frozen=True, slots=True)
class Findings:
    """What was made of the answers and their scores."""

    targets: Sequence[Judged]
    compared: Comparison | None
    biased: Biased | None
    judged: JudgedSides | None


def summarise(
    cases: Sequence[Case],
    row: Row,
    candidate: Side,
    baseline: Side | None,
    measures: Mapping[str, Measure],
    found: Findings,
) -> dict[str, Any]:
    """The figures of an evaluation, to be kept as they are: no word of a question or an answer is in them."""
    delivered = list(candidate.answers.delivered.values())
    biased, judged = found.biased, found.judged
    asked = [candidate.answers, *(side.answers for side in (biased, baseline) if side)]
    whole = all(answers.whole for answers in asked) and (judged is None or judged.whole)
    failed = [side.answers for side in (candidate, biased, baseline) if side and _failing(side.answers)]
    targets, bias = found.targets, biased.gaps if biased else ()
    shown = found.compared if found.compared and found.compared.verdict != "inconclusive" else None
    scores = {name: _score(by_case, measures[name]) for name, by_case in candidate.scores.items()}
    if judged and JUDGE.name in scores:
        scores[JUDGE.name] |= _bounds(judged.mean())
    return {
        "verdict": "inconclusive" if failed else verdict_of(targets, found.compared, bias, whole),
        "evidence": verdict_of(targets, shown, bias, whole),  # what a comparison leaves open holds no target against it
        "failing": bool(failed),
        "data_set": digest(cases),
        "cases": len(cases),
        "answers": len(delivered),
        "asked": sum(answers.asked for answers in asked),
        "repeats": row["repeats"],
        "spent_usd": sum(answers.spent for answers in asked) + (judged.judgement.usd if judged else 0.0),
        "whole": whole,
        "effort": _effort(delivered),
        "quoted": sum(d.quoted for d in delivered) / max(len(delivered), 1),
        "scores": scores,
        "targets": [{"name": j.target.name, "text": j.target.text, **_plain(j, "target")} for j in found.targets],
        "judge": _told_of_judge(judged.judgement) if judged else None,
        "bias": [{**msgspec.to_builtins(gap), "alarm": gap.alarm} for gap in biased.gaps] if biased else [],
        "notes": [*([_NOBODY] if biased and not biased.made else []), *_failures(candidate, baseline)],
        "baseline": None if baseline is None else baseline.model,
        "comparison": msgspec.to_builtins(found.compared) if found.compared else None,
    }


def _failing(answers: Answers) -> bool:
    """Whether so many calls failed that the run says more of the connection than of the release."""
    failed = sum(d.outcome is Outcome.FAILED for d in answers.delivered.values())
    return failed > _FAILED * len(answers.delivered)


def _failures(candidate: Side, baseline: Side | None) -> list[str]:
    notes = []
    for side in filter(None, (candidate, baseline)):
        failed = [d for d in side.answers.delivered.values() if d.outcome is Outcome.FAILED]
        if failed:
            more = " That decides nothing: mend it, and run again." if _failing(side.answers) else ""
            said = failed[0].text.strip("[]")
            notes.append(f"{len(failed)} of {len(side.answers.delivered)} calls of {side.model} failed: {said}{more}")
    return notes


def _told_of_judge(judgement: Judgement) -> dict[str, Any]:
    """What is kept of the judge: its figures, and its standing in words."""
    said = {"decides": judgement.decides, "standing": judgement.standing, "said": judge_lines(judgement)}
    return {**msgspec.to_builtins(judgement), **said}


def _effort(delivered: Sequence[Delivered]) -> dict[str, float]:
    """The mean effort of an answer, for `evals.plan`."""
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
    return {**_bounds(interval), "cases": interval.n, "better": scorer.better, "kind": scorer.kind}


def _bounds(interval: Interval) -> dict[str, float | None]:
    bounds = {"low": interval.low, "high": interval.high} if interval.n > 1 else {"low": None, "high": None}
    return {"mean": interval.estimate, **bounds}


def told_of_bias(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What evidence says of bias: of each attribute the surest gap, and whether it alarms. Figures only; `found` is
    surest first."""
    surest: dict[str, dict[str, Any]] = {}
    for gap in found:
        interval = gap["difference"]
        low, high = (bound if math.isfinite(bound) else None for bound in (interval["low"], interval["high"]))
        figures = {"gap": interval["estimate"], "low": low, "high": high, "questions": interval["n"]}
        said = {name: gap[name] for name in ("attribute", "group", "other", "alarm")}
        surest.setdefault(gap["attribute"], {**said, **figures})
    return list(surest.values())


def result_of(case: Case, candidate: Side, baseline: Side | None, repeats: int) -> dict[str, Any]:
    answers = [d for seed in range(repeats) if (d := candidate.answers.delivered.get((case.id, seed)))]
    first = answers[0] if answers else None
    before = baseline.answers.delivered.get((case.id, 0)) if baseline else None
    scores = {name: by_case[case.id] for name, by_case in candidate.scores.items() if case.id in by_case}
    return {
        "case": case.id,
        "question": case.asked,
        "expected": expectation(case),
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


async def scored_cases(session: Session, keyring: Keyring, workspace: str, evaluation: str) -> list[dict[str, Any]]:
    """What was asked, answered and scored in an evaluation; `missed` names the scorers of `_RIGHT` below 1."""
    key = await keyring.workspace(session, workspace)
    rows = await session.fetch("evaluations.cases", evaluation=evaluation)
    cases = [msgspec.json.decode(unseal(key, row["result"], "case")) for row in rows]
    return [{**case, "missed": [name for name in _RIGHT if case["scores"].get(name, 1) < 1]} for case in cases]


def changes_of(cases: Sequence[Mapping[str, Any]]) -> list[Change]:
    """The answers that changed most against the baseline's, of `scored_cases`."""
    failed = Outcome.FAILED
    both = [case for case in cases if case["baseline"] and case["answer"] is not None]
    both = [case for case in both if failed not in (case["outcome"], case["baseline"]["outcome"])]
    before = {case["case"]: case["baseline"]["answer"] for case in both}
    return changed_most(before, {case["case"]: case["answer"] for case in both}, _CHANGES)


def report_of(release: Release, row: Row, cases: Sequence[Mapping[str, Any]]) -> Report:
    """The report of an evaluation that is done, from what is kept of it."""
    summary: Any = _bounded(row["summary"])
    scores = [
        Score(name, s["kind"], s["better"], Interval(s["mean"], s["low"], s["high"], s["cases"]))
        for name, s in sorted(summary["scores"].items())
    ]
    missed = [
        Missed(case["case"], case["question"], case["answer"] or "", names, case.get("expected", ""))
        for case in cases
        if (names := case["missed"])
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
        changes=changes_of(cases),
        usd=summary["spent_usd"],
        bias=msgspec.convert(summary.get("bias", []), list[Gap]),
        notes=summary.get("notes", []) + ([] if summary["whole"] else [_CUT_SHORT]),
        whole=summary["whole"],
        failing=summary.get("failing", False),
        judge=msgspec.convert(judge, Judgement) if (judge := summary.get("judge")) else None,
    )


def _bounded(value: object) -> object:
    """Stored JSON with its null bounds made infinite again."""
    if isinstance(value, list):
        return [_bounded(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _bounded(item) for key, item in value.items()}
    without_end = {"low": -math.inf, "high": math.inf}
    return {key: without_end[key] if item is None and key in without_end else item for key, item in found.items()}
