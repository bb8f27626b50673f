"""The log over a real database: one tree whatever happens to its integrators, and receipts that verify offline."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from proveout.domain import Outcome, Parameters, Scope
from proveout.errors import NotFound
from proveout.ledger.integrate import Integrator, LogKeys
from proveout.ledger.journal import Completion, Intent, Journal, new_request_id, now
from proveout.ledger.log import Filter, Log
from proveout.ledger.tree import Tree
from proveout.ledger.verify import Policy, Receipt, Replay, TileId, VerifierKey, check_opening, tiles_of
from proveout.store.events import Kind, note
from proveout.store.pool import Session, Store
from proveout.store.sealing import Keyring

SYSTEM = Scope.system("default", "ledger")
CALLER = Scope("default", "auditor")


class World:
    """A store, its journal, an integrator and the log's public key."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.journal = Journal(store)
        keys = LogKeys(Keyring(bytes(32)), "proveout.example")
        self.integrator = Integrator(store, keys)
        self.log = Log(store, keys)

    async def key(self) -> VerifierKey:
        return VerifierKey.parse(await self.log.key(CALLER))

    async def note_many(self, count: int) -> None:
        for number in range(count):
            async with self.store.unscoped() as session:
                await note(session, "default", Kind.KEY_CREATED, "key_1", {"key": f"key_{number}"})

    async def erase(self, subject: str, *queries: str) -> None:
        async with self.store.within(SYSTEM) as session:
            where = {"workspace": "default", "kind": "subject", "owners": [subject]}
            await session.run("sealing.destroy", **where)
            for query in queries:
                await session.run(query, subjects=[subject])

    async def request(self, subject: str = "otto") -> str:
        request = new_request_id()
        await self.journal.write(
            Intent(request, "default", "key_1", "request", "echo", Parameters(), streamed=False, begun=now())
        )
        await self.journal.write(
            Completion(request, "default", Outcome.ANSWERED, "", 3, 5, 1.5, now(), subject=subject)
        )
        return request

    async def verify(self) -> int:
        """Replays the whole log as an auditor would; answers with its size."""
        policy = Policy(await self.key())
        checkpoint, _ = policy.open(await self.log.checkpoint(CALLER))
        tiles: dict[TileId, bytes] = {}
        for level in (-1, 0, 1):
            for tile in tiles_of(level, checkpoint.size):
                tiles[tile] = await self.log.tile(CALLER, tile)
                if tile.width < 256:
                    with pytest.raises(NotFound):  # it is not there before it is full
                        await self.log.tile(CALLER, tile._replace(width=256))

        def read(tile: TileId) -> bytes:
            return tiles[tile]

        findings = Replay(read).run(checkpoint)
        assert not findings, findings[0]
        return checkpoint.size


def run(dsn: str, work: Callable[[World], Awaitable[None]]) -> None:
    async def go() -> None:
        store = Store(dsn, size=8)
        await store.open()
        async with store.unscoped() as session:
            await session.run("workspaces.ensure", name="default", secret=b"k" * 32)
        world = World(store)
        task = asyncio.create_task(world.journal.run())
        try:
            await work(world)
        finally:
            task.cancel()
            await store.close()

    asyncio.run(go())


def test_events_become_a_log_that_verifies(dsn: str) -> None:
    async def work(world: World) -> None:
        with pytest.raises(NotFound, match="empty"):
            await world.log.checkpoint(CALLER)
        for count, size in ((3, 3), (250, 253), (10, 263), (0, 263)):
            await world.note_many(count)
            assert await world.integrator.integrate(SYSTEM) == count
            assert await world.verify() == size

    run(dsn, work)


def test_a_number_that_canonical_json_cannot_hold_does_not_stop_the_log(dsn: str) -> None:
    async def story(world: World) -> None:
        request = new_request_id()
        seeded = Parameters(seed=10**17)  # the door refuses it; an event may come by another way
        await world.journal.write(
            Intent(request, "default", "key_1", "request", "echo", seeded, streamed=False, begun=now())
        )
        await world.integrator.integrate(SYSTEM)
        assert await world.verify() == 1
        events = await world.log.events(CALLER, Filter(request=request), 10)
        assert json.loads(events[0]["record"])["parameters"]["seed"] == "100000000000000000"

    run(dsn, story)


def test_two_integrators_at_once_make_one_tree(dsn: str) -> None:
    async def work(world: World) -> None:
        async def write() -> None:
            await world.note_many(60)

        async def integrate() -> int:
            done = 0
            for _ in range(40):
                done += await world.integrator.integrate(SYSTEM)
                await asyncio.sleep(0.005)
            return done

        *_, one, two = await asyncio.gather(write(), write(), write(), integrate(), integrate())
        rest = await world.integrator.integrate(SYSTEM)
        assert one + two + rest == 180
        assert await world.verify() == 180

    run(dsn, work)


def test_an_integrator_that_dies_at_any_statement_leaves_no_trace(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It dies before its first statement, then before its second, … until it lives; another one goes on each time."""
    from proveout.store import pool

    async def work(world: World) -> None:
        real, ran = pool.Session._query, list[str]()
        size = 0

        async def integrate(until: int) -> int:
            def dying(session: pool.Session, name: str) -> object:
                ran.append(name)
                if len(ran) == until:
                    raise RuntimeError("killed")
                return real(session, name)

            ran.clear()
            with monkeypatch.context() as patch:
                patch.setattr(pool.Session, "_query", dying)
                return await world.integrator.integrate(SYSTEM)

        another = Integrator(world.store, LogKeys(Keyring(bytes(32)), "proveout.example"))
        for step in range(1, 30):
            await world.note_many(5)
            try:
                taken = await integrate(step)
            except RuntimeError:
                if size:
                    assert await world.verify() == size
                assert await another.integrate(SYSTEM) == 5
            else:
                assert taken == 5
                break
            size += 5
            assert await world.verify() == size
        assert ran[0] == "log.lock" and ran[-2:] == ["log.place", "log.sign"] and step == len(ran) + 1

    run(dsn, work)


def test_a_receipt_proves_a_request_to_whoever_has_the_key(dsn: str) -> None:
    async def work(world: World) -> None:
        request = await world.request()
        await world.integrator.integrate(SYSTEM)
        for _ in range(3):  # it stays provable while the log grows
            proof = await world.log.proof(CALLER, request)
            assert len(proof.receipt) <= 4096
            receipt = Receipt.parse(proof.receipt)
            receipt.check(Policy(await world.key()))
            assert proof.opening is not None
            record = json.loads(check_opening(receipt.extra, proof.opening))
            assert record["request"] == request and record["outcome"] == "answered"
            await world.note_many(200)
            await world.integrator.integrate(SYSTEM)
        with pytest.raises(NotFound):
            await world.log.proof(Scope("another", "auditor"), request)

    run(dsn, work)


def test_a_salt_goes_with_its_subjects_key(dsn: str) -> None:
    async def work(world: World) -> None:
        anna, otto = await world.request("anna"), await world.request("otto")
        await world.integrator.integrate(SYSTEM)
        assert (await world.log.proof(CALLER, anna)).opening is not None
        await world.erase("anna")  # the key alone: rows that were deleted may be found in a table's file
        assert (await world.log.proof(CALLER, anna)).opening is None
        assert (await world.log.proof(CALLER, otto)).opening is not None
        assert await world.verify() == 4

    run(dsn, work)


def test_who_is_erased_while_a_record_is_taken_in_stays_erased(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from proveout.ledger import integrate

    async def work(world: World) -> None:
        request, real = await world.request("anna"), integrate._tree

        async def tree(session: Session) -> Tree:
            await world.erase("anna", "events.erase")
            return await real(session)

        with monkeypatch.context() as patch:
            patch.setattr(integrate, "_tree", tree)
            assert await world.integrator.integrate(SYSTEM) == 2
        (row,) = [e for e in await world.log.events(CALLER, Filter(request=request), 9) if e["kind"].endswith("ended")]
        assert row["position"] == 1 and row["record"] is None and row["subject"] is None
        assert (await world.log.proof(CALLER, request)).opening is None
        assert await world.verify() == 2

    run(dsn, work)


def test_a_workspace_sees_its_own_log_alone(dsn: str) -> None:
    async def work(world: World) -> None:
        await world.note_many(1)
        await world.integrator.integrate(SYSTEM)
        for read in (
            world.log.checkpoint(Scope("another", "a")),
            world.log.tile(Scope("another", "a"), TileId(0, 0, 1)),
        ):
            with pytest.raises(NotFound):
                await read

    run(dsn, work)
