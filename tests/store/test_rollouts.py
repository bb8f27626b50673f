"""Rollouts over a real database: whatever is ordered, killed or run twice, nothing is counted or done twice."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from proveout.access.rights import ROLES
from proveout.domain import (
    Directory,
    Key,
    Manifest,
    ModelChoice,
    ModelUse,
    Outcome,
    Parameters,
    Principal,
    PromptTexts,
    Release,
    Scope,
)
from proveout.errors import Conflict, GateClosed, InvalidInput, NotFound
from proveout.ledger.integrate import Integrator, LogKeys
from proveout.ledger.journal import Completion, Intent, Journal, new_request_id, now
from proveout.releases.gate import Gate
from proveout.releases.policy import read_policy
from proveout.releases.rollouts import Order, Rollouts
from proveout.releases.routes import Routes
from proveout.serving.assignments import Assignments, Drawn
from proveout.store.configuration import load
from proveout.store.events import Kind, note
from proveout.store.pool import Row, Session, Store, as_json
from proveout.store.sealing import Keyring

SYSTEM = Scope.system("default", "rollouts")
OPERATOR = Principal(Key("key_1", "operator", "default", "operator"), ROLES["operator"])
PLAN = {
    "steps": [0.2, 0.5],
    "minimum": {"calls": 20},
    "seconds_per_step": 0,
    "margins": {"bad_events": 0.3, "latency": 0.3},
}


def release(number: int) -> Release:
    manifest = Manifest(
        "shop", (ModelChoice(ModelUse("echo", "")),), (), Parameters(), PromptTexts("", "{{ question }}"), (), "quote"
    )
    return Release("default", "shop", number, f"sha256:{number}", manifest, {"rollout": PLAN}, datetime.now(UTC))


class Killed(BaseException):
    """What happens to a process in the middle of a transaction."""


class Mortal(Routes):
    """Dies where a route was about to be changed, or has just been."""

    async def set_weight(self, session: Session, by: str, rollout: Row, weight: float) -> None:
        raise Killed

    async def end(self, *arguments: Any) -> None:
        await super().end(*arguments)
        raise Killed


class Shop:
    """An app in the stage poc, its journal and log, and controllers."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.journal = Journal(store)
        keys = LogKeys(Keyring(bytes(32)), "proveout.example")
        self.integrator = Integrator(store, keys)
        self.gate = Gate(read_policy(None), keys)
        self.routes = Routes(store, self.gate)
        self.releases = {number: release(number) for number in (1, 2, 3)}
        self.rollouts = Rollouts(store, self.routes, self.directory)

    def directory(self) -> Directory:
        return Directory(1, {}, {("default", "shop", n): r for n, r in self.releases.items()}, {}, b"")

    async def open(self) -> None:
        async with self.store.unscoped() as session:
            await session.run("workspaces.ensure", name="default", secret=b"k" * 32)
            await session._connection.execute("reset role")
            await session._connection.execute("truncate releases, rollouts, tenures, events, intents, tiles cascade")
            await session._connection.execute("truncate checkpoints")
            await session._connection.execute("set role proveout_service")
            for one in self.releases.values():
                insert = "insert into releases (workspace, app, number, digest, manifest) values (%s, %s, %s, %s, '{}')"
                await session._connection.execute(insert, (one.workspace, one.app, one.number, one.digest))
        await self.routes.promote(OPERATOR, self.releases[1], "poc")

    async def serve(self, count: int, broken: bool, chance: random.Random, split: float | None = None) -> int:
        """Answers requests as the route says now; answers with how many were drawn, once they are in the log.

        `split` is what is drawn with, where that is not what the route says.
        """
        route = await self.route()
        numbers, drawn = [new_request_id() for _ in range(count)], route["candidate"] is not None
        share = route["weight"] if split is None else split
        arms = ["candidate" if drawn and chance.random() < share else "stable" for _ in numbers]
        weights = {"candidate": route["weight"], "stable": 1 - route["weight"]}
        begun = [
            Intent(
                *(number, "default", "key_1", "request", "echo", Parameters(), False, now(), "shop"),
                route["candidate" if arm == "candidate" else "stable"],
                stage="poc",
                arm=arm,
                weight=weights[arm] if drawn else None,
                unit=chance.choice([None, "ada", "bob"]) if split is None else None,
            )
            for number, arm in zip(numbers, arms, strict=True)
        ]
        await asyncio.gather(*map(self.journal.write, begun))
        outcomes = [Outcome.FAILED if broken and arm == "candidate" else Outcome.ANSWERED for arm in arms]
        ended = [
            Completion(number, "default", outcome, "", 1, 1, 5.0, now(), first_sentence_ms=4.0)
            for number, outcome in zip(numbers, outcomes, strict=True)
        ]
        await asyncio.gather(*map(self.journal.write, ended))
        while await self.integrator.integrate(SYSTEM):
            pass
        return count if drawn else 0

    async def judge(self, request: str, decides: bool) -> None:
        facts = {"request": request, "score": 0.5, "decides": decides, "judge": "echo"}
        async with self.store.within(SYSTEM) as session:
            await note(session, "default", Kind.ANSWER_JUDGED, "system", facts)

    async def look(self) -> Any:
        """What the rollout has seen of the candidate, once it has seen everything."""
        while await self.integrator.integrate(SYSTEM):
            pass
        await self.rollouts.tick(SYSTEM)
        return (await self.rollouts.show(SYSTEM, "shop", "poc"))["arms"]["candidate"]

    async def route(self) -> Row:
        return (await self.all("select * from proveout.routes"))[0]

    async def all(self, sql: str) -> list[Row]:
        async with self.store.within(SYSTEM) as session:
            return list(await (await session._connection.execute(sql.encode())).fetchall())

    async def state(self) -> list[list[Row]]:
        """Everything that a controller may change."""
        tables = ("rollouts", "routes", "decisions order by rollout, number", "exposures order by unit", "tenures")
        told = [await self.all(f"select * from proveout.{table}") for table in tables]
        return [*told, await self.all("select id, kind, facts from proveout.events order by id")]


async def shop_of(dsn: str, work: Callable[[Shop], Awaitable[None]]) -> None:
    store = Store(dsn, size=6)
    await store.open()
    shop = Shop(store)
    await shop.open()
    task = asyncio.create_task(shop.journal.run())
    try:
        await work(shop)
    finally:
        task.cancel()
        await store.close()


def run(dsn: str, work: Callable[[Shop], Awaitable[None]]) -> None:
    asyncio.run(shop_of(dsn, work))


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
        await _together([shop.rollouts] * 3)
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
            await _together([shop.rollouts] * 4)
        decisions = (await shop.rollouts.show(SYSTEM, "shop", "poc"))["decisions"]
        assert [one["action"] for one in decisions] == ["promoted", "step", "start"]
        assert len(await shop.all("select * from proveout.tenures")) == 2

    run(dsn, work)


# -- whatever happens -----------------------------------------------------------------------------

numbers = st.sampled_from([1, 2, 3])
orders = st.sampled_from(["pause", "resume", "pause", "resume", "promote", "abort"])
DECIDED = """
    select state, count(*), max(number), (array_agg(action order by number desc))[1] as last
    from proveout.rollouts r join proveout.decisions d on d.rollout = r.id group by r.id"""
ENDS = {"promoted", "rolled_back", "aborted"}


def machine(dsn: str, loop: asyncio.AbstractEventLoop) -> type[RuleBasedStateMachine]:
    """The machine, over this database."""

    class Orders(RuleBasedStateMachine):
        @initialize()
        def begin(self) -> None:
            self.shop = Shop(Store(dsn, size=6))
            self.chance = random.Random(0)
            self.drawn = 0  # requests since the rollout began
            self.do(self.shop.store.open())
            self.do(self.shop.open())
            self.task = loop.create_task(self.shop.journal.run())
            self.start(2)

        def do(self, work: Any) -> Any:
            return loop.run_until_complete(work)

        def teardown(self) -> None:
            self.task.cancel()
            self.do(self.shop.store.close())

        @rule(number=numbers)
        def start(self, number: int) -> None:
            try:
                self.do(self.shop.rollouts.start(OPERATOR, self.shop.releases[number], "poc"))
                self.drawn = 0
            except Conflict:
                stable = self.do(self.shop.route())["stable"]
                assert number == stable or self.latest()["state"] not in ENDS

        @rule(order=orders)
        def order(self, order: Order) -> None:
            before = self.latest()
            try:
                self.do(self.shop.rollouts.order(OPERATOR, "shop", "poc", order))
            except (Conflict, NotFound):
                assert self.latest() == before
            else:
                assert before is not None and before["state"] not in ENDS

        @rule(number=numbers)
        def promote(self, number: int) -> None:
            before = self.latest()
            self.do(self.shop.routes.promote(OPERATOR, self.shop.releases[number], "poc"))
            assert self.do(self.shop.route())["stable"] == number
            if before is not None and before["state"] not in ENDS:
                ends = {before["stable"]: before["state"], before["release"]: "promoted"}
                assert self.latest()["state"] == ends.get(number, "aborted")

        @rule(to=st.sampled_from([None, 1, 2, 3]))
        def roll_back(self, to: int | None) -> None:
            before = self.latest()
            try:
                back = self.do(self.shop.routes.roll_back(OPERATOR, "shop", "poc", to, self.shop.releases))
            except Conflict:
                assert self.latest() == before
            else:
                assert self.do(self.shop.route())["stable"] == back.number
                assert before is None or before["state"] in ENDS or self.latest()["state"] == "rolled_back"

        @rule(count=st.sampled_from([5, 40, 100]), broken=st.booleans(), controllers=st.sampled_from([1, 1, 2, 3]))
        def serve(self, count: int, broken: bool, controllers: int) -> None:
            self.drawn += self.do(self.shop.serve(count, broken, self.chance))
            self.tick(controllers)

        @rule(controllers=st.sampled_from([1, 2]))
        def tick(self, controllers: int) -> None:
            before = self.latest()
            self.do(_together([self.shop.rollouts] * controllers))
            if before is not None and before["state"] not in ENDS:
                counted = sum(arm["calls"] for arm in self.latest()["progress"]["total"].values())
                assert counted == self.drawn  # each of them once

        @rule()
        def killed(self) -> None:
            mortal = Rollouts(self.shop.store, Mortal(self.shop.store, self.shop.gate), self.shop.directory)
            before = self.do(self.shop.state())
            try:
                self.do(mortal.tick(SYSTEM))
            except Killed:
                assert self.do(self.shop.state()) == before

        def latest(self) -> Any:
            rows = self.do(self.shop.all("select * from proveout.rollouts order by started desc limit 1"))
            return rows[0] if rows else None

        @invariant()
        def the_route_is_the_rollouts(self) -> None:
            rows = self.do(self.shop.all("select * from proveout.rollouts where ended is null"))
            route = self.do(self.shop.route())
            told = (route["candidate"], route["rollout"], route["weight"], route["salt"] is not None)
            assert [told] == [(r["release"], r["id"], r["weight"], True) for r in rows] or (
                not rows and told == (None, None, 0, False)
            )
            assert all(row["state"] not in ENDS and row["stable"] == route["stable"] for row in rows)
            for row in self.do(self.shop.all(DECIDED)):
                assert row["count"] == row["max"]
                assert row["state"] not in ENDS or row["last"] == row["state"]

    return Orders


async def _together(controllers: list[Rollouts]) -> None:
    await asyncio.gather(*(one.tick(SYSTEM) for one in controllers))


def test_whatever_happens_everything_is_done_once(dsn: str) -> None:
    loop = asyncio.new_event_loop()
    try:
        run_state_machine_as_test(
            machine(dsn, loop),
            settings=settings(
                max_examples=4, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
    finally:
        loop.close()


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
