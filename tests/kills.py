"""kill -9 under load, as a story runs it a few times and a soak many: of one process, and of everything at once."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from conftest import Scripted, Server, start_server
from proveout.testing.client import Client, Seen
from proveout.testing.ledgers import collect, compare, settled

CLIENTS = 64
BACK_SECONDS = 5.0
BACK_SECONDS_ALL = 10.0
VICTIMS = ("gateway", "postgres", "worker")
EVERYTHING = "everything"

_MODEL = "up/tokens=8&pace=0.02&tag={tag}"  # the tag in the name finds a record whose client never learnt its id
_tags = (f"kill-{number}" for number in itertools.count())


@dataclass
class Kills:
    """What became of one victim's kills: seconds until service was back, the clients' view, what does not fit."""

    back: list[float] = field(default_factory=list)
    whole: int = 0
    others: int = 0
    discrepancies: list[str] = field(default_factory=list)

    def add(self, back: float, seen: Sequence[Seen], discrepancies: Sequence[str]) -> None:
        whole = sum(s.ending == "whole" for s in seen)
        self.back.append(back)
        self.whole += whole
        self.others += len(seen) - whole
        self.discrepancies += discrepancies

    def extend(self, other: Kills) -> None:
        self.back += other.back
        self.whole += other.whole
        self.others += other.others
        self.discrepancies += other.discrepancies

    def row(self, victim: str) -> str:
        """A line of the table in `docs/measured/kills.md`."""
        times = f"{min(self.back):.1f}–{max(self.back):.1f}"
        counts = f"{self.whole:,} | {self.others:,}"
        return f"| {victim} | {len(self.back)} | {counts} | {times} | {len(self.discrepancies)} |"


async def strike(scripted: Scripted, victims: Sequence[str]) -> dict[str, Kills]:
    """Kills `victims` one after another under one load; each time waits for a whole answer to a later question."""
    done = {victim: Kills() for victim in victims}
    async with scripted.world() as world:
        for victim in victims:
            seen: list[Seen] = []
            began = len(world.upstream.ledger.entries)
            async with _Load(world.client, _MODEL, seen):
                await asyncio.sleep(random.uniform(0.3, 0.6))
                killed = time.monotonic()
                os.kill(scripted.server.pid_of(victim), signal.SIGKILL)
                back = await _back_after(seen, killed)
            await settled(lambda: world.upstream.ledger.entries)
            calls = world.upstream.ledger.entries[began:]
            records = await collect(world.client, seen, within=1.0)
            done[victim].add(back, seen, compare(seen, calls, records, killed=True))
    return done


def strike_everything(data: Path, times: int) -> Kills:
    """Kills the whole tree under load, then runs `up` again on the same data folder, on another port."""
    server, kills = start_server(data), Kills()
    key = server.owner_key
    for _ in range(times):
        seen: list[Seen] = []
        asyncio.run(_kill_under_load(server, seen))
        server = start_server(data)
        kills.add(server.seconds, seen, asyncio.run(_discrepancies(server, seen)))
        assert server.owner_key == key
    assert server.stop() == 0
    return kills


class _Load:
    """`CLIENTS` that ask without a pause, streamed and not, while the context lasts."""

    def __init__(self, client: Client, model: str, seen: list[Seen]) -> None:
        self._client, self._model, self._seen = client, model, seen
        self._until = asyncio.Event()

    async def __aenter__(self) -> None:
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(CLIENTS)]

    async def __aexit__(self, *_: object) -> None:
        self._until.set()
        await asyncio.gather(*self._tasks)

    async def _ask(self) -> None:
        while not self._until.is_set():
            tag = next(_tags)
            self._seen.append(await self._client.ask(self._model.format(tag=tag), tag, streamed=random.random() < 0.5))
            if self._seen[-1].ending != "whole":
                await asyncio.sleep(0.05)


async def _back_after(seen: list[Seen], killed: float) -> float:
    """Seconds from the kill to the end of the first whole answer that was asked for after it; waits for it."""
    for _ in range(600):
        ends = [s.ended for s in seen if s.ending == "whole" and s.begun > killed]
        if ends:
            return min(ends) - killed
        await asyncio.sleep(0.05)
    return float("inf")


async def _kill_under_load(server: Server, seen: list[Seen]) -> None:
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        _Load(Client(session, server.url, server.owner_key), "echo", seen),
    ):
        await asyncio.sleep(random.uniform(0.4, 0.8))
        await asyncio.to_thread(server.kill_everything)


async def _discrepancies(server: Server, seen: list[Seen]) -> list[str]:
    async with aiohttp.ClientSession() as session:
        client = Client(session, server.url, server.owner_key)
        found = compare(seen, [], await collect(client, seen, within=0.5), killed=True)
    return [words for words in found if "upstream" not in words]  # echo has none
