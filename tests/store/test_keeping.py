"""Keys are rotated, records expire and holds keep them: what is sealed opens all the while, the log stays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from proveout.domain import Outcome, Parameters, Scope
from proveout.errors import Conflict, NotFound
from proveout.jobs.runtime import Steps
from proveout.ledger import rotate as module
from proveout.ledger.erase import Erase, pseudonyms
from proveout.ledger.holds import Holds
from proveout.ledger.integrate import Integrator, LogKeys
from proveout.ledger.journal import Completion, Intent, new_request_id, now
from proveout.ledger.retention import expire
from proveout.ledger.rotate import Rotate
from proveout.settings import RetentionSettings
from proveout.store.pool import Session, Store, as_json
from proveout.store.sealing import Keyring, Unsealable, new_master_key, read_master_keys, write_master_keys

SCOPE = Scope("default", "tester")
SYSTEM = Scope.system("default", "test")
OWNERS = [f"s{number}" for number in range(13)]


class Once:
    """Steps that run at once and remember nothing, as after a crash before anything was remembered."""

    scope = SYSTEM

    async def run(self, _: str, step: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        return await step(*args)


ONCE = cast(Steps, Once())


class Killed(Exception):
    """The process that rotated is no more."""


@pytest.fixture
def master(tmp_path: Path) -> Path:
    write_master_keys(tmp_path / "master.key", [new_master_key()])
    return tmp_path / "master.key"


def keyring(master: Path) -> Keyring:
    return Keyring(partial(read_master_keys, None, None, master))


@pytest.fixture
def opened(dsn: str) -> Iterator[Callable[[Callable[[Store], Awaitable[None]]], None]]:
    with psycopg.connect(dsn) as connection:
        connection.execute("insert into proveout.workspaces (name, secret) values ('default', 'x')")

    def run(work: Callable[[Store], Awaitable[None]]) -> None:
        async def go() -> None:
            store = Store(dsn, size=4)
            await store.open()
            try:
                await work(store)
            finally:
                await store.close()

        asyncio.run(go())

    yield run


def system(workspace: str) -> Scope:
    return Scope.system(workspace, "test")


async def all_keys(store: Store, ring: Keyring) -> list[bytes]:
    async with store.within(SCOPE) as session:
        return await ring.keys(session, "default", "subject", OWNERS)


class Dying(Once):
    """Steps that end before one of them, counted from 1."""

    def __init__(self, last: int) -> None:
        self.left = last

    async def run(self, name: str, step: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            raise Killed
        return await super().run(name, step, *args)


class DyingRing(Keyring):
    """A keyring whose process ends before one of the batches, counted from 1."""

    left = 2

    async def rewrap(self, session: Session, workspace: str, version: int, limit: int) -> int:
        self.left -= 1
        if self.left == 0:
            raise Killed
        return await super().rewrap(session, workspace, version, limit)


@pytest.mark.parametrize("level", ["workspace", "master"])
def test_every_key_opens_at_every_step_of_a_rotation_that_is_killed(
    dsn: str, master: Path, opened: Callable[..., None], level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each step in turn, then done again; processes that run know only what they read at first."""
    monkeypatch.setattr(module, "_BATCH", 5)
    first = read_master_keys(None, None, master)

    async def work(store: Store) -> None:
        before, running = await all_keys(store, keyring(master)), keyring(master)
        async with store.within(SCOPE) as session:
            name = await running.pseudonym(session, "default", "user:ann")
        deaths: list[tuple[Steps, Keyring]] = [(cast(Steps, Dying(last)), keyring(master)) for last in range(1, 5)]
        if level == "workspace":
            deaths.append((ONCE, DyingRing(partial(read_master_keys, None, None, master))))
        for steps, ring in deaths:
            with pytest.raises(Killed):
                await Rotate(store, ring, dsn, master, system)(steps, "key_1", level)
            assert await all_keys(store, running) == before
            assert await all_keys(store, keyring(master)) == before  # of a process that starts now
        done = await Rotate(store, keyring(master), dsn, master, system)(ONCE, "key_1", level)
        assert done["not_purged"] == [] and done["rewrapped"] == (len(OWNERS) - 5 if level == "workspace" else 1)
        assert await all_keys(store, running) == await all_keys(store, keyring(master)) == before
        async with store.within(SCOPE) as session:
            assert await running.pseudonym(session, "default", "user:ann") == name
            versions = [row["version"] for row in await session.fetch("sealing.versions", workspace="default")]
            assert versions[0] == 1 and len(versions) == (2 if level == "workspace" else 1)  # none between
            assert not await session.fetch("sealing.older", workspace="default", version=versions[-1], limit=1)
        if level == "master":
            assert len(read_master_keys(None, None, master)) == 1
            with pytest.raises(Unsealable):
                await all_keys(store, Keyring(first[0]))

    opened(work)


def test_a_master_key_of_the_environment_is_exchanged_by_its_operator(dsn: str, opened: Callable[..., None]) -> None:
    """Both are given first, the new one before the old one; then the job; then the old one is taken away."""
    old, new = new_master_key(), new_master_key()

    async def work(store: Store) -> None:
        before = await all_keys(store, Keyring(old))
        running = Keyring(lambda: [new, old])
        assert (await Rotate(store, running, dsn, None, system)(ONCE, "key_1", "master"))["rewrapped"] == 1
        assert (await Rotate(store, running, dsn, None, system)(ONCE, "key_1", "master"))["rewrapped"] == 0
        assert await all_keys(store, running) == await all_keys(store, Keyring(new)) == before
        with pytest.raises(Unsealable):
            await all_keys(store, Keyring(old))

    opened(work)


def test_keys_that_are_made_while_a_workspace_rotates_are_wrapped_by_the_new_one(
    dsn: str, master: Path, opened: Callable[..., None]
) -> None:
    async def work(store: Store) -> None:
        running = keyring(master)
        async with store.within(SCOPE) as session:
            await running.workspace(session, "default")
        async with store.within(SCOPE) as session:
            first = await running.key(session, "default", "subject", "first")
            rotating = asyncio.create_task(
                Rotate(store, keyring(master), dsn, master, system)(ONCE, "key_1", "workspace")
            )
            await asyncio.sleep(0.3)
            assert not rotating.done(), "what is made under the old key, and not committed, would be left behind"
        await rotating
        async with store.within(SCOPE) as session:
            assert not await session.fetch("sealing.older", workspace="default", version=2, limit=1)
            second = await running.key(session, "default", "subject", "second")  # it knows only the old key yet
        async with store.within(SCOPE) as session:
            assert not await session.fetch("sealing.older", workspace="default", version=2, limit=1)
            assert await keyring(master).keys(session, "default", "subject", ["first", "second"]) == [first, second]

    opened(work)


def request_of(subject: str, app: str | None) -> tuple[Intent, Completion]:
    number = new_request_id()
    intent = Intent(number, "default", "key_1", "request", "echo", Parameters(), streamed=False, begun=now(), app=app)
    end = Completion(number, "default", Outcome.ANSWERED, "", 1, 1, 1.0, now(), payload=b"sealed", subject=subject)
    return intent, end


def aged(dsn: str, days: int) -> None:
    with psycopg.connect(dsn) as connection:
        for column in ("payloads set at", "events set at", "intents set begun"):
            connection.execute(f"update proveout.{column} = now() - interval '{days} days'".encode())


def counted(dsn: str) -> dict[str, int]:
    queries = {
        "payloads": "select count(*) from proveout.payloads",
        "requests": "select count(*) from proveout.intents",
        "records": "select count(*) from proveout.events where request is not null and record is not null",
        "entries": "select count(*) from proveout.events where request is not null",
    }
    with psycopg.connect(dsn) as connection:
        return {name: connection.execute(query.encode()).fetchall()[0][0] for name, query in queries.items()}


def test_records_expire_by_class_and_holds_keep_them(dsn: str, master: Path, opened: Callable[..., None]) -> None:
    async def work(store: Store) -> None:
        ring = keyring(master)
        holds, erase = Holds(store, ring), Erase(store, dsn)
        ann = await pseudonyms(store, ring, SCOPE, "ann")
        bob = await pseudonyms(store, ring, SCOPE, "bob")
        for subject, app in ((ann[0], "helpdesk"), (bob[0], "helpdesk"), (bob[0], "drafting"), ("eve", None)):
            intent, end = request_of(subject, app)
            await store.run_alone("ledger.record", intents=as_json([intent]), completions=as_json([end]))
        integrator = Integrator(store, LogKeys(ring, "proveout.example"))
        held = await holds.place(SCOPE, "key_1", "ann", None, "the case of Ann")
        while await integrator.integrate(SYSTEM):
            pass
        aged(dsn, 10)
        assert await expire(store, SYSTEM, RetentionSettings(payloads=11)) == {"payloads": 0}
        assert await expire(store, SCOPE, RetentionSettings(payloads=9)) == {"payloads": 0}  # no ordinary scope
        assert counted(dsn) == {"payloads": 4, "requests": 4, "records": 8, "entries": 8}

        assert await expire(store, SYSTEM, RetentionSettings(payloads=9)) == {"payloads": 3}
        by_app = await holds.place(SCOPE, "key_1", None, "drafting", "an audit")
        gone = await expire(store, SYSTEM, RetentionSettings(payloads=9, requests=9, evaluations=9, events=9))
        assert gone["requests"] == 2  # Bob's of the helpdesk, and Eve's
        assert counted(dsn) == {"payloads": 1, "requests": 2, "records": 4, "entries": 8}

        shown = await holds.standing(SCOPE)
        assert [(h.id, h.subject, h.app, h.reason) for h in shown] == [
            (held, "ann", None, "the case of Ann"),
            (by_app, None, "drafting", "an audit"),
        ]
        for subjects, hold in ((ann, held), (bob, by_app)):
            with pytest.raises(Conflict, match=hold):
                await erase(ONCE, "key_1", *subjects)
        assert counted(dsn)["payloads"] == 1
        await holds.lift(SCOPE, "key_1", held)
        with pytest.raises(NotFound):
            await holds.lift(SCOPE, "key_1", held)
        assert (await erase(ONCE, "key_1", *ann))["payloads"] == 1
        while await integrator.integrate(SYSTEM):
            pass
        with psycopg.connect(dsn) as connection:
            kinds = {kind for (kind,) in connection.execute("select kind from proveout.events").fetchall()}
            clear = connection.execute("select string_agg(h::text, '') from proveout.holds h").fetchall()[0][0]
        assert {"ledger:hold:placed", "ledger:hold:lifted", "ledger:records:expired"} <= kinds
        assert "audit" not in clear

    opened(work)
