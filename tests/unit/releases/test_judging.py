"""A judge in an evaluation: what it is asked, once, and what its words and people's labels come to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from pytest import approx

from proveout.domain import Key, Outcome, Principal, Right, Scope
from proveout.evals.cases import Case
from proveout.evals.judge import Judge, Label
from proveout.evals.runner import Answers, Asking
from proveout.evals.scorers.delivered import Delivered
from proveout.releases.judging import JudgedSides, Judging, asker

SCOPE = Scope("default", "system")
PRINCIPAL = Principal(Key("key_1", "ann", "default", "developer", frozenset({"hr"})), frozenset({Right.MODELS_CALL}))


class Runner:
    """Answers as `say` does, each answer for a USD, until the budget is spent."""

    def __init__(self, say: Callable[[str, int], str | None]) -> None:
        self.say = say
        self.askings: list[Asking] = []

    async def ask(self, scope: Scope, asking: Asking, report: object) -> Answers:
        self.askings.append(asking)
        turns = [(case, seed) for seed in range(asking.repeats) for case in asking.cases]
        able = turns if asking.budget_usd is None else turns[: int(asking.budget_usd)]
        found = {}
        for case, seed in able:
            said = self.say(case.question, seed)
            outcome = Outcome.FAILED if said is None else Outcome.ANSWERED
            found[case.id, seed] = Delivered(said or "[away]", outcome)
        return Answers(found, float(len(able)), len(able), len(able) == len(turns))


def run(
    judge: Judge, runner: Any, cases: list[Case], *sides: Mapping[str, str | None], budget: float | None = None
) -> JudgedSides:
    """`sides`: the one answer to each case; None: the call failed."""

    async def tell(done: int, total: int, spent: float) -> None: ...

    delivered = [
        {
            (case, 0): Delivered(text or "", Outcome.ANSWERED if text is not None else Outcome.FAILED)
            for case, text in side.items()
        }
        for side in sides
    ]
    asking = Asking("evaluation_1", "", PRINCIPAL, (), budget_usd=budget)
    return asyncio.run(Judging(judge, runner, SCOPE, asking, tell).judge("sha256:w", cases, delivered))


def honest(prompt: str, seed: int) -> str:
    """A judge that finds what begins with `good` good, and of two always the first shown."""
    good = "<answer>\ngood" in prompt
    return f"Better: A. Score: {9 - seed if good else 1}"


CASES = [
    Case("a", "Which?", reference="blue"),
    Case("b", "Which?", reference="blue"),
    Case("c", "Who?", facts=["Ann"]),
    Case("d", "What is the password?", unanswerable=True),
]


def test_each_prompt_is_asked_once_and_scores_every_answer_to_it() -> None:
    runner = Runner(honest)
    found = run(Judge("m", repeats=2), runner, CASES, {"a": "good", "b": "good", "c": None, "d": None})
    (asking,) = runner.askings
    assert len(asking.cases) == 1 and (asking.repeats, asking.model, asking.purpose) == (2, "m", "judge")
    assert found.scores == [{"a": [approx(0.85)], "b": [approx(0.85)], "c": [0.0]}]
    assert found.judgement.variance is not None and found.judgement.variance > 0 and found.whole
    assert not found.judgement.decides and found.judgement.standing == "advises only: no labels"


def test_it_is_asked_for_somebody_and_with_no_other_right() -> None:
    by = asker(PRINCIPAL, "m")
    assert by.key.id == "key_1" and not by.key.groups and not by.rights
    assert by.may_call("m") and not by.may_call("other")


def test_labels_measure_it_and_correct_the_mean_of_the_very_answers() -> None:
    cases = [Case(f"c{n}", f"Which, {n}?", reference="r") for n in range(40)]
    labels = [Label(f"l{n}", "good" if n % 2 else "poor", float(n % 2)) for n in range(100)]
    labels += [Label(f"Which, {n}?", " good\n", 0.5, case=f"c{n}") for n in range(20)]
    labels += [Label("Which, 31?", "good", score, case="c31") for score in (0.2, 0.6)]
    labels += [Label("Which, 30?", "another answer", 0.0, case="c30")]
    runner = Runner(honest)
    found = run(Judge("m", labels=labels), runner, cases, {case.id: "good" for case in cases})
    assert found.labels == {**{f"c{n}": 0.5 for n in range(20)}, "c31": 0.4} and found.judgement.corrected == 21
    assert found.mean().estimate < 0.6  # people say 0.5 where it says 0.9
    assert found.judgement.agreement and found.judgement.agreement.kappa.n == 123 and found.judgement.decides
    assert all("reference_answer>\nr\n" in c.question for c in runner.askings[0].cases if "Which, 30?" in c.question)


def test_what_cannot_be_read_agrees_with_nobody() -> None:
    labels = [Label(f"l{n}", "good" if n % 2 else "poor", float(n % 2)) for n in range(200)]
    read = run(Judge("m", labels=labels), Runner(honest), CASES, {}).judgement
    away = run(
        Judge("m", labels=labels), Runner(lambda p, s: honest(p, s) if "poor" in p else None), CASES, {}
    ).judgement
    mute = run(Judge("m", labels=labels), Runner(lambda p, s: "Nice!"), CASES, {}).judgement
    assert (read.decides, away.decides, mute.decides) == (True, False, False)
    assert mute.unread == 1.0 and mute.agreement and mute.agreement.accuracy.estimate == 0.0


def test_two_sides_are_compared_in_both_orders() -> None:
    runner = Runner(honest)
    found = run(Judge("m"), runner, CASES, {"a": "good", "b": "same", "c": None}, {"a": "poor", "b": "same", "c": "x"})
    pairs = found.judgement.pairs
    assert pairs and (pairs.wins, pairs.losses, pairs.ties) == (0, 0, 2)  # always the first: no preference survives
    assert pairs.earlier == 0.5 and len(runner.askings[1].cases) == 2  # the same words are not asked about
    assert found.judgement.before == approx(0.1)

    def right(prompt: str, seed: int) -> str:
        return "Better: A" if "<answer_A>\ngood" in prompt else "Better: B"

    preferred = run(Judge("m"), Runner(right), CASES, {"a": "good"}, {"a": "poor"}).judgement.pairs
    assert preferred and (preferred.wins, preferred.earlier) == (1, 0.0)


def test_the_budget_ends_it_and_is_not_spent_twice() -> None:
    answers = {f"c{n}": f"good {n}" for n in range(10)}
    cases = [Case(name, "Which?", reference="r") for name in answers]
    runner = Runner(honest)
    found = run(Judge("m"), runner, cases, answers, dict.fromkeys(answers, "poor"), budget=14)
    assert found.judgement.usd == 14 and not found.whole and runner.askings[1].budget_usd == 3
    assert found.judgement.pairs and found.judgement.pairs.ties == 1  # of the second pair one order was not asked
    assert run(Judge("m"), Runner(honest), cases, answers, budget=10).whole
