"""Whatever is pushed, shared, revoked, deleted and pushed again: a user sees what a plain model says, no more, no less.

Three workspaces with the same bases and document ids, five users each, a canary of its own in every text.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from bases import Bases
from proveout.domain import Scope, SearchMode
from proveout.errors import NotFound
from proveout.retrieval import search as searching
from proveout.store.pool import Store
from proveout.store.sealing import Keyring

WORKSPACES = ("red", "green", "blue")
USERS = {"ann": (), "bob": ("hr",), "cid": ("hr", "it"), "dot": ("it",), "everyone": ("user:ann",)}  # two odd names
MARKS = ("everyone", "group:hr", "group:it", "user:ann", "user:dot", "group:user:ann")
BASES = ("kb", "other")
MODES: tuple[SearchMode, ...] = ("hybrid", "dense", "lexical")

documents = st.sampled_from([f"doc/{i}" for i in range(4)])
readers = st.lists(st.sampled_from(MARKS), max_size=2, unique=True)
workspaces, bases = st.sampled_from(WORKSPACES), st.sampled_from(BASES)


@dataclass
class Text:
    canary: str
    readers: list[str]


@dataclass
class Model:
    """Every base as it should be: documents by id, and each snapshot's documents as they were."""

    documents: dict[str, Text] = field(default_factory=dict)
    snapshots: dict[str, dict[str, str]] = field(default_factory=dict)

    def visible(self, scope: Scope, snapshot: str | None) -> dict[str, str]:
        """Readers are those of now, in old snapshots too; what was destroyed is in none."""
        held = self.snapshots[snapshot] if snapshot else {d: t.canary for d, t in self.documents.items()}
        marks = set(scope.readers)
        return {d: canary for d, canary in held.items() if marks & set(self.documents[d].readers)}


def machine(dsn: str, loop: asyncio.AbstractEventLoop) -> type[RuleBasedStateMachine]:
    """The machine, over this database."""

    class Rights(RuleBasedStateMachine):
        @initialize()
        def begin(self) -> None:
            self.models = {(w, b): Model() for w in WORKSPACES for b in BASES}
            self.count = 0
            loop.run_until_complete(self._open())

        async def _open(self) -> None:
            self.store = Store(dsn, size=3)
            await self.store.open()
            async with self.store.unscoped() as session:
                for name in WORKSPACES:
                    await session.run("workspaces.ensure", name=name, secret=name.encode() * 8)
                    await session._connection.execute("reset role")
                    await session._connection.execute("truncate proveout.knowledge, proveout.sealing_keys cascade")
                    await session._connection.execute("set role proveout_service")
            self.bases = Bases(self.store, Keyring(b"m" * 32))

        def teardown(self) -> None:
            loop.run_until_complete(self.store.close())

        def _push(self, workspace: str, base: str, rows: dict[str, tuple[str, list[str]] | None]) -> None:
            made = loop.run_until_complete(self.bases.push(workspace, base, rows))
            model = self.models[workspace, base]
            for document, row in rows.items():
                if row is None:
                    model.documents.pop(document, None)
                    for held in model.snapshots.values():
                        held.pop(document, None)
                else:
                    model.documents[document] = Text(row[0], row[1])
            model.snapshots[made["snapshot"]] = {d: t.canary for d, t in model.documents.items()}
            self._check(workspace, base, MODES[self.count % 3], None, exact=True)

        def _canary(self, workspace: str) -> str:
            self.count += 1
            return f"The canary{self.count}{workspace} sings in the shared garden."

        @rule(workspace=workspaces, base=bases, batch=st.dictionaries(documents, readers, min_size=1, max_size=4))
        def push(self, workspace: str, base: str, batch: dict[str, list[str]]) -> None:
            self._push(workspace, base, {d: (self._canary(workspace), marks) for d, marks in batch.items()})

        @rule(workspace=workspaces, base=bases, document=documents, marks=readers)
        def share_or_revoke(self, workspace: str, base: str, document: str, marks: list[str]) -> None:
            held = self.models[workspace, base].documents.get(document)
            if held is not None:
                self._push(workspace, base, {document: (held.canary, marks)})

        @rule(workspace=workspaces, base=bases, gone=st.sets(documents, min_size=1, max_size=2))
        def delete(self, workspace: str, base: str, gone: set[str]) -> None:
            if self.models[workspace, base].snapshots:
                self._push(workspace, base, dict.fromkeys(gone))

        @rule(workspace=workspaces, base=bases, mode=st.sampled_from(MODES), exact=st.booleans(), data=st.data())
        def search(self, workspace: str, base: str, mode: SearchMode, exact: bool, data: Any) -> None:
            snapshot = data.draw(st.sampled_from([None, *sorted(self.models[workspace, base].snapshots)]))
            self._check(workspace, base, mode, snapshot, exact)

        def _check(self, workspace: str, base: str, mode: SearchMode, snapshot: str | None, exact: bool) -> None:
            """Every user's search, by comparison or through the vector index, gives what the model has."""
            model = self.models[workspace, base]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(searching, "EXACT", 10_000 if exact else 0)
                patch.setattr(searching, "SHARE", 10**9)
                for user, groups in USERS.items():
                    scope = Scope(workspace, user, frozenset(groups))
                    try:
                        found = loop.run_until_complete(
                            self.bases.search(scope, base, "canary garden", mode, snapshot or "")
                        )
                    except NotFound:
                        assert not model.snapshots
                        continue
                    seen = sorted((passage.document, passage.text) for passage in found)
                    assert seen == sorted(model.visible(scope, snapshot).items()), (scope, base, mode, snapshot)

        @rule(workspace=workspaces, base=bases, document=documents)
        def read(self, workspace: str, base: str, document: str) -> None:
            """One document whole, and its passages by their ids, as every user of every workspace asks for them."""
            model = self.models[workspace, base]
            everything = Scope(workspace, "judge", unrestricted=True)
            try:
                found = loop.run_until_complete(self.bases.search(everything, base, "canary garden"))
            except NotFound:
                return
            ids = {int(passage.chunk): 0.0 for passage in found}
            for other in WORKSPACES:
                for user, groups in USERS.items():
                    scope = Scope(other, user, frozenset(groups))
                    read = loop.run_until_complete(self.bases.searcher.passages(scope, ids))
                    expected = model.visible(scope, None) if other == workspace else {}
                    assert {p.document: p.text for p in read} == expected

    return Rights


def test_what_a_user_sees_is_what_the_model_says(dsn: str) -> None:
    loop = asyncio.new_event_loop()
    try:
        run_state_machine_as_test(
            machine(dsn, loop),
            settings=settings(
                max_examples=8, stateful_step_count=16, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
    finally:
        loop.close()
