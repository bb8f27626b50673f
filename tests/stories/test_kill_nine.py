"""kill -9 of any process, and of all, under load: service is back soon, and nothing that was answered is missing."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import time
from pathlib import Path

import aiohttp
import pytest

from conftest import Scripted, Server, start_server
from proveout.testing.client import Client, Seen
from proveout.testing.ledgers import collect, compare, settled

ROUNDS = int(os.environ.get("KILL_ROUNDS", "2"))  # `make soak` asks for 20
CLIENTS = 64
MODEL = "up/tokens=8&tag={tag}"  # the tag in the name finds a record whose client never learnt its id
BACK_SECONDS = 5.0
BACK_SECONDS_ALL = 10.0

_tags = (f"kill-{number}" for number in itertools.count())


async def load(client: Client, model: str, until: asyncio.Event, seen: list[Seen]) -> None:
    """Asks without a pause, streamed and not."""
    while not until.is_set():
        tag = next(_tags)
        seen.append(await client.ask(model.format(tag=tag), tag, streamed=random.random() < 0.5))
        if seen[-1].ending != "whole":
            await asyncio.sleep(0.05)


def back_after(seen: list[Seen], killed: float) -> float:
    """Seconds from the kill to the end of the first whole answer that was asked for after it."""
    return min((s.ended for s in seen if s.ending == "whole" and s.begun > killed), default=killed + 99) - killed


@pytest.mark.parametrize("victim", ["gateway", "postgres", "worker"])
def test_kill_nine_of_one_process(victim: str, scripted: Scripted) -> None:
    async def strike() -> tuple[list[Seen], float]:
        seen: list[Seen] = []
        until = asyncio.Event()
        async with scripted.world() as world:
            tasks = [asyncio.create_task(load(world.client, MODEL, until, seen)) for _ in range(CLIENTS)]
            await asyncio.sleep(random.uniform(0.5, 1.0))
            killed = time.monotonic()
            os.kill(scripted.server.pid_of(victim), signal.SIGKILL)
            for _ in range(600):
                if back_after(seen, killed) < 30:
                    break
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
            until.set()
            await asyncio.gather(*tasks)
            await settled(lambda: world.upstream.ledger.entries)
            wrong = compare(seen, world.upstream.ledger.entries, await collect(world.client, seen), killed=True)
        assert not wrong, wrong[:5]
        return seen, back_after(seen, killed)

    for _ in range(ROUNDS):
        seen, gap = asyncio.run(strike())
        whole = sum(s.ending == "whole" for s in seen)
        print(f"{victim}: {whole} whole answers, {len(seen) - whole} others, back after {gap:.1f} s")
        assert whole > CLIENTS and gap <= BACK_SECONDS


async def under_load(server: Server, seen: list[Seen]) -> None:
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        client, until = Client(session, server.url, server.owner_key), asyncio.Event()
        tasks = [asyncio.create_task(load(client, "echo", until, seen)) for _ in range(CLIENTS)]
        await asyncio.sleep(random.uniform(1.0, 1.5))
        await asyncio.to_thread(server.kill_everything)
        until.set()
        await asyncio.gather(*tasks)


async def discrepancies(server: Server, seen: list[Seen]) -> list[str]:
    async with aiohttp.ClientSession() as session:
        client = Client(session, server.url, server.owner_key)
        found = compare(seen, [], await collect(client, seen, within=0.5), killed=True)
    return [words for words in found if "upstream" not in words]  # echo has none


def test_kill_nine_of_everything(tmp_path: Path) -> None:
    """The whole tree at once, then `up` on the same data folder, on another port."""
    data = tmp_path / "data"
    server = start_server(data)
    key = server.owner_key
    for _ in range(max(1, ROUNDS // 2)):
        seen: list[Seen] = []
        asyncio.run(under_load(server, seen))
        server = start_server(data)
        wrong = asyncio.run(discrepancies(server, seen))
        whole = sum(s.ending == "whole" for s in seen)
        print(f"everything: {whole} whole answers, {len(seen) - whole} others, up again after {server.seconds:.1f} s")
        assert not wrong and whole > CLIENTS, wrong[:5]
        assert server.owner_key == key and server.seconds <= BACK_SECONDS_ALL
    assert server.stop() == 0
