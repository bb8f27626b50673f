"""The journal: durable when it returns, in shared batches, each entry answering only for itself."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable

import msgspec
import psycopg
import pytest

from proveout.domain import Message, Outcome, Parameters, Scope
from proveout.errors import NotFound, Unavailable
from proveout.ledger.decision import Check, Decision
from proveout.ledger.journal import Completion, Intent, Journal, new_request_id, now
from proveout.ledger.payloads import Payload, Payloads
from proveout.store.pool import Store
from proveout.store.sealing import Keyring, Unsealable, unseal

SCOPE = Scope("default", "service")


def intent(request: str, model: str = "echo") -> Intent:
    return Intent(request, "default", "key_1", "request", model, Parameters(), streamed=False, begun=now())


def completion(request: str) -> Completion:
    return Completion(request, "default", Outcome.ANSWERED, "", 3, 5, 1.5, now(), documents=("a.md",))


def run(dsn: str, work: Callable[[Store, Journal], Awaitable[None]]) -> None:
    async def go() -> None:
        store = Store(dsn, size=3)
        await store.open()
        async with store.unscoped() as session:
            await session.run("workspaces.ensure", name="default", secret=b"k" * 32)
        journal = Journal(store)
        task = asyncio.create_task(journal.run())
        try:
            await work(store, journal)
        finally:
            task.cancel()
            await store.close()

    asyncio.run(go())


def test_what_an_older_gateway_writes_is_taken(dsn: str) -> None:
    """While machines are brought up to date one after the other, entries come without the newest columns."""

    async def work(store: Store, journal: Journal) -> None:
        request = new_request_id()
        begun = msgspec.to_builtins(intent(request)) | {"writer": "old"}
        ended = msgspec.to_builtins(completion(request))
        for name in ("arm", "weight", "unit"):
            begun.pop(name, None)
        ended.pop("decision")
        with psycopg.connect(dsn) as connection:
            given = [msgspec.json.encode([row]).decode() for row in (begun, ended)]
            connection.execute("set search_path to proveout, public")
            connection.execute("select record_v1(%s, %s)", given)
        found = await journal.get(SCOPE, request)
        assert (found["arm"], found["weight"], found["decision"]) == ("stable", None, None)
        decision = Decision("i", "o", captured=True, verdicts=(Check("secrets", "mask", "key", 1.0),))
        await journal.write(intent(new := new_request_id()))
        await journal.write(dataclasses.replace(completion(new), decision=decision))
        assert (await journal.get(SCOPE, new))["decision"] == msgspec.json.decode(msgspec.json.encode(decision))

    run(dsn, work)


def test_what_was_written_is_there_when_the_call_returns(dsn: str) -> None:
    async def work(store: Store, journal: Journal) -> None:
        requests = [new_request_id() for _ in range(300)]
        await asyncio.gather(*(journal.write(intent(r)) for r in requests))
        await asyncio.gather(*(journal.write(completion(r)) for r in requests))
        with psycopg.connect(dsn) as connection:  # another connection: what it sees was committed
            row = connection.execute(
                "select count(*), count(distinct xmin::text) from proveout.completions where documents = '{a.md}'"
            ).fetchone()
        assert row is not None and row[0] == 300 and row[1] < 20  # few transactions for many writers
        found = await journal.get(SCOPE, requests[7])
        assert (found["outcome"], found["prompt_tokens"], found["completion_tokens"]) == ("answered", 3, 5)
        with pytest.raises(NotFound):
            await journal.get(Scope("other", "service"), requests[7])

    run(dsn, work)


def test_an_entry_that_cannot_be_written_costs_only_itself(dsn: str) -> None:
    async def work(store: Store, journal: Journal) -> None:
        requests = [new_request_id() for _ in range(9)]
        entries = [intent(r) for r in requests]
        entries[4] = dataclasses.replace(entries[4], model="nul \0 in it")  # jsonb has no such character
        ends = await asyncio.gather(*(journal.write(e) for e in entries), return_exceptions=True)
        assert isinstance(ends.pop(4), Unavailable) and ends == [None] * 8
        assert (await journal.get(SCOPE, requests[8]))["model"] == "echo"

    run(dsn, work)


def test_the_first_completion_stands(dsn: str) -> None:
    """A batch whose commit was not heard of is written again: that must change nothing."""

    async def work(store: Store, journal: Journal) -> None:
        request = new_request_id()
        await journal.write(intent(request))
        await journal.write(completion(request))
        await journal.write(dataclasses.replace(completion(request), completion_tokens=99))
        assert (await journal.get(SCOPE, request))["completion_tokens"] == 5

    run(dsn, work)


def test_writers_wait_while_the_database_restarts(dsn: str) -> None:
    async def work(store: Store, journal: Journal) -> None:
        requests = [new_request_id() for _ in range(20)]
        await journal.write(intent(requests[0]))
        with psycopg.connect(dsn, autocommit=True) as connection:
            writes = [asyncio.create_task(journal.write(intent(r))) for r in requests]
            await asyncio.sleep(0)
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where pid <> pg_backend_pid() and datname = current_database()"
            )
            assert await asyncio.gather(*writes) == [None] * 20
            row = connection.execute("select count(*) from proveout.intents").fetchone()
        assert row == (20,)

    run(dsn, work)


def test_a_payload_opens_only_as_that_of_its_request(dsn: str) -> None:
    async def work(store: Store, journal: Journal) -> None:
        keyring = Keyring(b"m" * 32)
        payloads = Payloads(store, keyring, lambda: 1)
        request = new_request_id()
        payload = Payload((Message("user", "a secret question"),), "a secret answer")
        sealed = await payloads.seal(SCOPE, "key_1", request, payload)
        await journal.write(intent(request))
        await journal.write(dataclasses.replace(completion(request), subject="key_1", payload=sealed))
        with psycopg.connect(dsn) as connection:
            row = connection.execute("select sealed from proveout.payloads").fetchone()
        assert row is not None and bytes(row[0]) == sealed and b"secret" not in sealed
        async with store.within(SCOPE) as session:
            key = await keyring.key(session, "default", "subject", await payloads.subject(SCOPE, "key_1"))
        opened = msgspec.msgpack.decode(unseal(key, sealed, f"payload {request}"), type=Payload)
        assert opened.answer == "a secret answer"
        with pytest.raises(Unsealable):
            unseal(key, sealed, "payload of another")

    run(dsn, work)
