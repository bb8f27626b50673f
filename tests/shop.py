"""An app with three releases over a real database, whose users a test plays: for tests of rollouts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from proveout.access.rights import ROLES
from proveout.domain import (
    Directory,
    Key,
    Manifest,
    ModelChoice,
    ModelUse,
    Outcome,
    Parameters,
    Principal,
    PromptTexts,
    Release,
    Scope,
)
from proveout.ledger.integrate import Integrator, LogKeys
from proveout.ledger.journal import Completion, Intent, Journal, new_request_id, now
from proveout.releases.gate import Gate
from proveout.releases.policy import read_policy
from proveout.releases.rollouts import Rollouts
from proveout.releases.routes import Routes
from proveout.store.events import Kind, note
from proveout.store.pool import Row, Session, Store
from proveout.store.sealing import Keyring

SYSTEM = Scope.system("default", "rollouts")
OPERATOR = Principal(Key("key_1", "operator", "default", "operator"), ROLES["operator"])
PLAN = {
    "steps": [0.2, 0.5],
    "minimum": {"calls": 20},
    "seconds_per_step": 0,
    "margins": {"bad_events": 0.3, "latency": 0.3},
}


def release(number: int) -> Release:
    manifest = Manifest(
        "shop", (ModelChoice(ModelUse("echo", "")),), (), Parameters(), PromptTexts("", "{{ question }}"), (), "quote"
    )
    return Release("default", "shop", number, f"sha256:{number}", manifest, {"rollout": PLAN}, datetime.now(UTC))


class Killed(BaseException):
    """What happens to a process in the middle of a transaction."""


class Mortal(Routes):
    """Dies where a route was about to be changed, or has just been."""

    async def set_weight(self, session: Session, by: str, rollout: Row, weight: float) -> None:
        raise Killed

    async def end(self, *arguments: Any) -> None:
        await super().end(*arguments)
        raise Killed


class Shop:
    """An app in the stage poc, its journal and log, and controllers."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.journal = Journal(store)
        keys = LogKeys(Keyring(bytes(32)), "proveout.example")
        self.integrator = Integrator(store, keys)
        self.gate = Gate(read_policy(None), keys)
        self.routes = Routes(store, self.gate)
        self.releases = {number: release(number) for number in (1, 2, 3)}
        self.rollouts = Rollouts(store, self.routes, self.directory)

    def directory(self) -> Directory:
        return Directory(1, {}, {("default", "shop", n): r for n, r in self.releases.items()}, {}, b"")

    async def open(self) -> None:
        async with self.store.unscoped() as session:
            await session.run("workspaces.ensure", name="default", secret=b"k" * 32)
            await session._connection.execute("reset role")
            await session._connection.execute("truncate releases, rollouts, tenures, events, intents, tiles cascade")
            await session._connection.execute("truncate checkpoints")
            await session._connection.execute("set role proveout_service")
            for one in self.releases.values():
                insert = "insert into releases (workspace, app, number, digest, manifest) values (%s, %s, %s, %s, '{}')"
                await session._connection.execute(insert, (one.workspace, one.app, one.number, one.digest))
        await self.routes.promote(OPERATOR, self.releases[1], "poc")

    async def serve(self, count: int, broken: bool, chance: random.Random, split: float | None = None) -> int:
        """Answers requests as the route says now; answers with how many were drawn, once they are in the log.

        `split` is what is drawn with, where that is not what the route says.
        """
        route = await self.route()
        numbers, drawn = [new_request_id() for _ in range(count)], route["candidate"] is not None
        share = route["weight"] if split is None else split
        arms = ["candidate" if drawn and chance.random() < share else "stable" for _ in numbers]
        weights = {"candidate": route["weight"], "stable": 1 - route["weight"]}
        begun = [
            Intent(
                *(number, "default", "key_1", "request", "echo", Parameters(), False, now(), "shop"),
                route["candidate" if arm == "candidate" else "stable"],
                stage="poc",
                arm=arm,
                weight=weights[arm] if drawn else None,
                unit=chance.choice([None, "ada", "bob"]) if split is None else None,
            )
            for number, arm in zip(numbers, arms, strict=True)
        ]
        await asyncio.gather(*map(self.journal.write, begun))
        outcomes = [Outcome.FAILED if broken and arm == "candidate" else Outcome.ANSWERED for arm in arms]
        ended = [
            Completion(number, "default", outcome, "", 1, 1, 5.0, now(), first_sentence_ms=4.0)
            for number, outcome in zip(numbers, outcomes, strict=True)
        ]
        await asyncio.gather(*map(self.journal.write, ended))
        while await self.integrator.integrate(SYSTEM):
            pass
        return count if drawn else 0

    async def judge(self, request: str, decides: bool) -> None:
        facts = {"request": request, "score": 0.5, "decides": decides, "judge": "echo"}
        async with self.store.within(SYSTEM) as session:
            await note(session, "default", Kind.ANSWER_JUDGED, "system", facts)

    async def look(self) -> Any:
        """What the rollout has seen of the candidate, once it has seen everything."""
        while await self.integrator.integrate(SYSTEM):
            pass
        await self.rollouts.tick(SYSTEM)
        return (await self.rollouts.show(SYSTEM, "shop", "poc"))["arms"]["candidate"]

    async def route(self) -> Row:
        return (await self.all("select * from proveout.routes"))[0]

    async def all(self, sql: str) -> list[Row]:
        async with self.store.within(SYSTEM) as session:
            return list(await (await session._connection.execute(sql.encode())).fetchall())

    async def state(self) -> list[list[Row]]:
        """Everything that a controller may change."""
        tables = ("rollouts", "routes", "decisions order by rollout, number", "exposures order by unit", "tenures")
        told = [await self.all(f"select * from proveout.{table}") for table in tables]
        return [*told, await self.all("select id, kind, facts from proveout.events order by id")]


async def shop_of(dsn: str, work: Callable[[Shop], Awaitable[None]]) -> None:
    store = Store(dsn, size=6)
    await store.open()
    shop = Shop(store)
    await shop.open()
    task = asyncio.create_task(shop.journal.run())
    try:
        await work(shop)
    finally:
        task.cancel()
        await store.close()


def run(dsn: str, work: Callable[[Shop], Awaitable[None]]) -> None:
    asyncio.run(shop_of(dsn, work))


async def together(controllers: list[Rollouts]) -> None:
    await asyncio.gather(*(one.tick(SYSTEM) for one in controllers))
