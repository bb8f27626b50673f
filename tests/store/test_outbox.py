"""The outbox over a real log: at least once, in order, under one id, whoever dies and whoever else is at it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import ParamSpec, TypeVar

import psycopg
import pytest

from bases import Bases
from proveout.access.rights import ROLES
from proveout.configfile import TOPICS, Topic
from proveout.domain import (
    Key,
    Manifest,
    ModelChoice,
    ModelUse,
    Parameters,
    Principal,
    PromptTexts,
    Release,
    Scope,
)
from proveout.edge.notify.messages import Notification
from proveout.edge.notify.outbox import Outbox, states
from proveout.edge.notify.targets import Target, Undelivered
from proveout.errors import NotFound
from proveout.jobs.runtime import Steps
from proveout.ledger.integrate import Integrator, LogKeys
from proveout.releases.create import Sync
from proveout.releases.gate import Gate
from proveout.releases.policy import read_policy
from proveout.releases.routes import Routes
from proveout.store.events import Kind, note
from proveout.store.followers import Patience
from proveout.store.pool import Session, Store
from proveout.store.sealing import Keyring

P = ParamSpec("P")
T = TypeVar("T")
SYSTEM = Scope.system("default", "notifications")
QUICK = Patience(first=0.01, most=0.02)
Hook = Callable[[Notification], Awaitable[None]]


class Killed(BaseException):
    """What happens to a process between sending and writing down that it has."""


async def _take(_: Notification) -> None:
    return None


@dataclass
class Channel:
    """Takes notifications; `hook` runs after one has come."""

    name: str = "channel"
    hook: Hook = _take
    came: list[Notification] = field(default_factory=list)

    async def send(self, given: Notification) -> None:
        self.came.append(given)
        await self.hook(given)

    @property
    def told(self) -> list[str]:
        """About which knowledge, in the order in which it came."""
        return [str(given.facts["knowledge"]) for given in self.came]


class World:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.integrator = Integrator(store, LogKeys(Keyring(bytes(32)), "proveout.example"))

    def outbox(self, channel: Channel, patience: Patience = QUICK, on: frozenset[Topic] = frozenset(TOPICS)) -> Outbox:
        return Outbox(self.store, Target(channel, on, None), str, patience=patience)

    async def begin(self, *outboxes: Outbox) -> None:
        for outbox in outboxes:
            assert not await outbox.turn(SYSTEM)

    async def happen(self, *names: str) -> None:
        for name in names:
            async with self.store.within(SYSTEM) as session:
                await sync_failed(session, name)
        await self.integrate()

    async def integrate(self) -> None:
        while await self.integrator.integrate(SYSTEM):
            pass

    async def end_lease(self) -> None:
        """As if so much time had passed that whoever was sending must be dead."""
        async with self.store.within(SYSTEM) as session:
            await session._connection.execute("update proveout.followers set due = now()")

    async def events(self, kind: Kind) -> list[dict[str, object]]:
        async with self.store.within(SYSTEM) as session:
            query = "select facts from proveout.events where kind = %s order by id"
            cursor = await session._connection.execute(query, (kind.value,))
            return [row["facts"] for row in await cursor.fetchall()]


async def sync_failed(session: Session, name: str) -> None:
    await note(session, "default", Kind.SYNC_FAILED, "system", {"knowledge": name, "message": "Why."})


def release(number: int) -> Release:
    model = (ModelChoice(ModelUse("echo", "")),)
    manifest = Manifest("desk", model, (), Parameters(), PromptTexts("", "{{ question }}"), (), "quote")
    return Release("default", "desk", number, f"sha256:{number}", manifest, {}, datetime.now(UTC))


def run(dsn: str, work: Callable[[World], Awaitable[None]]) -> None:
    async def go() -> None:
        store = Store(dsn, size=6)
        await store.open()
        try:
            async with store.unscoped() as session:
                await session.run("workspaces.ensure", name="default", secret=b"k" * 32)
            await work(World(store))
        finally:
            await store.close()

    asyncio.run(go())


async def drain(outbox: Outbox, channel: Channel, count: int) -> None:
    """Turns until so many have come, and for a moment longer."""
    async with asyncio.timeout(15):
        while len(channel.came) < count:
            await outbox.turn(SYSTEM)
            await asyncio.sleep(0.005)
    for _ in range(5):
        await outbox.turn(SYSTEM)
        await asyncio.sleep(0.005)


def test_in_order_and_nothing_from_before_the_target_was_there(dsn: str) -> None:
    async def work(world: World) -> None:
        channel = Channel()
        outbox = world.outbox(channel)
        await world.happen("before")
        async with world.store.within(SYSTEM) as session:
            await sync_failed(session, "not in the log yet")
        await world.begin(outbox)
        await world.happen("a", "b", "c")
        await drain(outbox, channel, 3)
        assert channel.told == ["a", "b", "c"] and len({given.id for given in channel.came}) == 3

    run(dsn, work)


def test_what_is_committed_late_is_told_all_the_same(dsn: str) -> None:
    async def work(world: World) -> None:
        channel = Channel()
        outbox = world.outbox(channel)
        await world.begin(outbox)
        async with world.store.within(SYSTEM) as late:
            await sync_failed(late, "late")
            await world.happen("early")  # with a higher number than the one that is not committed
            await drain(outbox, channel, 1)
            assert channel.told == ["early"]  # and nothing that might still be rolled back
        await world.happen()
        await drain(outbox, channel, 2)
        assert channel.told == ["early", "late"]

    run(dsn, work)


def test_a_target_that_fails_is_tried_again_and_holds_up_no_other(dsn: str) -> None:
    async def work(world: World) -> None:
        async def fail(_: Notification) -> None:
            if len(dead.came) < 4:
                raise Undelivered("it answered 500")

        dead, well = Channel("dead", fail), Channel("well")
        outboxes = world.outbox(dead), world.outbox(well)
        await world.begin(*outboxes)
        await world.happen("a", "b")
        await outboxes[0].turn(SYSTEM)
        found = {state["name"]: state for state in await states(world.store, SYSTEM, [o.target for o in outboxes])}
        assert (
            found["dead"]["waiting"] == 2 and found["dead"]["error"] == "it answered 500" and found["dead"]["failing"]
        )
        await drain(outboxes[1], well, 2)
        assert well.told == ["a", "b"] and len(dead.came) == 1
        await drain(outboxes[0], dead, 5)
        assert dead.told == ["a", "a", "a", "a", "b"] and len({given.id for given in dead.came}) == 2
        (found["dead"],) = await states(world.store, SYSTEM, [outboxes[0].target])
        assert not found["dead"]["waiting"] and not found["dead"]["error"] and found["dead"]["failing"] is None
        assert found["dead"]["sent"] and not await world.events(Kind.NOTIFICATION_FAILED)

    run(dsn, work)


def test_who_dies_before_it_is_written_down_is_followed_by_the_same_id(dsn: str) -> None:
    async def work(world: World) -> None:
        async def die(_: Notification) -> None:
            raise Killed

        first, second = Channel(hook=die), Channel()
        await world.begin(world.outbox(first))
        await world.happen("a")
        with suppress(Killed):
            await world.outbox(first).turn(SYSTEM)
        successor = world.outbox(second)
        assert not await successor.turn(SYSTEM)  # while the first may still be at it
        await world.end_lease()
        await drain(successor, second, 1)
        assert [given.id for given in first.came] == [given.id for given in second.came]

    run(dsn, work)


def test_what_was_taken_is_not_sent_again_though_the_database_was_away(dsn: str) -> None:
    async def work(world: World) -> None:
        async def lose(_: Notification) -> None:
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("alter table proveout.followers rename to gone")

        channel = Channel(hook=lose)
        outbox = world.outbox(channel)
        await world.begin(outbox)
        await world.happen("a")
        with pytest.raises(psycopg.Error):
            await outbox.turn(SYSTEM)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("alter table proveout.gone rename to followers")
        channel.hook = _take
        await world.happen("b")
        await world.end_lease()
        await drain(outbox, channel, 2)
        assert channel.told == ["a", "b"]

    run(dsn, work)


def test_of_two_workers_one_sends(dsn: str) -> None:
    async def work(world: World) -> None:
        async def slowly(_: Notification) -> None:
            await asyncio.sleep(0.01)

        channel = Channel(hook=slowly)
        await world.begin(world.outbox(channel))
        await world.happen(*map(str, range(12)))
        workers = [world.outbox(channel) for _ in range(3)]

        async def turns(outbox: Outbox) -> None:
            for _ in range(40):
                await outbox.turn(SYSTEM)
                await asyncio.sleep(0.002)

        await asyncio.gather(*map(turns, workers))
        assert channel.told == [str(number) for number in range(12)]

    run(dsn, work)


def test_what_is_given_up_is_on_record_and_the_next_has_its_turn(dsn: str) -> None:
    async def work(world: World) -> None:
        async def refuse(given: Notification) -> None:
            if given.facts["knowledge"] == "bad":
                raise Undelivered("it answered 422", refused=True)

        channel = Channel(hook=refuse)
        outbox = world.outbox(channel)
        await world.begin(outbox)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("update proveout.followers set since = now() - interval '3 days'")
        await world.happen("old", "bad", "good")
        with psycopg.connect(dsn, autocommit=True) as connection:
            old = "update proveout.events set at = at - interval '25 hours' where facts ->> 'knowledge' = 'old'"
            connection.execute(old)
        await drain(outbox, channel, 4)
        assert channel.told == ["bad", "bad", "bad", "good"]
        late, bad = await world.events(Kind.NOTIFICATION_FAILED)
        assert late["error"] == "it could not be sent in time" and bad["error"] == "it answered 422"
        assert bad["target"] == "channel" and bad["notification"] == channel.came[0].id and bad["attempts"] == 3

    run(dsn, work)


def test_a_rollback_by_hand_is_told_with_its_promotions_before(dsn: str) -> None:
    async def work(world: World) -> None:
        routes = Routes(world.store, Gate(read_policy(None), LogKeys(Keyring(bytes(32)), "proveout.example")))
        owner = Principal(Key("key_1", "ada", "default", "owner"), ROLES["owner"])
        releases = {number: release(number) for number in (1, 2)}
        with psycopg.connect(dsn, autocommit=True) as connection:
            insert = (
                "insert into proveout.releases (workspace, app, number, digest, manifest) values (%s, %s, %s, %s, '{}')"
            )
            for one in releases.values():
                connection.execute(insert, (one.workspace, one.app, one.number, one.digest))
        channel = Channel()
        outbox = world.outbox(channel)
        await world.begin(outbox)
        for one in releases.values():
            await routes.promote(owner, one, "poc")
        await routes.roll_back(owner, "desk", "poc", None, releases)
        await world.integrate()
        await drain(outbox, channel, 1)
        (given,) = channel.came  # what enters poc is nobody's news, what leaves it is
        assert (given.type, given.app, given.stage) == ("rollback", "desk", "poc")
        assert given.title == "desk@2 was rolled back in poc" and "desk@1 serves poc again" in given.text

    run(dsn, work)


class InPlace(Steps):
    async def run(self, name: str, step: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        return await step(*args, **kwargs)


def test_a_sync_that_fails_is_told(dsn: str) -> None:
    async def work(world: World) -> None:
        bases = Bases(world.store, Keyring(bytes(32)))
        channel = Channel()
        outbox = world.outbox(channel)
        await world.begin(outbox)
        with pytest.raises(NotFound):
            await Sync(world.store, bases.keyring, bases.ingester)(InPlace(SYSTEM), "bundle_gone", "handbook")
        await world.integrate()
        await drain(outbox, channel, 1)
        assert channel.came[0].title == "The sync of the knowledge handbook failed"
        assert "The uploaded app folder is gone" in channel.came[0].text

    run(dsn, work)


def test_what_nobody_is_told_of_is_passed_over(dsn: str) -> None:
    async def work(world: World) -> None:
        channel = Channel()
        outbox = world.outbox(channel, on=frozenset({"rollback"}))
        await world.begin(outbox)
        await world.happen("a", "b")
        await drain(outbox, channel, 0)
        async with world.store.within(SYSTEM) as session:
            (row,) = await session.fetch("followers.list", names=["channel"])
        assert not channel.came and row["position"] == 1

    run(dsn, work)


def test_pauses_double_up_to_a_bound() -> None:
    patience = Patience()
    for attempts, most in ((1, 2), (2, 4), (5, 32), (40, 900), (5000, 900)):
        waits = [patience.after(attempts) for _ in range(50)]
        assert most / 2 <= min(waits) <= max(waits) <= most and max(waits) > min(waits)
    assert timedelta(seconds=patience.total) == timedelta(days=1)
