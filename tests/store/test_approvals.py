"""A release that waits for approval is on record once, when everything else is there."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from proveout.domain import Directory, Manifest, ModelChoice, ModelUse, Parameters, PromptTexts, Release, Scope
from proveout.ledger.integrate import Integrator, LogKeys
from proveout.releases import evidence
from proveout.releases.approvals import Approvals
from proveout.releases.gate import Gate
from proveout.releases.policy import Criterion, Policy
from proveout.store.events import Kind
from proveout.store.pool import Store
from proveout.store.sealing import Keyring

SYSTEM = Scope.system("default", "approvals")
WHY = ("because", "somewhere")
POLICY = Policy(
    {
        "beta": (Criterion("beta.drill", *WHY, evidence="drill"), Criterion("beta.approval", *WHY, approvals=1)),
        "production": (Criterion("production.drill", *WHY, evidence="drill"),),
    }
)


def release(targets: dict[str, str]) -> Release:
    model = (ModelChoice(ModelUse("echo", "")),)
    manifest = Manifest("desk", model, (), Parameters(), PromptTexts("", "{{ question }}"), (), "quote")
    return Release("default", "desk", 3, "sha256:3", manifest, {"targets": targets}, datetime.now(UTC), "author")


def test_a_release_that_waits_for_approval_is_on_record_once(dsn: str) -> None:
    async def work(store: Store) -> None:
        keys = LogKeys(Keyring(bytes(32)), "proveout.example")
        integrator, present = Integrator(store, keys), release({})

        async def directory() -> Directory:
            return Directory(1, {}, {("default", "desk", 3): present}, {}, b"")

        watches = [Approvals(store, Gate(POLICY, keys), directory) for _ in range(2)]

        async def find(kind: str, verdict: evidence.Found, **facts: Any) -> list[dict[str, Any]]:
            """Records evidence; answers with what is on record then."""
            told = {**facts, "standard": evidence.standard(present.facts)}
            async with store.within(SYSTEM) as session:
                await evidence.record(session, keys, present, kind, verdict, "key_1", told)
            while await integrator.integrate(SYSTEM):
                pass
            for watch in (*watches, *watches):
                await watch.tick(SYSTEM)
            async with store.within(SYSTEM) as session:
                query = "select facts from proveout.events where kind = %s order by id"
                cursor = await session._connection.execute(query, (Kind.APPROVAL_AWAITED.value,))
                return [row["facts"] for row in await cursor.fetchall()]

        await asyncio.gather(*(watch.tick(SYSTEM) for watch in watches))
        assert not await find("drill", ("attested", "fail"))
        (told,) = await find("drill", ("attested", "pass"))
        assert (told["app"], told["stage"], told["release"], told["digest"]) == ("desk", "beta", 3, "sha256:3")
        assert len(told["lacking"]) == 1 and "proveout release approve desk@3 --to beta" in told["lacking"][0]
        assert len(await find("drill", ("attested", "pass"))) == 1
        assert len(await find("approval", ("attested", "pass"), stage="beta")) == 1
        present = release({"correct": ">= 0.9"})  # what was approved is judged by something else now
        assert len(await find("drill", ("attested", "pass"))) == 2

    async def go() -> None:
        store = Store(dsn, size=4)
        await store.open()
        try:
            async with store.unscoped() as session:
                await session.run("workspaces.ensure", name="default", secret=b"k" * 32)
            await work(store)
        finally:
            await store.close()

    asyncio.run(go())
