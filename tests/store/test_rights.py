"""Row-level security: what a scope may not see is not there, whatever is asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import psycopg
import pytest

from bases import Bases
from bases import run as run_bases
from proveout.domain import Scope
from proveout.store.pool import Session, as_vector
from proveout.store.sealing import Keyring, Unsealable

VECTOR = as_vector([0.125] * 64)
DOCUMENTS = {"open.md": ["everyone"], "hr.md": ["group:hr"], "nobody.md": [], "ann.md": ["user:ann"]}


def run(dsn: str, work: Callable[[Bases], Awaitable[None]]) -> None:
    """`work` with the same documents in two workspaces, each with a text of its own."""

    async def fill(bases: Bases) -> None:
        for workspace in ("one", "two"):
            rows = {d: (f"canary of {d} in {workspace}", readers) for d, readers in DOCUMENTS.items()}
            await bases.push(workspace, "kb", rows)
        await work(bases)

    run_bases(dsn, ["one", "two"], fill)


SCOPES = {
    Scope("one", "bob"): {"open.md"},
    Scope("one", "ann"): {"open.md", "ann.md"},
    Scope("one", "bob", frozenset({"hr"})): {"open.md", "hr.md"},
    Scope("one", "group:hr"): {"open.md"},  # a name is no group
    Scope("two", "ann", frozenset({"hr"})): {"open.md", "hr.md", "ann.md"},
    Scope("three", "ann", frozenset({"hr"})): set(),
}


def test_a_search_finds_exactly_what_the_scope_may_read(dsn: str) -> None:
    async def work(bases: Bases) -> None:
        for mode in ("hybrid", "dense", "lexical"):
            for scope, visible in SCOPES.items():
                if scope.workspace == "three":
                    continue
                found = await bases.search(scope, "kb", "canary of documents", mode)
                assert {p.document for p in found} == visible, (mode, scope)
                assert all(scope.workspace in p.text for p in found)

    run(dsn, work)


def test_every_content_query_keeps_to_the_scope(dsn: str) -> None:
    """Asked for all there is by id, of every workspace, a scope is given its own and no more."""

    async def work(bases: Bases) -> None:
        with psycopg.connect(dsn) as connection:  # the superuser sees all: the oracle
            rows = connection.execute(
                "select c.id, v.document, v.workspace from proveout.versions v join proveout.chunks c on v.id = version"
            ).fetchall()
            versions = connection.execute("select array_agg(id) from proveout.versions").fetchone()
        ids = [row[0] for row in rows]
        assert versions is not None and len(ids) == 2 * len(DOCUMENTS)
        for scope, visible in SCOPES.items():
            expected = {i for i, document, workspace in rows if workspace == scope.workspace and document in visible}
            async with bases.store.within(scope) as session:
                passages = await session.fetch("search.passages", chunks=ids)
                asked = {"query": VECTOR, "dimensions": 64}
                near = await session.fetch("search.visible", chunks=ids, **asked)
                exact = await session.fetch("search.exact", versions=versions[0], limit=100, **asked)
                whole = [
                    await session.row("versions.get", workspace=w, knowledge="kb", document=d, serial=1)
                    for w in ("one", "two") for d in DOCUMENTS
                ]  # fmt: skip
                index = {"workspace": scope.workspace, "knowledge": "kb", "serial": 1, "limit": 100}
                nearest = await session.fetch("search.nearest", **index, **asked)
            assert {row["document"] for row in whole if row} == {d for i, d, _ in rows if i in expected}
            for found in (passages, near, exact, nearest):
                assert {row["id"] for row in found} == expected

    run(dsn, work)


def test_content_needs_a_scope(dsn: str) -> None:
    async def work(bases: Bases) -> None:
        async with bases.store.unscoped() as session:
            with pytest.raises(TypeError, match=r"inside Store\.within"):
                await session.fetch("search.passages", chunks=[1])
        async with bases.store.within(Scope.system("one", "test")):
            pass
        async with bases.store.unscoped() as session:  # a pooled connection keeps nothing of the scope before
            cursor = await session._connection.execute("select count(*) as n from chunks")
            row = await cursor.fetchone()
            assert row is not None and row["n"] == 0

    run(dsn, work)


def test_an_ordinary_scope_cannot_write_content(dsn: str) -> None:
    async def work(bases: Bases) -> None:
        async def write(session: Session) -> None:
            await session.run("knowledge.ensure", workspace="one", name="x", origin="push")

        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with bases.store.within(Scope("one", "ann")) as session:
                await write(session)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with bases.store.within(Scope.system("two", "test")) as session:
                await write(session)
        async with bases.store.within(Scope("one", "ann")) as session:
            for document in DOCUMENTS:
                where = {"workspace": "one", "knowledge": "kb"}
                assert await session.run("versions.delete", **where, documents=[document]) == 0

    run(dsn, work)


def test_the_service_role_can_neither_bypass_nor_rewrite(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "select rolsuper, rolbypassrls from pg_roles where rolname = 'proveout_service'"
        ).fetchone()
        assert row == (False, False)
        content = {
            *("knowledge", "versions", "chunks", "snapshots", "members", "segments", "postings", "uploads"),
            *("sealing_keys", "bundles", "intents", "completions", "payloads", "evaluations", "evaluation_cases"),
            *("events", "tiles", "checkpoints", "witnesses", "holds", "datasets", "drafts", "delivered", "feedback"),
            "judgements",
        }
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

    async def work(bases: Bases) -> None:
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
    async def work(bases: Bases) -> None:
        with pytest.raises(Unsealable):
            await Bases(bases.store, Keyring(b"x" * 32)).search(Scope("one", "bob"), "kb", "canary", "dense")

    run(dsn, work)
