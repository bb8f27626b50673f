"""Witnesses and the log over a real database: cosigned as far as they answer, and never slowed down by them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from proveout import configfile
from proveout.domain import Outcome, Parameters, Scope
from proveout.errors import NotFound
from proveout.ledger.cosign import Cosigner
from proveout.ledger.integrate import Integrator, LogKeys
from proveout.ledger.journal import Completion, Intent, Journal, new_request_id, now
from proveout.ledger.log import Log
from proveout.ledger.note import SigningKey
from proveout.ledger.verify import COSIGNATURE, Checkpoint, Policy, Receipt, Rejected, VerifierKey, split_note
from proveout.ledger.witness import Conflicting, Refused, Witness
from proveout.store.events import Kind, note
from proveout.store.pool import Store
from proveout.store.sealing import Keyring

SYSTEM = Scope.system("default", "ledger")
CALLER = Scope("default", "auditor")


@dataclass
class Door:
    """A witness behind HTTP, and what it does instead while `mood` is set."""

    key: SigningKey
    witness: Witness
    url: str = ""
    mood: str = ""
    asked: int = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        body = await request.read()
        if self.mood == "hangs":
            await asyncio.sleep(1.5)
        if self.mood == "fails":
            return web.Response(status=500)
        if self.mood == "is slow":
            await asyncio.sleep(0.3)
        if self.mood == "redirects" and request.path != "/elsewhere":
            return web.Response(status=307, headers={"location": f"{self.url}/elsewhere"})
        if self.mood == "babbles":
            return web.Response(text="— x AAAA\n" * 10_000)
        if self.mood == "lies":
            return web.Response(body=SigningKey.generate(self.key.verifier.name, COSIGNATURE).cosign(b"x", 1))
        if self.mood == "ahead":
            return web.Response(status=409, text="9999\n")
        try:
            return web.Response(body=self.witness.add_checkpoint(body))
        except Conflicting as conflict:
            return web.Response(status=409, text=f"{conflict.size}\n")
        except Refused:
            return web.Response(status=422)


class World:
    """A log, its integrator and its witnesses."""

    def __init__(self, store: Store, doors: list[Door]) -> None:
        self.store, self.doors = store, doors
        keys = LogKeys(Keyring(bytes(32)), "proveout.example")
        self.journal = Journal(store)
        self.integrator = Integrator(store, keys)
        self.log = Log(store, keys, witnessed=True)
        self.cosigner = self.new_cosigner()

    def new_cosigner(self) -> Cosigner:
        return Cosigner(self.store, [configfile.Witness(key=str(d.key.verifier), url=d.url) for d in self.doors])

    async def grow(self, count: int = 1) -> None:
        for number in range(count):
            async with self.store.unscoped() as session:
                await note(session, "default", Kind.KEY_CREATED, "key_1", {"key": f"key_{number}"})
        while await self.integrator.integrate(SYSTEM):
            pass

    async def request(self) -> str:
        request = new_request_id()
        await self.journal.write(
            Intent(request, "default", "key_1", "request", "echo", Parameters(), streamed=False, begun=now())
        )
        await self.journal.write(Completion(request, "default", Outcome.ANSWERED, "", 3, 5, 1.5, now()))
        return request

    async def policy(self, *doors: Door) -> Policy:
        witnesses = tuple(door.key.verifier for door in doors)
        return Policy(VerifierKey.parse(await self.log.key(CALLER)), witnesses, len(witnesses))

    async def size(self) -> int:
        return Checkpoint.parse(split_note(await self.log.checkpoint(CALLER))[0]).size


def run(dsn: str, folder: Path, work: Callable[[World], Awaitable[None]], count: int = 1) -> None:
    async def go() -> None:
        store = Store(dsn, size=4)
        await store.open()
        async with store.unscoped() as session:
            await session.run("workspaces.ensure", name="default", secret=b"k" * 32)
        keys = LogKeys(Keyring(bytes(32)), "proveout.example")
        log = VerifierKey.parse(await Log(store, keys).key(CALLER))
        async with _doors(log, folder, count) as doors:
            world = World(store, doors)
            task = asyncio.create_task(world.journal.run())
            try:
                await work(world)
            finally:
                task.cancel()
                await world.cosigner.aclose()
                await store.close()

    asyncio.run(go())


@asynccontextmanager
async def _doors(log: VerifierKey, folder: Path, count: int) -> AsyncIterator[list[Door]]:
    doors, runners = [], []
    for number in range(count):
        (folder / str(number)).mkdir()
        key = SigningKey.generate(f"witness.example/w{number}", COSIGNATURE)
        door = Door(key, Witness(key, {log.name: log}, folder / str(number)))
        app = web.Application()
        app.router.add_post("/add-checkpoint", door.answer)
        app.router.add_post("/elsewhere", door.answer)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        door.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        doors.append(door)
        runners.append(runner)
    try:
        yield doors
    finally:
        for runner in runners:
            await runner.cleanup()


def test_all_witnesses_sign_one_checkpoint(dsn: str, tmp_path: Path) -> None:
    async def work(world: World) -> None:
        policy = await world.policy(*world.doors)
        assert await world.cosigner.collect(SYSTEM) == 0  # an empty log
        for count in (3, 1, 300):
            await world.grow(count)
            assert await world.cosigner.collect(SYSTEM) == 2
            assert await world.cosigner.collect(SYSTEM) == 0
            for served in (await world.log.checkpoint(CALLER), await world.log.witnessed(CALLER)):
                checkpoint, seen = policy.open(served)
                assert checkpoint.size == await world.size() and len(seen) == 2
        assert [door.asked for door in world.doors] == [3, 3]  # what they saw last is remembered

    run(dsn, tmp_path, work, 2)


def test_a_log_that_grows_meanwhile_keeps_both(dsn: str, tmp_path: Path) -> None:
    async def work(world: World) -> None:
        await world.grow(3)
        with pytest.raises(NotFound, match="No witness"):
            await world.log.witnessed(CALLER)
        await world.cosigner.collect(SYSTEM)
        await world.grow(2)
        policy = await world.policy(*world.doors)
        assert policy.open(await world.log.witnessed(CALLER))[0].size == 3
        with pytest.raises(Rejected, match="seen by 0"):
            policy.open(await world.log.checkpoint(CALLER))
        assert await world.size() == 5
        world.doors[0].mood = "is slow"
        collecting = asyncio.create_task(world.cosigner.collect(SYSTEM))
        await asyncio.sleep(0.1)
        await world.grow()
        assert await collecting == 1
        assert policy.open(await world.log.witnessed(CALLER))[0].size == 5
        assert await world.size() == 6  # the newest stays the newest

    run(dsn, tmp_path, work)


def test_two_workers_and_a_forgotten_size(dsn: str, tmp_path: Path) -> None:
    """Another worker has asked already, or the table is lost: the witness says where it stands, and it goes on."""

    async def work(world: World) -> None:
        await world.grow(3)
        await world.cosigner.collect(SYSTEM)
        await world.grow(4)
        async with world.store.within(SYSTEM) as session:
            await session.run("witnesses.saw", name=world.doors[0].key.verifier.name, size=0)
        other = world.new_cosigner()
        try:
            await asyncio.gather(other.collect(SYSTEM), world.cosigner.collect(SYSTEM))
        finally:
            await other.aclose()
        async with world.store.within(SYSTEM) as session:
            await session.run("witnesses.saw", name=world.doors[0].key.verifier.name, size=0)
        assert await world.cosigner.collect(SYSTEM) == 1  # the same checkpoint once more
        checkpoint, _ = (await world.policy(*world.doors)).open(await world.log.checkpoint(CALLER))
        assert checkpoint.size == 7
        signatures = split_note(await world.log.checkpoint(CALLER))[1]
        assert len(signatures) == 2  # the log's, and one of the witness, though it was asked more than once

    run(dsn, tmp_path, work)


@pytest.mark.parametrize("mood", ["fails", "redirects", "babbles", "lies", "ahead"])
def test_nothing_is_kept_of_a_witness_that_errs(
    dsn: str, tmp_path: Path, mood: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proveout.ledger.cosign._LEAST_SILENCE", 0.05)

    async def work(world: World) -> None:
        bad, good = world.doors
        bad.mood = mood
        await world.grow(3)
        assert await world.cosigner.collect(SYSTEM) == 1
        assert await world.cosigner.collect(SYSTEM) == 0  # it is left alone for a while
        asked = bad.asked
        for _ in range(2):
            await asyncio.sleep(0.11)
            await world.cosigner.collect(SYSTEM)
        assert bad.asked > asked
        lines = [record.message for record in caplog.records if bad.key.verifier.name in record.message]
        assert len(lines) == 1, lines
        (await world.policy(good)).open(await world.log.checkpoint(CALLER))
        with pytest.raises(Rejected):
            (await world.policy(bad)).open(await world.log.checkpoint(CALLER))
        bad.mood = ""
        await asyncio.sleep(0.25)
        assert await world.cosigner.collect(SYSTEM) == 1
        assert "answers again" in caplog.messages[-1]
        assert len((await world.policy(bad, good)).open(await world.log.witnessed(CALLER))[1]) == 2

    with caplog.at_level(logging.WARNING, "proveout.ledger.cosign"):
        run(dsn, tmp_path, work, 2)


def test_a_witness_that_hangs_slows_nothing_down(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proveout.ledger.cosign._ANSWER_SECONDS", 1.0)

    async def work(world: World) -> None:
        bad, good = world.doors
        bad.mood = "hangs"
        await world.grow(3)
        collecting = asyncio.create_task(world.cosigner.collect(SYSTEM))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await world.grow(10)
        assert await world.size() == 13 and not collecting.done()
        assert time.monotonic() - began < 0.8
        assert await collecting == 1
        assert (await world.policy(good)).open(await world.log.witnessed(CALLER))[0].size == 3

    run(dsn, tmp_path, work, 2)


def test_a_receipt_waits_for_the_witness_but_not_for_long(dsn: str, tmp_path: Path) -> None:
    async def work(world: World) -> None:
        policy, plain = await world.policy(*world.doors), await world.policy()
        first = await world.request()
        proving = asyncio.create_task(world.log.proof(CALLER, first))
        await asyncio.sleep(0.1)
        await world.grow()
        await asyncio.sleep(0.2)
        assert not proving.done()
        await world.cosigner.collect(SYSTEM)
        Receipt.parse((await proving).receipt).check(policy)
        second = await world.request()
        await world.grow()
        began = time.monotonic()
        unseen = Receipt.parse((await world.log.proof(CALLER, second)).receipt)
        assert 1.5 < time.monotonic() - began < 3
        unseen.check(plain)
        with pytest.raises(Rejected, match="seen by 0"):
            unseen.check(policy)
        began = time.monotonic()
        await world.log.proof(CALLER, second)  # it is old now: whoever did not see it is away
        Receipt.parse((await world.log.proof(CALLER, first)).receipt).check(policy)
        assert time.monotonic() - began < 0.5

    run(dsn, tmp_path, work)
