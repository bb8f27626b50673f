"""Rollouts over a real database: whatever is ordered, killed or run twice, nothing is counted or done twice."""

from __future__ import annotations

import asyncio
import math
import random
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from proveout.access.rights import ROLES
from proveout.domain import (
    Key,
    Outcome,
    Parameters,
    Principal,
)
from proveout.errors import Conflict, GateClosed, InvalidInput, NotFound
from proveout.ledger.journal import Completion, Intent, new_request_id, now
from proveout.releases.gate import Gate
from proveout.releases.rollouts import Order
from proveout.serving.assignments import Assignments, Drawn
from proveout.store.configuration import load
from proveout.store.events import Kind, note
from proveout.store.pool import Row, Session, as_json
from shop import OPERATOR, SYSTEM, Killed, Shop, run, together


def test_a_broken_candidate_is_rolled_back_and_a_sound_one_promoted(dsn: str) -> None:
    async def work(shop: Shop) -> None:
        chance = random.Random(1)
        await shop.rollouts.start(OPERATOR, shop.releases[2], "poc")
        await shop.serve(200, True, chance)
        await shop.rollouts.tick(SYSTEM)
        told = await shop.rollouts.show(SYSTEM, "shop", "poc")
        assert (told["state"], told["weight"]) == ("rolled_back", 0)
        assert [one["action"] for one in told["decisions"]] == ["rolled_back", "start"]
        assert told["decisions"][0]["facts"]["e_values"]["errors"] > 300
        assert ((await shop.route())["stable"], (await shop.route())["candidate"]) == (1, None)

        await shop.rollouts.start(OPERATOR, shop.releases[3], "poc")  # a new one may start at once
        for _ in range(5):
            await shop.serve(100, False, chance)
            await shop.rollouts.tick(SYSTEM)
        told = await shop.rollouts.show(SYSTEM, "shop", "poc")
        assert [one["action"] for one in told["decisions"]] == ["promoted", "step", "start"]
        assert (told["state"], told["weight"], (await shop.route())["stable"]) == ("promoted", 1, 3)
        kinds = [row["facts"]["action"] for row in await shop.all(
            "select facts from proveout.events where kind = 'releases:rollout:decided' order by id")]  # fmt: skip
        assert kinds == ["start", "rolled_back", "start", "step", "promoted"]
        with pytest.raises(Conflict, match="stable release of poc already"):
            await shop.rollouts.start(OPERATOR, shop.releases[3], "poc")

    run(dsn, work)


def test_what_is_promoted_passes_the_gate_of_its_stage(dsn: str) -> None:
    async def work(shop: Shop) -> None:
        breaker = Principal(Key("key_2", "owner", "default", "owner"), ROLES["owner"])
        await shop.routes.promote(breaker, shop.releases[1], "beta", "the first release of a test, to compare with")
        with pytest.raises(GateClosed, match=r"beta\.evaluation"):
            await shop.rollouts.start(OPERATOR, shop.releases[2], "beta")
        with pytest.raises(Conflict, match="no stable release in production"):
            await shop.rollouts.start(OPERATOR, shop.releases[2], "production")
        with pytest.raises(NotFound):
            await shop.rollouts.order(OPERATOR, "shop", "beta", "promote")

    run(dsn, work)


def test_by_itself_nothing_is_promoted_once_its_gate_has_closed(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(shop: Shop) -> None:
        await shop.rollouts.start(OPERATOR, shop.releases[2], "poc")
        criterion = shop.gate.policy.stages["beta"][0]
        lacks = ["its evaluation has expired"]

        async def closed(*_: Any) -> Any:
            return [(criterion, lacks[0])]

        monkeypatch.setattr(Gate, "check", closed)
        for _ in range(5):
            await shop.serve(100, False, random.Random(3))
            await shop.rollouts.tick(SYSTEM)
        told = await shop.rollouts.show(SYSTEM, "shop", "poc")
        assert told["state"] == "running" and "its evaluation has expired" in told["waiting"]
        decisions = [(one["action"], one["reason"]) for one in told["decisions"]]
        assert decisions[0] == ("held", f"{criterion.id}: its evaluation has expired")
        assert [action for action, _ in decisions] == ["held", "step", "start"]  # once, however often it was tried
        written = await shop.all("select xmin::text from proveout.rollouts")
        await shop.rollouts.tick(SYSTEM)
        assert await shop.all("select xmin::text from proveout.rollouts") == written, (
            "nothing is new, nothing is written"
        )
        with pytest.raises(GateClosed):
            await shop.rollouts.order(OPERATOR, "shop", "poc", "promote")
        lacks[0] = "no evaluation of this digest"
        await shop.rollouts.tick(SYSTEM)
        told = await shop.rollouts.show(SYSTEM, "shop", "poc")
        assert [one["action"] for one in told["decisions"]] == ["held", "held", "step", "start"]
        monkeypatch.undo()
        await shop.rollouts.tick(SYSTEM)
        assert (await shop.rollouts.show(SYSTEM, "shop", "poc"))["state"] == "promoted"

    run(dsn, work)


def test_a_baseline_has_the_scores_that_decide_and_no_thumbs(dsn: str) -> None:
    async def work(shop: Shop) -> None:
        await shop.serve(4, False, random.Random(1))
        requests = [row["request"] for row in await shop.all("select request from proveout.intents")]
        async with shop.store.within(SYSTEM) as session:
            for request, score in ((requests[0], 0.5), (requests[0], 0.1), (requests[1], 0.7), (requests[2], None)):
                facts = {"request": request, "app": "shop", "score": score, "negative": score is None}
                await note(session, "default", Kind.FEEDBACK_GIVEN, "key_1", facts)
            insert = (
                "insert into judgements (request, workspace, model, score, decides) values (%s, 'default', 'm', %s, %s)"
            )
            for request, decides in ((requests[0], True), (requests[1], False)):
                await session._connection.execute(insert, (request, 0.8, decides))
        while await shop.integrator.integrate(SYSTEM):
            pass
        told = await shop.rollouts.baseline(SYSTEM, "shop", "poc")
        means = {name: (round(one["mean"], 9), one["share"]) for name, one in told["scores"].items()}
        assert means == {"score": (0.6, 0.5), "judge": (0.8, 0.25)} and told["per_hour"] == 4

    run(dsn, work)


def test_outcomes_are_told_by_arm_of_what_was_drawn_in_this_rollout(dsn: str) -> None:
    async def work(shop: Shop) -> None:
        async def give(request: str, **outcome: float) -> None:
            async with shop.store.within(SYSTEM) as session:
                kept = {"subject": "s", "key": "key_1", "score": None, "outcome": as_json(outcome)}
                await session.row("feedback.put", request=request, **kept)

        await shop.serve(3, False, random.Random(1))
        for row in await shop.all("select request from proveout.intents"):
            await give(row["request"], minutes=100)  # before it began
        await shop.rollouts.start(OPERATOR, shop.releases[2], "poc")
        assert (await shop.rollouts.show(SYSTEM, "shop", "poc"))["outcomes"] == {"candidate": {}, "stable": {}}
        await shop.serve(40, False, random.Random(1))
        drawn = await shop.all(
            "select request, arm from proveout.intents where weight is not null order by arm, request"
        )
        arms = {arm: [row["request"] for row in drawn if row["arm"] == arm] for arm in ("candidate", "stable")}
        for arm, minutes in (("candidate", 4.0), ("stable", 9.0)):
            await give(arms[arm][0], minutes=minutes, solved=1)
            await give(arms[arm][1], minutes=minutes + 1)
            await give(arms[arm][1], minutes=minutes + 2)  # the last word stands
        await shop.rollouts.order(OPERATOR, "shop", "poc", "abort")
        told = (await shop.rollouts.show(SYSTEM, "shop", "poc"))["outcomes"]
        solved = {"mean": 1, "count": 1}
        assert told["candidate"] == {"minutes": {"mean": 5, "count": 2}, "solved": solved}
        assert told["stable"] == {"minutes": {"mean": 10, "count": 2}, "solved": solved}

    run(dsn, work)


def test_a_refusal_says_what_is_the_case(dsn: str) -> None:
    async def work(shop: Shop) -> None:
        async def refused(order: Order, words: str) -> None:
            with pytest.raises(Conflict, match=words):
                await shop.rollouts.order(OPERATOR, "shop", "poc", order)

        with pytest.raises(Conflict, match=r"^shop in poc: there is no release to go back to"):
            await shop.routes.roll_back(OPERATOR, "shop", "poc", None, shop.releases)
        await shop.routes.promote(OPERATOR, shop.releases[2], "poc")
        await shop.routes.roll_back(OPERATOR, "shop", "poc", None, shop.releases)
        with pytest.raises(Conflict, match=r"itself rolled back from; name the one to go to: 2\.$"):
            await shop.routes.roll_back(OPERATOR, "shop", "poc", None, shop.releases)
        await shop.rollouts.start(OPERATOR, shop.releases[3], "poc")
        await refused("resume", r"^The rollout of shop@3 to poc is running already\.$")
        await shop.rollouts.order(OPERATOR, "shop", "poc", "pause")
        await refused("pause", "is paused already")
        async with shop.store.unscoped() as session:
            await session._connection.execute("update proveout.rollouts set state = 'frozen'")
        await refused("pause", "is frozen: resume, promote or abort it")
        with pytest.raises(InvalidInput, match="NUL"):
            async with shop.store.within(SYSTEM) as session:
                await session.row("feedback.of_request", request="req\0")

    run(dsn, work)


def test_a_conversation_keeps_its_arm_for_every_gateway(dsn: str) -> None:
    async def work(shop: Shop) -> None:
        await shop.rollouts.start(OPERATOR, shop.releases[2], "poc")
        rollout = (await shop.rollouts.show(SYSTEM, "shop", "poc"))["id"]
        gateways = [Assignments(shop.store) for _ in range(4)]
        asked = [Drawn("candidate" if n % 2 else "stable", n / 4) for n in range(4)]
        given = await asyncio.gather(
            *(gateway.keep(rollout, "c", drawn) for gateway, drawn in zip(gateways, asked, strict=True))
        )
        assert len(set(given)) == 1
        assert await Assignments(shop.store).keep(rollout, "c", Drawn("stable", None)) == given[0]
        await shop.rollouts.order(OPERATOR, "shop", "poc", "abort")
        assert not await shop.all("select * from proveout.assignments")

    run(dsn, work)


def test_a_look_at_rollouts_changes_no_configuration(dsn: str) -> None:
    """Or every gateway would read all of it again, and forget its subjects' keys, four times a second."""

    async def work(shop: Shop) -> None:
        async def version() -> Row:
            async with shop.store.unscoped() as session:
                row = await session.row("configuration.version")
            assert row is not None
            return row

        before = await version()
        await shop.rollouts.tick(SYSTEM)
        assert await version() == before
        await shop.rollouts.start(OPERATOR, shop.releases[2], "poc")
        assert await version() != before

    run(dsn, work)


def test_after_a_promotion_conversations_stay_until_something_else_happens(dsn: str) -> None:
    async def work(shop: Shop) -> None:
        async def promoted(number: int) -> str:
            await shop.rollouts.start(OPERATOR, shop.releases[number], "poc")
            rollout = str((await shop.rollouts.show(SYSTEM, "shop", "poc"))["id"])
            for conversation, arm in (("old", "stable"), ("new", "candidate")):
                await Assignments(shop.store).keep(rollout, conversation, Drawn(arm, 0.2))  # type: ignore[arg-type]
            await shop.rollouts.order(OPERATOR, "shop", "poc", "promote")
            return rollout

        async def kept() -> list[tuple[str, str]]:
            await shop.rollouts.tick(SYSTEM)
            rows = await shop.all("select * from proveout.assignments")
            return [(row["rollout"], row["conversation"]) for row in rows]

        first = await promoted(2)
        retired = (await load(shop.store)).routes["default", "shop", "poc"].retired
        assert retired is not None and (retired.release, retired.rollout) == (1, first)
        assert await kept() == [(first, "old")]
        assert await Assignments(shop.store).kept(first, "old") == Drawn("stable", 0.2)
        assert await Assignments(shop.store).kept(first, "new") is None
        second = await promoted(3)  # another start lets go of the first
        assert await kept() == [(second, "old")]
        await shop.routes.roll_back(OPERATOR, "shop", "poc", None, shop.releases)
        retired = (await load(shop.store)).routes["default", "shop", "poc"].retired
        assert retired is None or retired.until <= datetime.now(UTC)
        assert not await kept() and (await shop.route())["retired"] is None

    run(dsn, work)


def test_lost_requests_and_judgements_count_once_and_not_after_the_end(dsn: str) -> None:
    async def work(shop: Shop) -> None:
        await shop.rollouts.start(OPERATOR, shop.releases[2], "poc")
        lost = [new_request_id() for _ in range(3)]
        about = ("default", "key_1", "request", "echo", Parameters(), False, now(), "shop", 2)
        for number in lost:
            await shop.journal.write(Intent(number, *about, stage="poc", arm="candidate", weight=0.2))
        async with shop.store.unscoped() as session:
            await session.run("writers.seen", id=shop.journal._writer)
        await asyncio.sleep(0.01)
        async with shop.store.unscoped() as session:
            assert await session.row("writers.end_orphans", seconds=0.001) == {"ended": 3}
        counted = await shop.look()
        assert (counted["calls"], counted["events"]) == (3, {"errors": 3})
        await shop.journal.write(Completion(lost[0], "default", Outcome.ANSWERED, "", 1, 1, 5.0, now()))  # of a spool
        for decides in (True, False):
            await shop.judge(lost[0], decides)
        counted = await shop.look()
        assert (counted["calls"], counted["answered"]) == (3, 0)
        assert (counted["measured"]["judge"], counted["scores"]) == (1, {"judge": 0.5, "advice": 0.5})
        await shop.rollouts.order(OPERATOR, "shop", "poc", "abort")
        before = await shop.state()
        await shop.judge(lost[1], True)
        await shop.look()
        assert (await shop.state())[:-1] == before[:-1]  # but for its own event
        await shop.rollouts.start(OPERATOR, shop.releases[3], "poc")
        await shop.judge(lost[1], True)
        assert (await shop.look())["measured"] == {}  # it was an answer in the rollout before

    run(dsn, work)


def test_a_broken_split_freezes_and_whoever_resumes_looks_at_it_afresh(dsn: str) -> None:
    async def work(shop: Shop) -> None:
        await shop.rollouts.start(OPERATOR, shop.releases[2], "poc")
        for _ in range(4):
            await shop.serve(100, False, random.Random(5), split=0.6)
            await shop.rollouts.tick(SYSTEM)
        told = await shop.rollouts.show(SYSTEM, "shop", "poc")
        assert (told["state"], told["weight"]) == ("frozen", 0.2) and "the split is broken" in told["decisions"][0][
            "reason"
        ]
        assert [one["action"] for one in told["decisions"]] == ["freeze", "start"]
        await shop.rollouts.order(OPERATOR, "shop", "poc", "resume")
        assert (await shop.rollouts.show(SYSTEM, "shop", "poc"))["split"]["e_value"] == 1
        await shop.serve(100, False, random.Random(5))
        await shop.rollouts.tick(SYSTEM)
        assert (await shop.rollouts.show(SYSTEM, "shop", "poc"))["step"] == 1

    run(dsn, work)


@pytest.mark.parametrize("broken", [True, False], ids=["rolled back", "promoted"])
def test_a_controller_that_is_killed_at_any_statement_has_done_nothing(
    dsn: str, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    left = [math.inf]  # statements until it dies

    def mortal(name: str) -> None:
        method = getattr(Session, name)

        async def dying(self: Session, *arguments: Any, **parameters: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return await method(self, *arguments, **parameters)

        monkeypatch.setattr(Session, name, dying)

    async def until_it_lives(shop: Shop) -> int:
        for statements in range(100):
            before, left[0] = await shop.state(), statements
            try:
                await shop.rollouts.tick(SYSTEM)
            except Killed:
                left[0] = math.inf
                assert await shop.state() == before
            else:
                left[0] = math.inf
                return statements
        raise AssertionError

    async def work(shop: Shop) -> None:
        chance = random.Random(1)
        await shop.rollouts.start(OPERATOR, shop.releases[2], "poc")
        for _ in range(5):
            if await shop.serve(100, broken, chance):
                assert await until_it_lives(shop) > 8
        await together([shop.rollouts] * 3)
        actions = [one["action"] for one in (await shop.rollouts.show(SYSTEM, "shop", "poc"))["decisions"]]
        assert actions == (["rolled_back", "start"] if broken else ["promoted", "step", "start"])

    for name in ("run", "row", "fetch"):
        mortal(name)
    run(dsn, work)


def test_of_several_controllers_one_acts(dsn: str) -> None:
    async def work(shop: Shop) -> None:
        await shop.rollouts.start(OPERATOR, shop.releases[2], "poc")
        for _ in range(5):
            await shop.serve(100, False, random.Random(2))
            await together([shop.rollouts] * 4)
        decisions = (await shop.rollouts.show(SYSTEM, "shop", "poc"))["decisions"]
        assert [one["action"] for one in decisions] == ["promoted", "step", "start"]
        assert len(await shop.all("select * from proveout.tenures")) == 2

    run(dsn, work)


# -- whatever happens -----------------------------------------------------------------------------


def test_what_an_earlier_candidate_did_is_not_the_next_ones(dsn: str) -> None:
    """A gateway that knows of the new rollout a moment later still asks the one before."""

    async def work(shop: Shop) -> None:
        await shop.rollouts.start(OPERATOR, shop.releases[2], "poc")
        await shop.serve(200, True, random.Random(1))
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("update proveout.intents set release = 3 where release = 2")
        assert (await shop.look())["calls"] == 0
        assert (await shop.rollouts.show(SYSTEM, "shop", "poc"))["state"] == "running"

    run(dsn, work)


def test_a_log_that_is_behind_takes_no_step(dsn: str) -> None:
    """What has happened and was not read yet may be what would roll the candidate back."""

    async def work(shop: Shop) -> None:
        await shop.rollouts.start(OPERATOR, shop.releases[2], "poc")
        await shop.serve(600, False, random.Random(2))
        async with shop.store.within(SYSTEM) as session:
            await note(session, "default", Kind.LOGIN_USED, "key_1", {})
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("update proveout.events set at = at - interval '1 minute' where position is null")
        before = await shop.rollouts.show(SYSTEM, "shop", "poc")
        await shop.rollouts.tick(SYSTEM)
        held = await shop.rollouts.show(SYSTEM, "shop", "poc")
        assert held["exposure"]["candidate"] > before["exposure"]["candidate"] and held["step"] == before["step"]
        await shop.look()
        assert (await shop.rollouts.show(SYSTEM, "shop", "poc"))["step"] > held["step"]

    run(dsn, work)
