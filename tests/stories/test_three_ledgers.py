"""Under everything at once, three ledgers agree: the clients', the upstream's, and ours."""

from __future__ import annotations

import asyncio
from collections import Counter

from conftest import Scripted
from loads import mixed


def test_three_ledgers_agree_after_a_mixed_load(scripted: Scripted) -> None:
    async def scenario() -> None:
        async with scripted.world() as world:
            ledgers = await mixed(world, 240, 24)
            faults = world.proxy.faults
        assert ledgers.discrepancies == []
        endings = Counter(seen.ending for seen in ledgers.seen)
        outcomes = Counter(record["outcome"] for record in ledgers.records)
        print(f"clients: {dict(endings)}; records: {dict(outcomes)}; proxy: {dict(faults)}")
        # the load was mixed: each way to end took place, and each fault
        assert min(endings[e] for e in ("whole", "error", "refused", "left")) >= 10
        assert min(outcomes[o] for o in ("answered", "truncated", "failed", "cancelled")) >= 10
        assert len(faults) == 4

    asyncio.run(scenario())
