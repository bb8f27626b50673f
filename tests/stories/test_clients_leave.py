"""Clients that go away in the middle: the upstream stops at once, and what it produced is on record."""

from __future__ import annotations

import asyncio

from conftest import Scripted
from loads import hearing, leaving, quantile, shortfalls


def test_clients_that_leave_at_random_tokens(scripted: Scripted) -> None:
    async def scenario() -> None:
        async with scripted.world() as world:
            ledgers = await leaving(world, 200, 20)
        assert ledgers.discrepancies == []
        assert {seen.ending for seen in ledgers.seen} == {"left"}
        assert {record["outcome"] for record in ledgers.records} == {"cancelled"} and len(ledgers.records) == 200
        heard, short = hearing(ledgers), shortfalls(ledgers)
        assert len(heard) == len(short) == 200
        missed = [tokens for tokens, _ in short]
        print(
            f"200 clients left: upstream cancelled after {quantile(heard, 0.5):.0f} ms (p50),"
            f" {quantile(heard, 0.99):.0f} ms (p99); tokens produced and not counted:"
            f" {max(missed)} at most, {sum(missed) / 200:.2f} on average"
        )
        assert quantile(heard, 0.99) <= 250
        assert min(missed) >= 0 and not any(late for _, late in short)

    asyncio.run(scenario())
