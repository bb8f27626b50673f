"""What a rollout decides: simulated traffic through the product's own tests and decisions."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import rfc8785

from proveout.evals.online import Reading
from proveout.evals.sequential import Betting, Seen, crosses
from proveout.releases.plan import Plan
from proveout.releases.rollout import (
    Decision,
    Machine,
    Progress,
    Units,
    criteria,
    decide,
    freeze,
    guardrails,
    outlook,
    weights,
)
from proveout.releases.simulate import Behaviour, End, Traffic, regressions, seeds, simulate

SOUND = Behaviour()
NOTHING: Mapping[str, float] = {"errors": 0.0, "refused": 0.0, "guarded": 0.0}


def plan(**given: Any) -> Plan:
    return Plan.model_validate(
        {"steps": ["10%"], "minimum": {"calls": 10**6}, "seconds_per_step": 0, "deadline": "300d", **given}
    )


def broken(**rates: float) -> Behaviour:
    return replace(SOUND, bad={**SOUND.bad, **rates})


def runs(count: int, candidate: Behaviour, requests: int, **given: Any) -> list[End]:
    by = {"plan": plan(), "stable": SOUND, "traffic": Traffic(), **given}
    return [
        simulate(by["plan"], by["stable"], candidate, by["traffic"], requests, random, by.get("every", 10))
        for random in seeds(count)
    ]


# -- whole rollouts -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("candidate", "stable", "most"),
    [
        (broken(errors=0.5), SOUND, 16),
        (broken(unsupported=0.3), SOUND, 40),
        (replace(SOUND, median_ms=600), SOUND, 150),
        (Behaviour(scores={"score": 0.5}), Behaviour(scores={"score": 0.7}), 120),
    ],
    ids=["errors", "unsupported", "slow", "scores"],
)
def test_a_broken_candidate_is_caught_soon(candidate: Behaviour, stable: Behaviour, most: int) -> None:
    ends = runs(11, candidate, 6000, stable=stable)
    assert {end.state for end in ends} == {"rolled_back"}
    assert statistics.median(end.candidate for end in ends) <= most


def test_regressions_of_scores_are_simulated_where_answers_are_scored() -> None:
    assert not [one for one in regressions(SOUND) if "−" in one.name]
    for mean in (0.0, 0.06, 0.6, 0.97, 1.0):  # whatever their mean is
        stable = Behaviour(scores={"judge": mean}, scored={"judge": 0.5})
        (worse,) = [one.candidate for one in regressions(stable) if one.name == "judge − 0.10"]
        assert worse.scores == {"judge": pytest.approx(max(0.0, mean - 0.1))} and worse.bad == stable.bad
        (end,) = runs(1, worse, 500, stable=stable)
        assert end.state in ("running", "rolled_back")
    assert {end.state for end in runs(3, worse, 6000, stable=stable)} == {"rolled_back"}


def test_a_sound_candidate_is_promoted_and_not_rolled_back() -> None:
    steps = plan(steps=["10%", "50%"], minimum={"calls": 50}, margins={"bad_events": 0.05, "latency": 0.1})
    ends = runs(12, SOUND, 20_000, plan=steps, every=50)
    assert [end.state for end in ends].count("promoted") >= 11


def test_users_with_broken_clients_are_no_evidence_against_a_candidate() -> None:
    """Counted by request, two of fifty users who always fail make a sound candidate look broken."""
    ends = runs(12, SOUND, 3000, traffic=Traffic(users=50, cursed=2), every=50)
    assert {end.state for end in ends} == {"running"}
    many = runs(7, broken(errors=0.5), 3000, traffic=Traffic(users=500))
    assert {end.state for end in many} == {"rolled_back"}


def test_four_users_whom_every_answer_fails_are_enough() -> None:
    """What happens to everybody once hardly happens twice in a row."""

    def after(users: str) -> Machine:
        units: Units = {}
        made = machine()
        right, failed = ({**NOTHING, "errors": value} for value in (0.0, 1.0))
        served = [Reading(False, 0.1, 0.0, f"u{n % 45}", True, True, failed if n == 7 else right) for n in range(450)]
        told(made, served, units=units)
        told(made, [Reading(True, 0.1, 0.0, user, True, True, failed) for user in users * 2], units=units)
        return made

    assert (after("abc").state, after("abcd").state) == ("running", "rolled_back")


def test_one_user_with_a_broken_client_is_no_more_than_the_draw_that_he_is() -> None:
    units: Units = {}
    made = machine()
    told(made, [Reading(True, 0.1, 0.0, "ada", True, True, {"errors": 1.0})] * 1000, units=units)
    assert made.state == "running" and e_value(made, "errors") < 10


def test_a_broken_split_is_frozen() -> None:
    ends = runs(8, SOUND, 6000, traffic=Traffic(split=0.2))
    assert [end.state for end in ends].count("frozen") >= 7
    assert "the split is broken" in next(end.reason for end in ends if end.state == "frozen")


@pytest.mark.parametrize("stable", [SOUND, replace(SOUND, measured=False)])
def test_a_metric_that_is_not_there_is_never_promoted(stable: Behaviour) -> None:
    loose = plan(minimum={"calls": 10}, margins={"bad_events": 0.3, "latency": 0.3})
    (end,) = runs(1, replace(SOUND, measured=False), 4000, plan=loose, stable=stable, every=50)
    assert end.state == "running"
    (end,) = runs(1, SOUND, 4000, plan=loose, every=50)  # it is the metric alone that holds it
    assert end.state == "promoted"


# -- single decisions -----------------------------------------------------------------------------


def machine(**given: Any) -> Machine:
    made = Machine(plan(**given), 0.0, Progress(0.0))
    for name in ("first_text", "total"):
        freeze(made.progress, name, [float(n) for n in range(100)])
    return made


def call(candidate: bool, at: float = 0.0, **given: Any) -> Reading:
    times = {"first_text": 10.0, "total": 10.0}
    return Reading(candidate, 0.5, at, None, True, True, **{"bad": NOTHING, "amounts": times, **given})


def both(count: int, at: float = 0.0, **given: Any) -> list[Reading]:
    return [call(arm, at, **given) for _ in range(count) for arm in (False, True)]


def e_value(made: Machine, name: str) -> float:
    return float(next(one["e_value"] for one in guardrails(made) if one["name"] == name))


def told(made: Machine, batch: list[Reading], now: float = 0.0, units: Units | None = None) -> Decision:
    return decide(made, batch, {} if units is None else units, now)


def ready(**given: Any) -> Machine:
    """At its last step, with all the evidence that a promotion wants."""
    made = machine(steps=[0.5], minimum={"calls": 100}, **given)
    made.plan.minimum.__dict__["calls"] = 10**6
    assert told(made, both(1200)).action == "hold"
    made.plan.minimum.__dict__["calls"] = 100
    return made


def test_evidence_that_is_whole_promotes() -> None:
    made = ready()
    assert (told(made, []).action, made.state) == ("promote", "promoted")


def test_no_data_never_promotes() -> None:
    made = machine(steps=[0.5], minimum={"calls": 0})
    assert told(made, [], 1e6).action == "hold" and made.state == "running"
    made = ready()
    assert "no call of the stable arm" in told(made, [], 1e4).reason
    assert told(made, both(2, at=1e4), 1e4).action == "promote"


@pytest.mark.parametrize(
    "gone",
    [
        {"amounts": {"first_text": math.nan, "total": 10.0}},
        {"amounts": {"first_text": math.inf, "total": 10.0}},
        {"bad": {**NOTHING, "unsupported": math.nan}},
    ],
)
def test_a_metric_that_stops_holds_what_was_about_to_be_promoted(gone: dict[str, Any]) -> None:
    made = machine(steps=[0.5], minimum={"calls": 10**6})
    told(made, both(1200, bad={**NOTHING, "unsupported": 0.0}))
    made.plan.minimum.__dict__["calls"] = 100
    assert told(made, [], 1e4).action == "hold"  # it would be, but that nothing ended lately
    told(made, [call(True, **{"bad": {**NOTHING, "unsupported": 0.0}, **gone}) for _ in range(30)], 1e4)
    decision = told(made, [])
    assert decision.action == "hold" and "no longer measured" in decision.reason
    told(made, both(1, bad={**NOTHING, "unsupported": 0.0}), 1e4)
    assert told(made, []).action == "promote"


def test_what_was_not_read_yet_holds_a_promotion_and_no_rollback() -> None:
    made = ready()
    decision = decide(made, [], {}, 1.0, behind=True)
    assert (decision.action, made.state) == ("hold", "running") and "read yet" in decision.reason
    assert decide(made, [], {}, 1.0).action == "promote"
    failing = machine()
    bad = [call(True, bad={**NOTHING, "errors": 1.0})] * 30
    assert decide(failing, bad, {}, 1.0, behind=True).action == "roll_back"


def test_a_metric_of_the_step_before_is_none_of_this_one() -> None:
    """Scores that stopped coming after a step hold the promotion, however well they were shown before."""
    loose = {"steps": ["50%", "60%"], "minimum": {"calls": 10}, "margins": {"bad_events": 0.4, "scores": 0.4}}
    made = machine(**loose, tolerance={"latency": 1.0})
    told(made, both(400, scores={"score": 0.9}), now=1.0)
    assert made.step == 1
    decision = told(made, both(40, at=2.0), now=2.0)
    assert decision.action == "hold" and "score was not measured with the stable arm in this step" in decision.reason
    assert told(made, both(40, at=3.0, scores={"score": 0.9}), now=3.0).action == "promote"


def test_the_first_word_on_a_request_counts_however_often_it_is_said() -> None:
    units: Units = {}
    made = machine()
    thumb = Reading(True, 0.01, 0.0, None, bad={"feedback": 1.0}, about="req_1")
    told(made, [thumb] * 4, units=units)
    told(made, [thumb] * 4, units=units)
    assert made.state == "running" and made.progress.tests["feedback"].candidate == 1
    told(made, [Reading(True, 0.01, 0.0, None, bad={"feedback": 1.0}, about=f"req_{n}") for n in range(9)], units=units)
    assert str(made.state) == "rolled_back"  # of nine users


def test_a_frozen_rollout_is_rolled_back_where_the_candidate_breaks_afterwards() -> None:
    made = machine()
    users = [Reading(n % 3 == 0, 0.1, 0.0, f"u{n}", True, True, NOTHING) for n in range(300)]
    assert told(made, users).action == "freeze"
    sound = [Reading(n % 3 == 0, 0.1, 0.0, f"v{n}", True, True, NOTHING) for n in range(2000)]
    assert told(made, sound).action == "hold"
    failing = [Reading(True, 0.1, 0.0, None, True, True, {**NOTHING, "errors": 1.0})] * 100
    assert told(made, failing).action == "roll_back"


def test_a_word_more_is_no_harm() -> None:
    """Answers of one length all lie at their median: what is a little above it is tolerated, what is far above not."""
    for tokens, state in ((6.0, "running"), (9.0, "rolled_back")):
        made = machine()
        freeze(made.progress, "tokens", [5.0] * 100)
        times = {"first_text": 10.0, "total": 10.0}
        for _ in range(40):
            told(made, [call(False, amounts={**times, "tokens": 5.0}), call(True, amounts={**times, "tokens": tokens})])
        assert made.state == state, tokens


def test_outages_that_both_arms_share_promote_no_worse_candidate() -> None:
    """An answer from before an outage is not compared with one from within."""
    promoted = 0
    for random in seeds(12):
        bet = Betting("no_harm", 0.02)
        for begun in range(0, 12_000, 100):
            arms = [random.random() < 0.5 for _ in range(100)]
            down = begun % 2000 < 200
            failed = [down or random.random() < (0.05 if arm else 0.02) for arm in arms]
            bet = bet.update([Seen(arm, 1.0 - bad, 0.5) for arm, bad in zip(arms, failed, strict=True)])
            if crosses(bet.log_e, 0.01):
                promoted += 1
                break
    assert promoted <= 1


def test_minimum_calls_hold_back_steps_and_never_a_rollback() -> None:
    made = machine(steps=[0.1, 0.5], minimum={"calls": 50})
    assert "10 of 50 calls" in told(made, both(10)).reason
    assert told(made, both(40)).action == "step" and made.step == 1 and made.weight == 0.5
    assert "0 of 50 calls" in told(made, []).reason
    made = machine(steps=[0.1, 0.5], minimum={"calls": 10**6})
    failed = [replace_weight(call(True, bad={**NOTHING, "errors": 1.0}), 0.1) for _ in range(10)]
    decision = told(made, failed)
    assert (decision.action, made.state) == ("roll_back", "rolled_back")
    assert decision.reason.startswith("errors: 10 of 10 calls of the candidate failed; 0 of 0 of the")
    assert decision.facts["e_values"]["errors"] > 300 and decision.facts["combined"] >= 100


@pytest.mark.parametrize(
    ("worse", "words"),
    [
        (
            {"amounts": {"tokens": 17.0}},
            "tokens: 60 of 60 answers of the candidate took more than 6 tokens, 20 % above the stable",
        ),
        (
            {"amounts": {"first_text": 2210.5}},
            "first text: 60 of 60 answers of the candidate came later than 1,320 ms, 10 % above the stable",
        ),
        (
            {"amounts": {"cost": 0.01}},
            "cost: 60 of 60 answers of the candidate cost more than 0.002 USD, the stable release's median;",
        ),
        (
            {"bad": {**NOTHING, "unsupported": 1.0}},
            "unsupported: 60 of 60 answers of the candidate had words that no passage supports; 0 of 0 of the stable",
        ),
        (
            {"bad": {**NOTHING, "left": 1.0}},
            "left: 60 of 60 calls of the candidate were left by their client; 0 of 100",
        ),
    ],
)
def test_a_rollback_says_in_words_what_the_candidate_did(worse: dict[str, Any], words: str) -> None:
    made = machine(steps=[0.1], minimum={"calls": 10**6}, tolerance={"cost": 0})
    freeze(made.progress, "first_text", [1200.0] * 100)
    freeze(made.progress, "tokens", [5.0] * 60 + [20.0] * 40)
    freeze(made.progress, "cost", [0.002] * 100)
    sound = {"bad": {**NOTHING, "left": 0.0}, "amounts": dict.fromkeys(("first_text", "tokens", "cost"), 0.0)}
    told(made, [Reading(False, 0.1, 0.0, None, False, True, **sound) for _ in range(100)])  # type: ignore[arg-type]
    told(made, [Reading(True, 0.1, 0.0, None, False, True, **worse) for _ in range(60)])
    decision = outlook(made, 0.0)
    assert decision.action == "roll_back" and decision.reason.startswith(words), decision.reason
    assert re.search(r" of the stable release; combined e-value \S+ ≥ 100$", decision.reason)


def replace_weight(reading: Reading, weight: float) -> Reading:
    return Reading(reading.candidate, weight, reading.at, None, True, True, reading.bad, reading.amounts)


@pytest.mark.parametrize("state", ["paused", "frozen"])
def test_a_paused_rollout_takes_no_step_but_is_rolled_back(state: Any) -> None:
    made = ready()
    made.state = state
    assert told(made, both(10)).action == "hold"
    failed = [replace_weight(call(True, bad={**NOTHING, "errors": 1.0}), 0.1) for _ in range(30)]
    assert told(made, [*failed, *(call(False) for _ in range(30))]).action == "roll_back"


def test_a_step_lasts_its_seconds_and_the_rollout_no_longer_than_its_deadline() -> None:
    made = machine(steps=[0.1, 0.5], minimum={"calls": 0}, seconds_per_step=60, deadline="10m")
    assert "1 s of this step are left" in told(made, both(1, at=59), 59).reason
    assert told(made, both(1, at=60), 60).action == "step"
    assert "60 s of this step are left" in told(made, both(1, at=60), 60).reason
    assert (told(made, [], 600).action, made.state) == ("abort", "aborted")


def test_a_user_is_one_event_at_a_weight_and_less_at_the_next() -> None:
    units: Units = {}
    made = machine()

    def failed(candidate: bool, weight: float) -> float:
        reading = Reading(candidate, weight, 0.0, "ada", True, True, {"errors": 1.0})
        told(made, [reading] * 3, units=units)
        return made.progress.tests["errors of users"].log_e

    first = failed(False, 0.1)
    assert first == failed(False, 0.1) and units["ada"] == {"errors": 0.1, "errors again": 0.1, "errors last": 1.0}
    second = failed(True, 0.5)
    fresh = machine()
    told(fresh, [Reading(False, 0.1, 0.0, None, True, True, {"errors": 1.0})])
    told(fresh, [Reading(True, 0.4 / 0.9, 0.0, None, True, True, {"errors": 1.0})])
    assert second == pytest.approx(fresh.progress.tests["errors"].log_e)
    assert failed(True, 0.9) == second and units["ada"]["errors"] == 1.0  # the candidate's for certain: nothing new
    assert made.progress.split.candidate + made.progress.split.stable == 1  # met once


def test_negative_feedback_counts_by_session_and_scores_hold_a_promotion_once_answers_are_judged() -> None:
    made = ready()
    assert "score" not in criteria(made.progress)
    told(made, [Reading(False, 0.5, 0.0, bad={"feedback": 1.0})])
    assert made.progress.tests["feedback"].stable == 1 and made.progress.total["stable"].calls == 1200
    made = machine(steps=[0.5], minimum={"calls": 0})
    told(made, both(1200) + [Reading(arm, 0.5, 0.0, scores={"score": 0.5}) for arm in (False, True)] * 20)
    assert made.state == "running" and "score" in criteria(made.progress)


def test_a_judge_decides_only_where_it_may() -> None:
    def judged(name: str) -> Machine:
        made = machine(steps=[0.5], minimum={"calls": 10**6})
        told(made, both(1200))
        told(
            made,
            [Reading(arm, 0.5, 0.0, scores={name: 0.2 if arm else 0.9}) for _ in range(60) for arm in (False, True)],
        )
        return made

    advised, ruled = judged("advice"), judged("judge")
    assert advised.state == "running" and "advice" not in criteria(advised.progress) and not advised.progress.scores
    assert advised.progress.total["candidate"].scores["advice"] == pytest.approx(12)  # shown all the same
    assert ruled.state == "rolled_back" and "judge" in criteria(ruled.progress)
    said = "judge: on average 0.20 of 60 answers of the candidate, 0.90 of 60 of the stable release; combined"
    assert outlook(ruled, 0.0).reason.startswith(said)
    made = ready()
    told(made, [Reading(arm, 0.5, 0.0, scores={"judge": 0.9}) for _ in range(25) for arm in (False, True)])
    assert "judge" in outlook(made, 0.0).reason  # not enough to show that it is no worse
    more = [Reading(arm, 0.5, 0.0, scores={"judge": 0.9}) for _ in range(200) for arm in (False, True)]
    assert told(made, more).action == "promote"


def test_scores_of_two_judges_are_not_compared() -> None:
    made = machine(steps=[0.5], minimum={"calls": 10**6})
    by = {False: "lenient", True: "strict"}
    told(made, both(1200))
    told(made, [Reading(arm, 0.5, 0.0, scores={"judge": 0.2 if arm else 0.9}, judge=by[arm]) for arm in by] * 60)
    assert made.state == "running" and "judge" not in criteria(made.progress)


def test_answers_that_call_tools_hold_a_promotion_until_they_are_shown_to_be_no_worse() -> None:
    made = ready()
    right, wrong = {**NOTHING, "tool_errors": 0.0}, {**NOTHING, "tool_errors": 1.0}
    told(made, [call(False, bad=right) for _ in range(20)])
    assert "tool_errors" in outlook(made, 0.0).reason
    told(made, [call(True, bad=wrong) for _ in range(40)])
    assert made.state == "rolled_back" and "tool_errors" in criteria(made.progress)


def test_a_sticky_user_who_scores_everything_low_is_one_score() -> None:
    units: Units = {}
    made = machine()
    low = [Reading(True, 0.1, 0.0, "grumpy", scores={"score": 0.0}) for _ in range(500)]
    fair = [Reading(False, 0.1, 0.0, f"u{n}", scores={"score": 0.8}) for n in range(500)]
    told(made, [*fair, *low], units=units)
    assert made.state == "running" and made.progress.scores["score"].bets == 1


def test_weights_are_those_that_were_published_at_the_start() -> None:
    published = {"errors": 0.5, "gone": 0.5}
    made = Machine(plan(), 0.0, Progress(0.0, weights=dict(published)))
    told(made, both(5, bad={**NOTHING, "tool_errors": 1.0}))
    assert made.progress.weights == published and made.state == "running"


def test_the_weights_of_the_guardrails_are_the_plans() -> None:
    every = weights(Plan())
    assert sum(every.values()) == pytest.approx(1)
    assert (every["errors"], every["unsupported"]) == (0.3, 0.2)
    assert sum(w for name, w in every.items() if name.startswith(("first_text", "total"))) == pytest.approx(0.2)
    assert every["score"] == every["judge"] == pytest.approx(0.075) and every["tool_errors"] == pytest.approx(0.015)


def test_simulations_repeat() -> None:
    assert runs(2, broken(errors=0.1), 2000) == runs(2, broken(errors=0.1), 2000)
    assert Random("0/0").random() == next(seeds(1)).random()


def test_overwhelming_evidence_can_still_be_recorded() -> None:
    """Canonical JSON holds no larger numbers exactly, and an event that it cannot hold would stop the log."""
    made = machine(steps=[0.5])
    failed = [call(True, bad={**NOTHING, "errors": 1.0}) for _ in range(3000)]
    decision = told(made, [*failed, *(call(False) for _ in range(3000))])
    assert decision.action == "roll_back" and rfc8785.dumps(dict(decision.facts))
