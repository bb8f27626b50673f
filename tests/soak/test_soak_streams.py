"""The stories of streams at length: `make soak`."""

from __future__ import annotations

import asyncio
from collections import Counter

from conftest import Scripted
from loads import hearing, leaving, mixed, quantile, shortfalls

ROUND, ROUNDS = 800, 5  # requests of a round: fewer than the API lists at once


def test_a_thousand_clients_leave(scripted: Scripted) -> None:
    async def scenario() -> None:
        async with scripted.world() as world:
            ledgers = await leaving(world, 1000, 32)
        assert ledgers.discrepancies == []
        heard, short = hearing(ledgers), shortfalls(ledgers)
        missed = [tokens for tokens, _ in short]
        print(
            f"\n1000 clients left at random tokens, {len(heard)} heard of upstream"
            f"\n  upstream cancelled after: p50 {quantile(heard, 0.5):.1f} ms, p99 {quantile(heard, 0.99):.1f} ms,"
            f" at most {heard[-1]:.1f} ms"
            f"\n  tokens produced and not counted: {sum(missed) / len(missed):.2f} on average, {max(missed)} at most;"
            f" of those older than 250 ms: {sum(late for _, late in short)}"
            f"\n  counted more than produced: {sum(tokens < 0 for tokens in missed)}"
        )
        assert len(heard) == len(short) == 1000 and quantile(heard, 0.99) <= 250
        assert min(missed) >= 0 and not any(late for _, late in short)

    asyncio.run(scenario())


def test_a_long_mixed_load(scripted: Scripted) -> None:
    async def scenario() -> None:
        endings: Counter[str] = Counter()
        outcomes: Counter[str] = Counter()
        faults: Counter[str] = Counter()
        discrepancies: list[str] = []
        for seed in range(ROUNDS):
            async with scripted.world() as world:
                ledgers = await mixed(world, ROUND, 32, seed)
                faults += Counter[str](world.proxy.faults)
            endings += Counter(seen.ending for seen in ledgers.seen)
            outcomes += Counter(record["outcome"] for record in ledgers.records)
            discrepancies += ledgers.discrepancies
        print(
            f"\n{ROUND * ROUNDS} requests with faults: {len(discrepancies)} discrepancies between the three ledgers"
            f"\n  clients saw: {dict(endings)}\n  on record: {dict(outcomes)}\n  the network did: {dict(faults)}"
        )
        assert discrepancies == [], "\n".join(discrepancies)

    asyncio.run(scenario())
