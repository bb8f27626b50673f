"""The stories of streams at length: `make soak`."""

from __future__ import annotations

import asyncio
from collections import Counter

from conftest import Scripted
from loads import cutting, hearing, leaving, mixed, quantile, shortfalls
from pages import Page

PAGE, TITLE = "streams.md", "Streams that are cut, and clients that leave"
ROUND, ROUNDS = 800, 5  # requests of a round: fewer than the API lists at once
LEAVING = 1000


def test_a_cut_at_every_byte(scripted: Scripted, page: Page) -> None:
    async def scenario() -> None:
        async with scripted.world() as world:
            ledgers = await cutting(world, share=1)
        whole, *cut = ledgers.seen
        endings = Counter(f"{seen.ending} ({seen.error})" for seen in cut)
        invented = [s for s in cut if s.ending not in ("error", "refused") or not whole.text.startswith(s.text)]
        rows = [f"| {ending} | {count:,} |" for ending, count in endings.most_common()]
        page.add(
            "## An upstream that is cut at every byte of its answer\n\n"
            f"{len(cut):,} requests through the gateway, by FIN and RST in turns, every fifth not streamed; "
            f"invented endings: {len(invented)}; discrepancies between the three ledgers: {len(ledgers.discrepancies)}."
            "\n\n| what the client got | times |\n|---|---|\n" + "\n".join(rows)
        )
        assert whole.ending == "whole" and invented == [] and ledgers.discrepancies == []

    asyncio.run(scenario())


def test_a_thousand_clients_leave(scripted: Scripted, page: Page) -> None:
    async def scenario() -> None:
        async with scripted.world() as world:
            ledgers = await leaving(world, LEAVING, 32)
        assert ledgers.discrepancies == []
        heard, short = hearing(ledgers), shortfalls(ledgers)
        missed = [tokens for tokens, _ in short]
        late = sum(tokens for _, tokens in short)
        page.add(
            f"## {LEAVING:,} clients that leave at random tokens\n\n| what | |\n|---|---|\n"
            f"| upstream cancelled after, p50 | {quantile(heard, 0.5):.1f} ms |\n"
            f"| p99 | {quantile(heard, 0.99):.1f} ms |\n"
            f"| at most | {heard[-1]:.1f} ms |\n"
            f"| tokens produced and not counted, on average | {sum(missed) / len(missed):.2f} |\n"
            f"| at most | {max(missed)} |\n"
            f"| of those, older than 250 ms when the upstream stopped | {late} |\n"
            f"| requests with more tokens counted than produced | {sum(tokens < 0 for tokens in missed)} |"
        )
        assert len(heard) == len(short) == LEAVING and quantile(heard, 0.99) <= 250
        assert min(missed) >= 0 and late == 0

    asyncio.run(scenario())


def test_a_long_mixed_load(scripted: Scripted, page: Page) -> None:
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
        page.add(
            f"## {ROUND * ROUNDS:,} requests with everything at once\n\n"
            "Faults of the upstream, a network that cuts and flaps, clients that leave. Discrepancies between the "
            f"three ledgers: {len(discrepancies)}.\n\n| who says | |\n|---|---|\n"
            f"| clients | {_counts(endings)} |\n| records | {_counts(outcomes)} |\n| the network | {_counts(faults)} |"
        )
        assert discrepancies == [], "\n".join(discrepancies)

    asyncio.run(scenario())


def _counts(found: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in found.most_common())
