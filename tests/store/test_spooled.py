"""The journal while the database is away: what it acknowledges is in the spool, and comes home in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import psycopg
import pytest

from proveout.domain import Outcome, Parameters, Scope
from proveout.errors import Unavailable
from proveout.ledger import journal as module
from proveout.ledger.journal import Completion, Intent, Journal, new_request_id, now
from proveout.ledger.spool import Spool
from proveout.store.pool import Store

SCOPE = Scope("default", "auditor")
KEY = bytes(range(32))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.1)


class Database:
    """The test's database, which can be taken away: renamed, so that nobody finds it."""

    def __init__(self, dsn: str, admin: str) -> None:
        self.name = urlsplit(dsn).path[1:]
        self._admin = admin

    def take_away(self) -> None:
        with psycopg.connect(self._admin, autocommit=True) as connection:
            connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [self.name])
            connection.execute(f"alter database {self.name} rename to {self.name}_away")

    def bring_back(self) -> None:
        with psycopg.connect(self._admin, autocommit=True) as connection:
            connection.execute(f"alter database {self.name}_away rename to {self.name}")


def intent(request: str) -> Intent:
    return Intent(request, "default", "key_1", "request", "echo", Parameters(), streamed=False, begun=now())


def completion(request: str) -> Completion:
    return Completion(request, "default", Outcome.ANSWERED, "", 3, 5, 1.5, now(), payload=b"sealed", subject="s")


def run(dsn: str, folder: Path, work: Callable[[Store, Journal], Awaitable[None]]) -> None:
    async def go() -> None:
        store = Store(dsn, size=3)
        await store.open()
        async with store.unscoped() as session:
            await session.run("workspaces.ensure", name="default", secret=b"k" * 32)
        journal = Journal(store, spool=Spool(folder, KEY))
        tasks = [asyncio.create_task(task) for task in (journal.run(), journal.adopt())]
        try:
            await work(store, journal)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await store.close()

    asyncio.run(go())


async def recorded(journal: Journal, requests: list[str]) -> None:
    for request in requests:
        for _ in range(10):
            with suppress(Unavailable):  # the pool holds connections from before
                row = await journal.get(SCOPE, request)
                break
        assert row["outcome"] == "answered"


def test_what_was_acknowledged_while_away_comes_home(dsn: str, postgres: str, tmp_path: Path) -> None:
    database, folder = Database(dsn, postgres), tmp_path / "spool"

    async def work(store: Store, journal: Journal) -> None:
        requests = [new_request_id() for _ in range(40)]
        for request in requests[:5]:
            await journal.write(intent(request))  # this half is there already
        await asyncio.to_thread(database.take_away)
        await asyncio.gather(*(journal.write(intent(request)) for request in requests[5:]))
        await asyncio.gather(*(journal.write(completion(request)) for request in requests))
        assert list(folder.glob("*.spool"))
        await asyncio.to_thread(database.bring_back)
        for _ in range(100):
            if not list(folder.glob("*.spool")):
                break
            await asyncio.sleep(0.05)
        await recorded(journal, requests)
        after = new_request_id()
        await journal.write(intent(after))
        await journal.write(completion(after))
        await recorded(journal, [after])
        assert not list(folder.glob("*"))

    run(dsn, folder, work)


def test_another_process_brings_home_what_a_dead_one_left(dsn: str, tmp_path: Path) -> None:
    folder, request = tmp_path / "spool", new_request_id()
    dead = Spool(folder, KEY)

    for entry in (intent(request), completion(request)):
        dead.append([msgspec.msgpack.encode((type(entry).__name__, entry))])
    dead.close()

    async def work(store: Store, journal: Journal) -> None:
        for _ in range(100):
            if not list(folder.glob("*.spool")):
                break
            await asyncio.sleep(0.05)
        await recorded(journal, [request])

    run(dsn, folder, work)


def test_after_a_while_nothing_new_is_begun_but_what_runs_may_end(
    dsn: str, postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AWAY_SECONDS", 0.5)
    database = Database(dsn, postgres)

    async def work(store: Store, journal: Journal) -> None:
        request = new_request_id()
        await asyncio.to_thread(database.take_away)
        await journal.write(intent(request))
        await asyncio.sleep(0.5)
        with pytest.raises(Unavailable, match="too long"):
            await journal.write(intent(new_request_id()))
        await journal.write(completion(request))
        await asyncio.to_thread(database.bring_back)
        for _ in range(100):
            if not list((tmp_path / "spool").glob("*.spool")):
                break
            await asyncio.sleep(0.05)
        await recorded(journal, [request])

    run(dsn, tmp_path / "spool", work)


def test_without_a_place_to_write_there_is_no_answer(dsn: str, postgres: str, tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("in the way")
    database = Database(dsn, postgres)

    async def work(store: Store, journal: Journal) -> None:
        await asyncio.to_thread(database.take_away)
        with pytest.raises(Unavailable):
            await journal.write(intent(new_request_id()))
        await asyncio.to_thread(database.bring_back)
        await asyncio.sleep(0.3)
        await journal.write(intent(new_request_id()))

    run(dsn, tmp_path / "spool", work)
