"""Bases: pushes are whole, snapshots stay, rights are live, and every way of searching finds the same."""

from __future__ import annotations

import psycopg
import pytest

from bases import Bases, run, texts
from proveout.domain import Scope
from proveout.errors import Conflict, InvalidInput, NotFound
from proveout.retrieval import search as searching
from proveout.retrieval.snapshots import begin

ANN, BOB = Scope("one", "ann"), Scope("one", "bob", frozenset({"hr"}))
OPEN = ["everyone"]


def test_a_push_is_searched_replaced_and_destroyed(dsn: str) -> None:
    async def work(bases: Bases) -> None:
        made = await bases.push("one", "kb", {"a": ("The heron fishes.", OPEN), "b": ("The otter swims.", OPEN)})
        assert (made["documents"], made["created"], made["deleted"]) == (2, 2, 0)
        for mode in ("hybrid", "dense", "lexical"):
            found = await bases.search(ANN, "kb", "heron", mode)
            assert found[0].document == "a" and found[0].text == "The heron fishes."
        again = await bases.push("one", "kb", {"a": ("The heron sleeps.", OPEN)})
        assert (again["documents"], again["created"]) == (1, 0) and again["snapshot"] != made["snapshot"]
        assert texts(await bases.search(ANN, "kb", "heron otter"))["a"] == "The heron sleeps."
        old = texts(await bases.search(ANN, "kb", "heron otter", snapshot=made["snapshot"]))
        assert old == {"a": "The heron fishes.", "b": "The otter swims."}
        gone = await bases.push("one", "kb", {"a": None})
        assert gone["deleted"] == 1
        assert set(texts(await bases.search(ANN, "kb", "heron otter"))) == {"b"}
        old = texts(await bases.search(ANN, "kb", "heron otter", snapshot=made["snapshot"]))
        assert set(old) == {"b"}, "what is destroyed is in old snapshots no more"
        back = await bases.push("one", "kb", {"a": ("The heron fishes.", OPEN)})
        assert back["snapshot"] == made["snapshot"], "the same content is the same snapshot"
        assert set(texts(await bases.search(ANN, "kb", "heron otter"))) == {"a", "b"}
        with psycopg.connect(dsn) as connection:
            assert connection.execute("select count(*) from proveout.uploads").fetchone() == (0,)

    run(dsn, ["one"], work)


def test_a_rollback_is_pushed_upon(dsn: str) -> None:
    async def work(bases: Bases) -> None:
        first = await bases.push("one", "kb", {"a": ("The heron fishes.", OPEN), "b": ("The otter swims.", OPEN)})
        await bases.push("one", "kb", {"a": ("The heron sleeps.", OPEN), "b": None})
        third = await bases.push("one", "kb", {"d": ("The vole digs.", OPEN)})
        await bases.rollback("one", "kb", first["snapshot"])
        assert texts(await bases.search(ANN, "kb", "heron otter vole")) == {"a": "The heron fishes."}
        await bases.push("one", "kb", {"c": ("The eel bites.", OPEN)})
        found = texts(await bases.search(ANN, "kb", "heron otter vole eel"))
        assert found == {"a": "The heron fishes.", "c": "The eel bites."}
        found = texts(await bases.search(ANN, "kb", "heron otter vole eel", snapshot=third["snapshot"]))
        assert found == {"a": "The heron sleeps.", "d": "The vole digs."}

    run(dsn, ["one"], work)


def test_readers_are_live_in_every_snapshot(dsn: str) -> None:
    async def work(bases: Bases) -> None:
        made = await bases.push("one", "kb", {"a": ("The heron fishes.", []), "b": ("The otter swims.", ["group:hr"])})
        assert not await bases.search(ANN, "kb", "heron otter")
        assert set(texts(await bases.search(BOB, "kb", "heron otter"))) == {"b"}
        shared = await bases.push("one", "kb", {"a": ("The heron fishes.", ["user:ann"])})
        assert shared["snapshot"] == made["snapshot"], "who may read is no content of what is pushed"
        assert set(texts(await bases.search(ANN, "kb", "heron otter"))) == {"a"}
        await bases.push("one", "kb", {"a": ("The heron dives.", ["group:hr"])})
        for snapshot in ("", made["snapshot"]):
            assert not await bases.search(ANN, "kb", "heron otter", snapshot=snapshot)
            assert set(texts(await bases.search(BOB, "kb", "heron otter", snapshot=snapshot))) == {"a", "b"}

    run(dsn, ["one"], work)


def test_a_folder_s_readers_belong_to_its_snapshot(dsn: str) -> None:
    """Another release of the same folder opens nothing of an older one's."""

    async def work(bases: Bases) -> None:
        files = {
            "hr/pay.md": b"The heron earns 9.",
            "open.md": b"The otter swims.",
            "own.md": b"---\nreaders: [user:ann]\n---\nThe eel.",
        }
        closed = await bases.folder("one", "kb", files, {"hr/**": ["group:hr"]})
        assert set(texts(await bases.search(ANN, "kb", "heron otter eel"))) == {"open.md", "own.md"}
        assert set(texts(await bases.search(BOB, "kb", "heron otter eel"))) == {"open.md", "hr/pay.md"}
        opened = await bases.folder("one", "kb", {**files, "hr/pay.md": b"Nothing."}, {})
        assert opened.digest != closed.digest
        assert set(texts(await bases.search(ANN, "kb", "heron", snapshot=closed.digest))) == {"open.md", "own.md"}
        again = await bases.folder("one", "kb", files, {"hr/**": ["group:hr"]})
        assert again.digest == closed.digest and again.documents == 3
        with pytest.raises(Conflict, match="app's folder"):
            await bases.push("one", "kb", {"a": ("x", OPEN)})

    run(dsn, ["one"], work)


def test_wrong_marks_leave_a_document_out(dsn: str) -> None:
    async def work(bases: Bases) -> None:
        files = {"a.md": b"---\nreaders: hr\n---\nThe heron.", "b.md": b"The otter."}
        made = await bases.folder("one", "kb", files, {})
        assert [p["document"] for p in made.problems] == ["a.md"] and "group:NAME" in made.problems[0]["message"]
        assert set(texts(await bases.search(BOB, "kb", "heron otter"))) == {"b.md"}

    run(dsn, ["one"], work)


def test_a_base_that_is_not_there(dsn: str) -> None:
    async def work(bases: Bases) -> None:
        with pytest.raises(NotFound):
            await bases.search(ANN, "kb", "heron")
        await bases.push("one", "kb", {"a": ("The heron.", OPEN)})
        with pytest.raises(NotFound):
            await bases.search(ANN, "kb", "heron", snapshot="sha256:0")
        with pytest.raises(NotFound):
            await bases.search(Scope("two", "ann"), "kb", "heron")
        with pytest.raises(InvalidInput, match="empty"):
            await bases.push("one", "kb", {"a": (" \n", OPEN)})

    run(dsn, ["one", "two"], work)


def test_a_name_is_taken_by_what_it_holds(dsn: str) -> None:
    async def work(bases: Bases) -> None:
        async with bases.store.within(Scope.system("one", "test")) as session:  # a push that came to nothing
            await begin(session, Scope.system("one", "test"), "kb", "push")
        await bases.folder("one", "kb", {"a.md": b"The heron."}, {})
        with pytest.raises(Conflict, match="from an app's folder"):
            await bases.push("one", "kb", {"b": ("The otter.", OPEN)})
        await bases.push("one", "other", {"b": ("The otter.", OPEN)})
        with pytest.raises(Conflict, match="by pushes"):
            await bases.folder("one", "other", {"a.md": b"The heron."}, {})
        assert set(texts(await bases.search(ANN, "other", "heron otter"))) == {"b"}

    run(dsn, ["one"], work)


def test_many_segments_become_few_and_score_alike(dsn: str) -> None:
    async def work(bases: Bases) -> None:
        rows = {f"d{i}": (f"The heron number {i} fishes " + "in the river " * (i % 3), OPEN) for i in range(12)}
        for document, row in rows.items():
            await bases.push("one", "bit", {document: row})
        await bases.push("one", "bit", {"d3": None})
        await bases.push("one", "bit", {"d4": ("The eel.", OPEN)})
        await bases.push("one", "whole", {d: r for d, r in rows.items() if d != "d3"} | {"d4": ("The eel.", OPEN)})
        for query in ("heron river", "eel", "number 7"):
            bit, whole = [await bases.search(ANN, kb, query, "lexical") for kb in ("bit", "whole")]
            assert {p.document: p.score for p in bit} == pytest.approx({p.document: p.score for p in whole})
            assert bit
        with psycopg.connect(dsn) as connection:
            counts = connection.execute("select knowledge, count(*) from proveout.segments group by 1").fetchall()
            held = {str(name): int(count) for name, count in counts}
            assert held["bit"] <= 6 and held["whole"] == 1

    run(dsn, ["one"], work)


def test_the_vector_index_finds_what_the_comparison_finds(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(bases: Bases) -> None:
        birds = ("heron", "otter", "eel", "pike", "trout", "swan", "vole")
        rows = {
            f"d{i}": (
                f"The {birds[i % 7]} met the {birds[i % 5]} and {birds[i % 3]} at {i} o'clock.",
                ["everyone"] if i % 2 else ["group:hr"],
            )
            for i in range(300)
        }
        await bases.push("one", "kb", rows)
        await bases.push("one", "other", rows)
        system = Scope.system("one", "test")
        async with bases.store.within(system) as session:
            await session.run("vectors.index", workspace="one", knowledge="kb", dimensions=64)
        for query in ("heron and eel", "the swan at 40", "vole"):
            exact = await bases.search(ANN, "kb", query, "dense", k=10)
            with monkeypatch.context() as patch:
                patch.setattr(searching, "EXACT", 0)
                patch.setattr(searching, "SHARE", 10**9)
                near = await bases.search(ANN, "kb", query, "dense", k=10)
                hybrid = await bases.search(ANN, "kb", query, "hybrid", k=10)
            assert [p.score for p in near] == pytest.approx([p.score for p in exact], abs=1e-6)
            assert len(near) == 10 and all(int(p.document[1:]) % 2 for p in [*near, *hybrid])

    run(dsn, ["one"], work)
    with psycopg.connect(dsn) as connection:
        sql = connection.execute("select proveout.nearest_query_v1('one', 'kb', 64)").fetchone()
        assert sql is not None
        connection.execute("set enable_seqscan = off; set enable_sort = off; set enable_bitmapscan = off")
        vector = "[" + ",".join(["0.1"] * 64) + "]"
        connection.execute("set role proveout_service")
        connection.execute(
            "select set_config('proveout.workspace', 'one', false), set_config('proveout.readers', '{everyone}', false)"
        )
        text = sql[0].replace("$1", f"'{vector}'").replace("$2", "1").replace("$3", "100")
        plan = "\n".join(row[0] for row in connection.execute("explain " + text).fetchall())
        assert "Index Scan using vectors_" in plan and "Order By" in plan and "Sort" not in plan, plan
