"""Loads that a story runs briefly and a soak at length: clients that leave, and everything at once."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from conftest import World
from proveout.testing.client import Seen
from proveout.testing.ledgers import GRACE, Record, collect, compare, settled
from proveout.testing.proxy import NO_FAULT, Fault, Then
from proveout.testing.upstream import Entry


@dataclass(frozen=True, slots=True)
class Ledgers:
    """The three, of one load."""

    seen: list[Seen]
    calls: list[Entry]
    records: list[Record]

    @property
    def discrepancies(self) -> list[str]:
        return compare(self.seen, self.calls, self.records)


async def run(world: World, one: Callable[[int], Awaitable[Seen]], count: int, at_once: int) -> Ledgers:
    """`count` clients, `at_once` at a time; returns when all three ledgers are closed."""
    places = asyncio.Semaphore(at_once)

    async def client(number: int) -> Seen:
        async with places:
            return await one(number)

    seen = await asyncio.gather(*(client(number) for number in range(count)))
    assert await settled(lambda: world.upstream.ledger.entries), "the upstream still works for clients that are gone"
    return Ledgers(seen, world.upstream.ledger.entries, await collect(world.client, seen))


async def leaving(world: World, count: int, at_once: int) -> Ledgers:
    """Clients that leave at a random token; every tenth before the first, every tenth from an answer not streamed."""
    dice, load = random.Random(count), secrets.token_hex(4)

    async def one(number: int) -> Seen:
        tag = f"{load}-{number}"
        script = f"up/tokens=500&pace=0.02&tag={tag}"
        match number % 10:
            case 0:
                return await world.client.ask(f"{script}&first=5", tag, leave_at=dice.uniform(0.2, 0.8))
            case 1:
                return await world.client.ask(script, tag, streamed=False, leave_at=dice.uniform(0.2, 0.8))
            case _:
                return await world.client.ask(script, tag, leave_after=dice.randint(1, 50))

    return await run(world, one, count, at_once)


def hearing(ledgers: Ledgers) -> list[float]:
    """Milliseconds from a client's leaving to the upstream's hearing of it, ascending."""
    calls = {call.tag: call for call in ledgers.calls}
    left = [(s, calls[s.tag]) for s in ledgers.seen if s.ending == "left" and s.tag in calls]
    return sorted(((call.ended or float("inf")) - s.ended) * 1000 for s, call in left)


def shortfalls(ledgers: Ledgers) -> list[tuple[int, int]]:
    """For every cancelled request: tokens that the upstream produced and we did not count; how many of these were
    older than GRACE when the upstream stopped."""
    calls = {call.tag: call for call in ledgers.calls}
    tags = {s.request: s.tag for s in ledgers.seen}
    found = []
    for record in ledgers.records:
        call = calls.get(tags.get(record["request"]) or record["model"].split("tag=")[-1].split("&")[0])
        if record["outcome"] == "cancelled" and call is not None and call.ended is not None:
            counted = record["completion_tokens"]
            found.append((call.tokens - counted, max(0, call.tokens_until(call.ended - GRACE) - counted)))
    return found


def quantile(values: Iterable[float], share: float) -> float:
    """The smallest of `values` that `share` of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


async def cutting(world: World, share: float) -> Ledgers:
    """A whole answer first, then that answer cut at a share of its bytes, chosen by chance; 1: at every byte.

    In turns the connection ends in order and is reset; every fifth request is not streamed.
    """
    dice, load = random.Random(1), secrets.token_hex(2)
    asked = "faulty/text=Grüße aus 東京 🙂. Bis bald!"
    whole = await world.client.ask(asked, f"{load}whole")
    total = world.proxy.received - len(b"\r\n0\r\n\r\n")  # after the [DONE] before these, nothing can be missing
    world.proxy.reset_all()  # else the next request would come through this connection
    positions = sorted(dice.sample(range(total), round(total * share)))
    first = world.proxy.connections
    world.proxy.plan = lambda number: Fault(after=positions[number - first], then="reset" if number % 2 else "close")

    async def one(number: int) -> Seen:
        # the tag's place in the request keeps the response's length
        return await world.client.ask(asked, f"{load}{number:05}", streamed=number % 5 != 0)

    cut = await run(world, one, len(positions), 1)
    return Ledgers([whole, *cut.seen], cut.calls, [*cut.records, *await collect(world.client, [whole])])


_FAULTS = ("eof", "cut", "error", "half", "garbage")
_BREAKS: tuple[Then, ...] = ("close", "reset", "garbage", "silence")


async def mixed(world: World, count: int, at_once: int, seed: int = 0) -> Ledgers:
    """Whole answers, faults of the upstream, a network that cuts and flaps, clients that leave: all at once."""
    dice, load = random.Random(seed), secrets.token_hex(4)

    def plan(number: int) -> Fault:
        if number % 5 == 4:
            return NO_FAULT
        return Fault(dice.uniform(0, 0.02), dice.randint(0, 1500), _BREAKS[number % 5])

    async def one(number: int) -> Seen:
        tag, streamed, ask = f"{load}-{number}", dice.random() < 0.7, world.client.ask
        script = f"tokens={dice.randint(1, 40)}&pace={dice.choice((0, 0.005, 0.02))}&tag={tag}"
        match number % 8:
            case 0 | 1:
                return await ask(f"up/{script}&usage={dice.choice(('true', 'false'))}", tag, streamed=streamed)
            case 2:
                fault = f"fault={dice.choice(_FAULTS)}&at={dice.randint(0, 20)}"
                return await ask(f"up/{script}&{fault}", tag, streamed=streamed)
            case 3:
                return await ask(f"up/{script}&status={dice.choice((400, 429, 500, 503))}", tag, streamed=streamed)
            case 4:
                return await ask(f"up/{script}", tag, leave_after=dice.randint(1, 20))
            case 5:
                return await ask(f"up/{script}", tag, streamed=streamed, leave_at=dice.uniform(0.001, 0.4))
            case _:
                return await ask(f"faulty/{script}", tag, streamed=streamed)

    world.proxy.plan = plan
    flapping = asyncio.create_task(world.proxy.flap(0.7, 0.2))
    try:
        return await run(world, one, count, at_once)
    finally:
        flapping.cancel()
        await asyncio.wait({flapping})
