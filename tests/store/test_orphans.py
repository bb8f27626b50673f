"""What a dead process left open ends as unknown, and gives way to the true end when a spool brings it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import psycopg
import pytest

from proveout.domain import Outcome, Parameters, Scope
from proveout.ledger import journal as module
from proveout.ledger.journal import Completion, Intent, Journal, new_request_id, now
from proveout.store.pool import Store

SCOPE = Scope("default", "auditor")


def test_what_a_dead_process_left_open_is_unknown(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LIVE_SECONDS", 0.05)

    async def go() -> None:
        store = Store(dsn, size=3)
        await store.open()
        async with store.unscoped() as session:
            await session.run("workspaces.ensure", name="default", secret=b"k" * 32)
        dead, alive = Journal(store), Journal(store)
        requests = [new_request_id() for _ in range(3)]
        runs = [asyncio.create_task(j.run()) for j in (dead, alive)]
        lives = [asyncio.create_task(j.live()) for j in (dead, alive)]
        for journal, request in zip((dead, dead, alive), requests, strict=True):
            await journal.write(
                Intent(request, "default", "key_1", "request", "echo", Parameters(), streamed=False, begun=now())
            )
        end = Completion(requests[0], "default", Outcome.ANSWERED, "", 3, 5, 1.5, now())
        await dead.write(end)
        await asyncio.sleep(0.2)
        lives[0].cancel()
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(
                "update proveout.writers set seen = now() - interval '1 minute' where id = %s", [dead._writer]
            )
        for _ in range(100):
            if (await alive.get(SCOPE, requests[1]))["outcome"] is not None:
                break
            await asyncio.sleep(0.05)
        outcomes = [(await alive.get(SCOPE, request))["outcome"] for request in requests]
        assert outcomes == ["answered", "unknown", None]
        await alive.write(replace(end, request=requests[1]))  # its completion was in a spool
        assert (await alive.get(SCOPE, requests[1]))["outcome"] == "answered"
        for task in (*runs, *lives):
            task.cancel()
        await asyncio.wait([*runs, *lives])
        await store.close()

    asyncio.run(go())
