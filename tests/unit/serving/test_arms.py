"""Which arm a call goes to: drawn evenly, the same for the same user, independent of every other rollout."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from proveout.access.rights import ROLES
from proveout.domain import Candidate, Key, Message, Pilots, Principal, Retired
from proveout.errors import Unavailable
from proveout.serving.arms import chance, draw, hashed, stays
from proveout.serving.assignments import Assignments, Drawn
from proveout.serving.call import Asked, Call

KEY = Key("key_1", "intern", "default", "user", frozenset({"staff"}))
CANDIDATE = Candidate(2, 0.1, "rollout_1", "salt")


class Nowhere(Assignments):
    """Has conversations in memory alone."""

    def __init__(self) -> None:
        self.had: dict[tuple[str, str], Drawn] = {}

    async def keep(self, rollout: str, conversation: str, drawn: Drawn) -> Drawn:
        return self.had.setdefault((rollout, conversation), drawn)

    async def kept(self, rollout: str, conversation: str) -> Drawn | None:
        return self.had.get((rollout, conversation))


def drawn(candidate: Candidate, kept: Assignments | None = None, number: int = 0, **asked: Any) -> Drawn:
    messages = asked.pop("messages", (Message("user", "Hello?"),))
    call = Call(f"req_{number:012x}", Principal(KEY, ROLES["user"]), Asked("shop", messages, **asked), streamed=False)
    return asyncio.run(draw(call, candidate, kept or Nowhere()))[0]


def test_draws_are_uniform_and_independent_across_rollouts() -> None:
    users = [f"user {number}" for number in range(20_000)]
    places = [[chance(hashed(salt, user)) for user in users] for salt in ("one", "another")]
    for place in places:
        counts = [sum(n / 20 <= p < (n + 1) / 20 for p in place) for n in range(20)]
        assert squares(counts, [1000.0] * 20) < 51  # χ² of 19 degrees of freedom: p = 1e-4
    first, second = ([p < 0.3 for p in place] for place in places)
    observed = [
        sum(pair == cell for pair in zip(first, second, strict=True)) for cell in product((False, True), repeat=2)
    ]
    shares = (1 - sum(first) / 20_000, sum(first) / 20_000), (1 - sum(second) / 20_000, sum(second) / 20_000)
    assert squares(observed, [a * b * 20_000 for a, b in product(*shares)]) < 15  # of 1 degree


def test_conversations_of_others_are_others() -> None:
    """Users number their conversations alike; the arm of one is not that of all."""
    everybody, kept = replace(CANDIDATE, weight=0.5), Nowhere()
    arms = {drawn(everybody, kept, n, user=f"u{n}", conversation="1").arm for n in range(40)}
    assert arms == {"stable", "candidate"} and len(kept.had) == 40
    again = {drawn(everybody, kept, n + 99, user="u7", conversation="1").arm for n in range(9)}
    assert len(again) == 1 and len(kept.had) == 40


def squares(observed: list[int], expected: list[float]) -> float:
    return sum((o - e) ** 2 / e for o, e in zip(observed, expected, strict=True))


def test_a_user_keeps_his_arm_and_the_candidate_as_its_weight_rises() -> None:
    for number in range(200):
        arms = [drawn(replace(CANDIDATE, weight=w), user=f"u{number}").arm for w in (0, 0.01, 0.1, 0.1, 0.5, 1)]
        assert arms[0] == "stable" and arms[2] == arms[3] and arms[5] == "candidate"
        assert sorted(arms, reverse=True) == arms  # once the candidate, never again stable


def test_weights_of_nothing_and_all_are_exact_and_calls_without_a_user_are_drawn_for_themselves() -> None:
    for weight in (0.0, 0.3, 1.0):
        taken = [drawn(replace(CANDIDATE, weight=weight), number=n) for n in range(500)]
        share = sum(d.arm == "candidate" for d in taken) / len(taken)
        assert share == weight if weight in (0, 1) else abs(share - weight) < 0.08
        assert {d.weight for d in taken} == {weight}
    assert chance("0" * 16) == 0 and 0.999 < chance("f" * 16) < 1


def test_the_weight_on_record_is_the_arms_own() -> None:
    assert (Drawn("candidate", 0.1).of_arm, Drawn("stable", 0.1).of_arm, Drawn("stable", None).of_arm) == (
        0.1,
        0.9,
        None,
    )


def test_pilots_come_first_and_are_not_drawn() -> None:
    for pilots in (
        Pilots(users=frozenset({"ada"})),
        Pilots(groups=frozenset({"staff"})),
        Pilots(frozenset({"intern"})),
    ):
        assert drawn(replace(CANDIDATE, weight=0, pilots=pilots), user="ada") == Drawn("candidate", None)
    others = Pilots(frozenset({"grace"}), frozenset({"board"}))
    assert drawn(replace(CANDIDATE, weight=0, pilots=others), user="ada") == Drawn("stable", 0)
    half = replace(CANDIDATE, weight=0, pilots=Pilots(groups=frozenset({"staff"}), share=0.5))
    arms = [drawn(half, user=f"u{number}").arm for number in range(300)]
    assert 100 < arms.count("candidate") < 200


def test_a_conversation_stays_where_it_began() -> None:
    kept = Nowhere()
    low, high = replace(CANDIDATE, weight=0.0), replace(CANDIDATE, weight=1.0)
    assert drawn(low, kept, conversation="c") == drawn(high, kept, conversation="c") == Drawn("stable", 0.0)
    assert drawn(high, kept, conversation="d") == drawn(low, kept, conversation="d") == Drawn("candidate", 1.0)
    turns = (Message("user", "Hello?"), Message("assistant", "Hello."), Message("user", "And?"))
    assert drawn(high, kept, conversation="e", messages=turns) == Drawn("stable", None)  # it began before the rollout


def test_after_a_promotion_a_conversation_stays_where_it_was_until_its_time() -> None:
    kept, turns = Nowhere(), (Message("user", "Hello?"), Message("assistant", "Hello."), Message("user", "And?"))
    drawn(replace(CANDIDATE, weight=0.0), kept, conversation="old")
    drawn(replace(CANDIDATE, weight=1.0), kept, conversation="new")

    def stayed(conversation: str | None, messages: tuple[Message, ...] = turns, hours: float = 1.0) -> bool:
        asked = Asked("shop", messages, conversation=conversation)
        call = Call("req_1", Principal(KEY, ROLES["user"]), asked, streamed=False)
        retired = Retired(1, CANDIDATE.rollout, datetime.now(UTC) + timedelta(hours=hours), CANDIDATE.salt)
        return asyncio.run(stays(call, retired, kept))

    assert stayed("old") and not stayed("old", hours=-1)
    assert not stayed("new") and not stayed("unknown") and not stayed(None)
    assert not stayed("old", turns[:1])  # it begins again


def test_without_the_database_a_conversation_is_drawn_anew() -> None:
    class Away:
        def unscoped(self) -> Any:
            raise Unavailable

    assignments = Assignments(Away())  # type: ignore[arg-type]
    assert drawn(replace(CANDIDATE, weight=1.0), assignments, conversation="c").arm == "candidate"


@pytest.mark.parametrize("name", ["user", "conversation"])
def test_what_is_recorded_of_whom_it_was_drawn_for_tells_the_arm(name: str) -> None:
    asked = Asked("shop", (Message("user", "Hello?"),), **{name: "ada"})  # type: ignore[arg-type]
    call = Call("req_1", Principal(KEY, ROLES["user"]), asked, streamed=False)
    found, unit = asyncio.run(draw(call, CANDIDATE, Nowhere()))
    assert unit is not None and "ada" not in unit
    assert (found.arm == "candidate") == (chance(unit) < CANDIDATE.weight)
