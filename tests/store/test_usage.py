"""What the journal tells of use, load and cost: right to the cent and the percentile, of one workspace alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from proveout.domain import Outcome, Parameters, Scope
from proveout.ledger import report
from proveout.ledger.decision import Check, Decision
from proveout.ledger.journal import Completion, Filter, Intent, Journal
from proveout.store.pool import Store

SCOPE = Scope("one", "ann")
SINCE = datetime(2026, 11, 21, tzinfo=UTC)
DAY = timedelta(days=1)


async def record(journal: Journal, number: int, outcome: Outcome | None = Outcome.ANSWERED, **more: Any) -> str:
    """Writes a request: begun `more["at"]` after SINCE, of `more["workspace"]`, and so on."""
    request, workspace = f"req_{number:032x}", more.pop("workspace", "one")
    begun = SINCE + more.pop("at", timedelta(0))
    purpose, app, key = more.pop("purpose", "request"), more.pop("app", "desk"), more.pop("key", "key_1")
    intent = Intent(request, workspace, key, purpose, "m/first", Parameters(), streamed=False, begun=begun, app=app)
    await journal.write(replace(intent, release=more.pop("release", None)))
    if outcome is not None:
        used: dict[str, Any] = {"prompt_tokens": 100, "completion_tokens": 10, "total_ms": 50.0, "cost_usd": 0.25}
        used |= {"model": "m/first"} | more
        await journal.write(Completion(request, workspace, outcome, "", ended=begun, **used))
    return request


def run(dsn: str, work: Callable[[Store, Journal], Awaitable[None]]) -> None:
    async def go() -> None:
        store = Store(dsn, size=3)
        await store.open()
        async with store.unscoped() as session:
            for name in ("one", "two"):
                await session.run("workspaces.ensure", name=name, secret=b"k" * 32)
        journal = Journal(store)
        task = asyncio.create_task(journal.run())
        try:
            await record(journal, 1, at=-DAY)  # before the time that is looked at
            await record(journal, 2, total_ms=10.0)
            await record(journal, 3, total_ms=30.0, at=DAY, key="key_2")
            await record(journal, 4, Outcome.FAILED, app=None, model="m/second", cost_usd=None, total_ms=999.0, at=DAY)
            await record(journal, 5, purpose="evaluation", app="other", cost_usd=1.0, at=DAY)
            await record(journal, 6, None, at=DAY)
            await record(journal, 7, workspace="two")
            await work(store, journal)
        finally:
            task.cancel()
            await store.close()

    asyncio.run(go())


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("app", [("other", 1, 1.0, 0), ("desk", 2, 0.5, 0), (None, 1, 0.0, 1)]),
        ("model", [("m/first", 3, 1.5, 0), ("m/second", 1, 0.0, 1)]),
        ("day", [("2026-11-22", 3, 1.25, 1), ("2026-11-21", 1, 0.25, 0)]),
        ("key", [("key_1", 3, 1.25, 1), ("key_2", 1, 0.25, 0)]),
    ],
)
def test_costs(dsn: str, by: report.By, expected: list[tuple[str | None, int, float, int]]) -> None:
    async def work(store: Store, journal: Journal) -> None:
        found = await report.costs(store, SCOPE, by, SINCE)
        assert [(c.name, c.requests, c.cost_usd, c.unpriced) for c in found] == expected
        assert report.total(found) == report.Cost(None, 4, 400, 40, 1.5, 1)

    run(dsn, work)


def test_load_counts_users_requests_in_windows(dsn: str) -> None:
    async def work(store: Store, journal: Journal) -> None:
        load = await report.load(store, SCOPE, SINCE, DAY, 3)
        assert [(w.begins, w.requests, w.answered, w.failed, w.others) for w in load.windows] == [
            (SINCE, 1, 1, 0, 0),
            (SINCE + DAY, 3, 1, 1, 1),
            (SINCE + 2 * DAY, 0, 0, 0, 0),
        ]
        assert [w.p50_ms for w in load.windows] == [10, 30, None]
        assert (load.whole.requests, load.whole.p50_ms, load.whole.p95_ms) == (4, 20, 29)
        nothing = await report.load(store, Scope("three", "eve"), SINCE, DAY, 2)
        assert (nothing.whole.requests, nothing.whole.p50_ms) == (0, None)
        models = await report.models(store, SCOPE, SINCE)
        assert {name: (m["requests"], m["failed"]) for name, m in models.items()} == {
            "m/first": (3, 0),
            "m/second": (1, 1),
        }

    run(dsn, work)


def test_requests_are_looked_for(dsn: str) -> None:
    async def work(store: Store, journal: Journal) -> None:
        async def numbers(**looked_for: Any) -> set[int]:
            before = looked_for.pop("before", None)
            found = await journal.newest(SCOPE, 10, Filter(**looked_for), before=before)
            return {int(row["request"][4:], 16) for row in found}

        assert await numbers() == {1, 2, 3, 4, 5, 6}
        assert await numbers(app="desk") == {1, 2, 3, 6}
        assert await numbers(outcome=Outcome.FAILED) == {4}
        assert await numbers(outcome="open") == {6}
        assert await numbers(before=SINCE + DAY) == {1, 2}
        assert await numbers(since=SINCE + DAY, outcome="open") == {6}
        assert await numbers(until=SINCE + DAY) == {1, 2}
        said = Decision("", "", captured=False, verdicts=[Check("groundedness", "block", "no source", 0.1)])
        await record(journal, 8, release=7, subject="anna", decision=said, at=DAY)
        for looked_for in ({"release": 7}, {"guard": "groundedness"}, {"subjects": ["anna", "otto"]}):
            assert await numbers(**looked_for) == {8}
        for looked_for in ({"release": 8}, {"guard": "secrets"}, {"subjects": ["otto"]}):
            assert await numbers(**looked_for) == set()

    run(dsn, work)


def test_documents_are_named_only_to_their_readers(dsn: str) -> None:
    async def work(store: Store, journal: Journal) -> None:
        with psycopg.connect(dsn, autocommit=True) as owner:
            owner.execute("set search_path to proveout, public")
            owner.execute("insert into knowledge (workspace, name, origin) values ('one', 'kb', 'push')")
            for document, readers in (("open.md", ["everyone"]), ("salaries.md", ["group:hr"])):
                owner.execute(
                    "insert into versions (workspace, knowledge, document, digest, pipeline, readers, sealed, chunks)"
                    " values ('one', 'kb', %s, 'd', 'p', %s, '', 0)",
                    (document, readers),
                )
        request = await record(journal, 8, documents=("salaries.md", "open.md", "erased.md"))
        for groups, named in ((frozenset(), ["open.md"]), (frozenset({"hr"}), ["salaries.md", "open.md"])):
            row = await journal.get(Scope("one", "ann", groups), request)
            assert (row["documents"], row["documents_found"]) == (named, 3)

    run(dsn, work)
