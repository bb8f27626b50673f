"""A release's facts have versions of their own, and a snapshot's documents are told as far as a scope may see them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from bases import Bases
from bases import run as run_bases
from proveout.domain import Manifest, ModelChoice, ModelUse, Parameters, PromptTexts, Scope
from proveout.store.configuration import load
from proveout.store.pool import Store, as_json

MANIFEST = Manifest(
    "a", (ModelChoice(ModelUse("echo", "sha256:1")),), (), Parameters(), PromptTexts("s", "a"), (), "quote"
)
NAMED = {"workspace": "default", "app": "a"}


def run(dsn: str, work: Callable[[Store], Awaitable[None]]) -> None:
    async def go() -> None:
        store = Store(dsn, size=2)
        await store.open()
        try:
            async with store.unscoped() as session:
                await session.run("workspaces.ensure", name="default", secret=b"k" * 32)
            await work(store)
        finally:
            await store.close()

    asyncio.run(go())


def test_facts_that_change_are_a_new_version_of_the_same_release(dsn: str) -> None:
    async def work(store: Store) -> None:
        async with store.unscoped() as session:
            made = {"digest": "sha256:a", "manifest": as_json(MANIFEST), "golden": None, "scorers": None, "judge": None}
            row = await session.row("releases.insert", **NAMED, **made, author="key_1")
            assert row is not None and row["number"] == 1
        versions = []
        for purpose in ("one", "one", "two", "one"):
            async with store.unscoped() as session:
                await session.run("facts.put", **NAMED, number=1, facts=as_json({"purpose": purpose}))
            directory = await load(store)
            versions.append(directory.version)
            assert directory.releases["default", "a", 1].facts == {"purpose": purpose}
        assert versions[0] == versions[1] < versions[2] < versions[3], "what changed is seen, what did not is not"
        async with store.unscoped() as session:
            rows = await session.fetch("facts.list", **NAMED, number=1)
        assert [(row["version"], row["facts"]["purpose"]) for row in rows] == [(3, "one"), (2, "two"), (1, "one")]

    run(dsn, work)


def test_a_snapshot_s_documents_as_far_as_the_scope_sees_them(dsn: str) -> None:
    async def work(bases: Bases) -> None:
        where = {"workspace": "default", "knowledge": "kb"}
        files = {"open.md": b"Open.", "hr.md": b"Closed."}
        made = await bases.folder(where["workspace"], where["knowledge"], files, {"hr.md": ["group:hr"]})
        for groups, documents in ((frozenset[str](), {"open.md"}), (frozenset({"hr"}), {"open.md", "hr.md"})):
            async with bases.store.within(Scope("default", "ann", groups)) as session:
                row = await session.row("snapshots.documents", **where, snapshot=made.digest)
                assert row is not None and row["total"] == 2 and set(row["digests"]) == documents
                assert await session.row("snapshots.documents", **where, snapshot="other") is None

    run_bases(dsn, ["default"], work)
