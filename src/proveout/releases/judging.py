"""A release's judge in an evaluation: it rates the answers of both sides and those that people have labelled, and says
which side's answers are better.

It is asked as any model is: by the runner, which keeps every word of it, so nothing is asked twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from proveout.domain import Outcome, Principal, Scope
from proveout.evals.cases import Case
from proveout.evals.judge import (
    Judge,
    Judgement,
    Preference,
    Rating,
    agreement_on_scores,
    corrected_mean,
    preference,
    preferences,
    rating,
    reference_of,
)
from proveout.evals.runner import Answers, Asking, Runner, Tell, Turn
from proveout.evals.scorers.delivered import Delivered
from proveout.evals.statistics import Interval

PURPOSE = "judge"  # of these requests: recorded and priced, and no user's
MAX_TOKENS = 300

Side = Mapping[Turn, Delivered]


@dataclass(frozen=True, slots=True)
class JudgedSides:
    """A judge's results in an evaluation: per side, the scores of each case, one a repeat.

    `labels`: by case, people's mean score of the candidate's own answers. `whole`: the budget was enough for all.
    """

    judgement: Judgement
    scores: Sequence[Mapping[str, Sequence[float]]]
    labels: Mapping[str, float]
    whole: bool

    def mean(self, confidence: float = 0.95) -> Interval:
        """The mean that people would give the candidate's answers. Raises ValueError where none was judged."""
        return corrected_mean({case: fmean(s) for case, s in self.scores[0].items()}, self.labels, confidence)


def asker(principal: Principal, model: str) -> Principal:
    """The principal that asks a judge on behalf of another one: it may call this model, and nothing else."""
    key = replace(principal.key, name=PURPOSE, groups=frozenset(), models=frozenset({model}))
    return Principal(key, frozenset())


class Judging:
    """Asks one judge, for at most as much as `asking` allows. Made for one evaluation."""

    def __init__(self, judge: Judge, runner: Runner, scope: Scope, asking: Asking, report: Tell) -> None:
        """`asking`: for whom, and the budget; what is asked of the model is the judge's own."""
        self._judge = judge
        self._runner = runner
        self._scope = scope
        by = asker(asking.principal, judge.model)
        self._asking = replace(asking, model=judge.model, principal=by, purpose=PURPOSE, max_tokens=MAX_TOKENS)
        self._report = report
        self._answers: list[Answers] = []

    async def judge(self, weights: str, cases: Sequence[Case], sides: Sequence[Side]) -> JudgedSides:
        """Judges what the candidate, the first of `sides`, and the baseline have answered.

        Unanswerable cases are left out: whether a refusal was due is known. `weights`: the digest of the model.
        """
        judge = self._judge
        right = {case.id: reference_of(case) for case in cases}
        of_labels = [
            judge.prompt(label.question, label.reference or right.get(label.case or "", ""), label.answer)
            for label in judge.labels
        ]
        asked = [case for case in cases if not case.unanswerable]
        wanted = {case.id for case in asked}
        sides = [{turn: d for turn, d in side.items() if turn[0] in wanted} for side in sides]
        of_sides = [self._prompts(asked, side) for side in sides]
        every = [*of_labels, *(prompt for prompts in of_sides for prompt in prompts.values())]
        said = await self._ask(every, judge.repeats)
        ratings = {prompt: rating(words) for prompt, words in said.items()}
        scores = [_scores(side, prompts, ratings) for side, prompts in zip(sides, of_sides, strict=True)]
        pairs = await self._compare(asked, *sides) if len(sides) > 1 else []
        agreement = None
        if judge.labels:
            agreement = agreement_on_scores([ratings[p] for p in of_labels], [label.score for label in judge.labels])
        variances = [found.variance for found in ratings.values() if len(found.scores) > 1]
        labels = _labels(judge, sides[0])
        judgement = Judgement(
            model=judge.model,
            digest=judge.digest(weights),
            repeats=judge.repeats,
            agreement=agreement,
            variance=fmean(variances) if variances else None,
            unread=sum(found.unread for found in ratings.values()) / max(sum(map(len, said.values())), 1),
            corrected=len(labels.keys() & scores[0].keys()),
            pairs=preferences(pairs),
            asked=sum(answers.asked for answers in self._answers),
            usd=sum(answers.spent for answers in self._answers),
            before=fmean(map(fmean, scores[1].values())) if scores[1:] and scores[1] else None,
        )
        return JudgedSides(judgement, scores, labels, all(answers.whole for answers in self._answers))

    def _prompts(self, cases: Sequence[Case], side: Side) -> dict[Turn, str]:
        """What is asked about each answer; a call that failed has none."""
        of_case = {case.id: (case.asked, reference_of(case)) for case in cases}
        return {
            turn: self._judge.prompt(*of_case[turn[0]], delivered.text)
            for turn, delivered in side.items()
            if delivered.outcome is not Outcome.FAILED
        }

    async def _compare(self, cases: Sequence[Case], candidate: Side, baseline: Side) -> list[Preference]:
        """Which side's first answer to each case is better. Equal texts are a tie and are not asked about."""
        prompts: list[tuple[str, str] | None] = []
        for case in cases:
            both = [d for side in (candidate, baseline) if (d := side.get((case.id, 0)))]
            if len(both) < 2 or any(delivered.outcome is Outcome.FAILED for delivered in both):
                continue
            first, second = (delivered.text for delivered in both)
            same = first == second
            prompts.append(None if same else self._judge.prompts(case.asked, reference_of(case), first, second))
        said = await self._ask([prompt for pair in prompts if pair for prompt in pair], 1)
        found = []
        for pair in prompts:
            if pair is None:
                found.append(Preference("tie", "tie"))
            elif all(said[prompt] for prompt in pair):
                found.append(preference(*(said[prompt][0] for prompt in pair)))
        return found

    async def _ask(self, prompts: Iterable[str], repeats: int) -> dict[str, list[str]]:
        """What the model says to each prompt, once a repeat; less where it failed, or the budget ended it."""
        cases = [Case(hashlib.sha256(prompt.encode()).hexdigest(), prompt) for prompt in dict.fromkeys(prompts)]
        if not cases:
            return {}
        budget = self._asking.budget_usd
        left = None if budget is None else max(0.0, budget - sum(answers.spent for answers in self._answers))
        asking = replace(self._asking, cases=cases, repeats=repeats, budget_usd=left)
        answers = await self._runner.ask(self._scope, asking, self._report)
        self._answers.append(answers)
        turns = {case.question: [answers.delivered.get((case.id, seed)) for seed in range(repeats)] for case in cases}
        return {p: [d.text for d in found if d and d.outcome is not Outcome.FAILED] for p, found in turns.items()}


def _scores(side: Side, prompts: Mapping[Turn, str], ratings: Mapping[str, Rating]) -> dict[str, list[float]]:
    """Scores by case; a failed call scores 0."""
    scores: dict[str, list[float]] = {}
    for turn, delivered in side.items():
        score = 0.0 if delivered.outcome is Outcome.FAILED else ratings[prompts[turn]].mean if turn in prompts else None
        if score is not None:
            scores.setdefault(turn[0], []).append(score)
    return scores


def _labels(judge: Judge, side: Side) -> dict[str, float]:
    """By case, people's mean score of the side's own answers; only cases with a label of each answer's exact words."""
    given: dict[tuple[str | None, str], list[float]] = {}
    for label in judge.labels:
        given.setdefault((label.case, _plain(label.answer)), []).append(label.score)
    found: dict[str, list[list[float]]] = {}
    for (case, _), delivered in side.items():
        found.setdefault(case, []).append(given.get((case, _plain(delivered.text)), []))
    return {case: fmean(map(fmean, scores)) for case, scores in found.items() if all(scores)}


def _plain(text: str) -> str:
    return " ".join(text.split())
