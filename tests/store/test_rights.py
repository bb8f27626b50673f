"""Row-level security: what a scope may not see is not there, whatever is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

from proveout.domain import KnowledgeUse, Scope
from proveout.retrieval import postings
from proveout.retrieval.sealed import Content, owner, seal_chunk
from proveout.retrieval.search import Searcher
from proveout.store.pool import Session, Store, as_json, as_vector
from proveout.store.sealing import Keyring, Unsealable, seal

KEYRING = Keyring(b"m" * 32)
VECTOR = [1.0, 0.0, 0.0]
DOCUMENTS = {"open.md": ["everyone"], "hr.md": ["group:hr"], "nobody.md": [], "ann.md": ["user:ann"]}


def run(dsn: str, work: Callable[[Store], Awaitable[None]]) -> None:
    async def go() -> None:
        store = Store(dsn, size=3)
        await store.open()
        try:
            async with store.unscoped() as session:
                for name in ("one", "two"):
                    await session.run("workspaces.ensure", name=name, secret=b"k" * 32)
            for name in ("one", "two"):
                await fill(store, name)
            await work(store)
        finally:
            await store.close()

    asyncio.run(go())


async def fill(store: Store, workspace: str) -> None:
    """The same documents in each workspace, each with a text of its own."""
    where: dict[str, Any] = {"workspace": workspace, "knowledge": "kb"}
    async with store.within(Scope.system(workspace, "test")) as session:
        chunks, versions, texts = [], [], []
        for document, readers in DOCUMENTS.items():
            text = f"canary of {document} in {workspace}"
            await session.run("documents.put", **where, id=document, readers=readers)
            key = await KEYRING.key(session, workspace, "document", owner("kb", document))
            sealed = seal(key, text.encode(), "version")
            version = await session.row(
                "versions.insert", **where, document=document, digest="d", pipeline="p", sealed=sealed
            )
            assert version is not None
            versions.append(version["id"])
            sealed = seal_chunk(key, Content(document, (), text))
            chunk = {"ordinal": 0, "sealed": sealed, "start": 0, "end": len(text), "page": None}
            identity = {**where, "document": document, "version": version["id"], "embedding": as_vector(VECTOR)}
            await session.run("chunks.insert", **identity, **chunk)
            texts.append(text)
        rows = await session.fetch("chunks.of_versions", versions=versions)
        chunks = [row["id"] for row in rows]
        index = postings.build(texts, b"k" * 32)
        await session.run(
            "snapshots.insert", **where, digest="s", pipeline="p", versions=versions, chunks=chunks,
            lengths=index.lengths.tobytes(), problems=as_json([]),
        )  # fmt: skip
        await session.run_many(
            "postings.insert", [{**where, "snapshot": "s", "term": t, "packed": p} for t, p in index.rows.items()]
        )


async def embed(texts: list[str]) -> Any:
    import numpy as np

    return np.array([VECTOR for _ in texts], np.float32)


SCOPES = {
    Scope("one", "bob"): {"open.md"},
    Scope("one", "ann"): {"open.md", "ann.md"},
    Scope("one", "bob", frozenset({"hr"})): {"open.md", "hr.md"},
    Scope("one", "group:hr"): {"open.md"},  # a name is no group
    Scope("two", "ann", frozenset({"hr"})): {"open.md", "hr.md", "ann.md"},
    Scope("three", "ann", frozenset({"hr"})): set(),
}


def test_a_search_finds_exactly_what_the_scope_may_read(dsn: str) -> None:
    async def work(store: Store) -> None:
        for mode in ("hybrid", "dense", "lexical"):
            for scope, visible in SCOPES.items():
                if scope.workspace == "three":
                    continue
                use = KnowledgeUse("kb", "s", top_k=10, mode=mode, min_score=0.0)
                found = await Searcher(store, KEYRING, embed).search(scope, use, "canary of documents")
                assert {p.document for p in found} == visible, (mode, scope)
                assert all(scope.workspace in p.text for p in found)

    run(dsn, work)


def test_every_content_query_keeps_to_the_scope(dsn: str) -> None:
    """Asked for all there is by id, of every workspace, a scope is given its own and no more."""

    async def work(store: Store) -> None:
        with psycopg.connect(dsn) as connection:  # the superuser sees all: the oracle
            rows = connection.execute("select id, document, workspace from proveout.chunks").fetchall()
        ids = [row[0] for row in rows]
        assert len(ids) == 2 * len(DOCUMENTS)
        for scope, visible in SCOPES.items():
            expected = {i for i, document, workspace in rows if workspace == scope.workspace and document in visible}
            async with store.within(scope) as session:
                passages = await session.fetch("search.passages", chunks=ids)
                near = await session.fetch("search.visible", chunks=ids, query=as_vector(VECTOR))
            assert {row["id"] for row in passages} == {row["id"] for row in near} == expected

    run(dsn, work)


def test_content_needs_a_scope(dsn: str) -> None:
    async def work(store: Store) -> None:
        async with store.unscoped() as session:
            with pytest.raises(TypeError, match=r"inside Store\.within"):
                await session.fetch("search.passages", chunks=[1])
        async with store.within(Scope.system("one", "test")):
            pass
        async with store.unscoped() as session:  # a pooled connection keeps nothing of the scope before
            cursor = await session._connection.execute("select count(*) as n from chunks")
            row = await cursor.fetchone()
            assert row is not None and row["n"] == 0

    run(dsn, work)


def test_an_ordinary_scope_cannot_write_content(dsn: str) -> None:
    async def work(store: Store) -> None:
        async def write(session: Session) -> None:
            await session.run("documents.put", workspace="one", knowledge="kb", id="x", readers=["everyone"])

        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with store.within(Scope("one", "ann")) as session:
                await write(session)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with store.within(Scope.system("two", "test")) as session:
                await write(session)

    run(dsn, work)


def test_the_service_role_can_neither_bypass_nor_rewrite(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "select rolsuper, rolbypassrls from pg_roles where rolname = 'proveout_service'"
        ).fetchone()
        assert row == (False, False)
        content = {"sealing_keys", "bundles", "documents", "versions", "chunks", "snapshots", "postings", "intents",
                   "completions", "payloads", "evaluations", "evaluation_cases"}  # fmt: skip
        forced = connection.execute(
            "select relname from pg_class where relnamespace = 'proveout'::regnamespace and relrowsecurity"
            " and relforcerowsecurity"
        ).fetchall()
        assert {name for (name,) in forced} == content
        connection.execute("set role proveout_service")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("delete from proveout.completions")


def test_no_text_lies_in_clear(dsn: str) -> None:
    """Every column of every table is searched for the words that the documents hold."""

    async def work(store: Store) -> None:
        with psycopg.connect(dsn) as connection:
            tables = connection.execute(
                "select relname from pg_class where relnamespace = 'proveout'::regnamespace and relkind = 'r'"
            ).fetchall()
            assert len(tables) > 10
            for (table,) in tables:
                rows = connection.execute(f"select t::text from proveout.{table} t").fetchall()
                for (row,) in rows:
                    assert "canary" not in row and b"canary".hex() not in row, table

    run(dsn, work)


def test_another_master_key_opens_nothing(dsn: str) -> None:
    async def work(store: Store) -> None:
        use = KnowledgeUse("kb", "s", top_k=10, mode="dense", min_score=0.0)
        with pytest.raises(Unsealable):
            await Searcher(store, Keyring(b"x" * 32), embed).search(Scope("one", "bob"), use, "canary")

    run(dsn, work)
