"""What drafts are made of: a release's documents, its app's requests, and what people said of the answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from proveout.access.keys import principal_of
from proveout.domain import EVERYONE, Outcome, Principal, Release, Scope
from proveout.errors import Conflict, InvalidInput, NotFound
from proveout.evals import drafts, feedback
from proveout.evals.cases import Case, write_cases
from proveout.evals.runner import CONCURRENT, Answers, Asking, Runner
from proveout.evals.scorers.personal_data import mask
from proveout.jobs.runtime import Result, Steps
from proveout.retrieval.sealed import owner as owner_of
from proveout.retrieval.sealed import unseal_whole
from proveout.retrieval.snapshots import find
from proveout.serving.call import Rooms
from proveout.store.pool import Store
from proveout.store.sealing import Keyring, seal

_SPARE = 3  # times as many are looked at as are wanted: not each makes a draft
_MAX_TOKENS = 160
_BAD = 0.5  # a score below it

Document = tuple[str, str, Sequence[str]]
"""A document's id, its text, and a group of the asker that may read it; none where everybody may."""


@dataclass(frozen=True, slots=True)
class Gather:
    """Cases for a person to review. Every payload that is opened is on record as opened by the principal's key."""

    store: Store
    keyring: Keyring
    rooms: Rooms

    async def from_traffic(self, principal: Principal, release: Release, count: int) -> list[Case]:
        """Questions that users asked the app, drawn at random, without personal data that has a pattern."""
        async with self.store.within(principal.scope) as session:
            rows = await session.fetch("drafts.traffic", app=release.app, limit=_SPARE * count)
        asked: list[drafts.Asked] = []
        for row in rows:
            if len({one.question for one in asked}) >= count:  # no more is opened than is wanted
                break
            if one := await self._asked(principal, row["request"]):
                asked.append(one)
        return drafts.from_traffic(asked, mask, count)

    async def from_feedback(self, principal: Principal, release: Release, count: int) -> list[Case]:
        """Questions whose answer somebody corrected or was not helped by, newest first, masked as those of traffic."""
        async with self.store.within(principal.scope) as session:
            rows = await session.fetch("drafts.feedback", app=release.app, limit=_SPARE * count)
        asked = []
        for row in rows:
            try:
                said = await feedback.show(self.store, self.keyring, principal, row["request"])
            except NotFound:  # erased just now
                continue
            correction = said.get("correction", "")
            bad = said["score"] is not None and said["score"] < _BAD
            if (bad or correction) and (one := await self._asked(principal, row["request"])):
                asked.append(msgspec.structs.replace(one, correction=correction, bad=bad))
        return drafts.from_feedback(asked, mask)[:count]

    async def _asked(self, principal: Principal, request: str) -> drafts.Asked | None:
        """A request of one question; None for a turn of a conversation, which says nothing alone, and for what was
        erased just now."""
        try:
            payload, _ = await self.rooms.payloads.open(principal.scope, request, principal.key.id)
        except Conflict:
            return None
        questions = [message.content for message in payload.messages if message.role == "user"]
        if payload.embed or len(questions) != 1:
            return None
        return drafts.Asked(request, questions[0], payload.answer, groups=list(payload.groups))


class Draft:
    """The job `draft`: given the id of drafts, `{drafts, cases, documents, spent_usd, failed}`.

    Questions that the release's model asks about random documents that the caller's key may read, each asked by
    somebody in a group that may read the document. `failed`: the first reason why the model did not answer, or that
    there is no document to ask about.
    """

    def __init__(self, store: Store, keyring: Keyring, rooms: Rooms) -> None:
        self._store = store
        self._keyring = keyring
        self._rooms = rooms
        self._runner = Runner(store, keyring, rooms)

    async def __call__(self, steps: Steps, wanted: str) -> Result:
        return await steps.run("draft", self._draft, steps, wanted)

    async def _draft(self, steps: Steps, wanted: str) -> dict[str, Any]:
        async with self._store.within(steps.scope) as session:
            row = await session.row("drafts.get", id=wanted)
        if row is None:
            raise NotFound(f"There are no drafts {wanted}.")
        principal = principal_of(self._rooms.directory(), row["key"])
        if principal is None:
            raise InvalidInput("The key that asked for these drafts was revoked: ask again with another one.")
        release = self._rooms.directory().releases[steps.scope.workspace, row["app"], row["release"]]
        places = await self._places(principal, release)
        # Drawn by the drafts' id: after a crash the same documents are drawn, and their answers are known.
        places = random.Random(wanted).sample(sorted(places), min(len(places), _SPARE * row["count"]))  # noqa: S311
        found: list[Case] = []
        spent, read, whole = 0.0, 0, True
        failed = "" if places else f"{release.label} has no documents that your key reads: there is nothing to ask of."
        for first in range(0, len(places), CONCURRENT):
            await steps.progress(len(found), row["count"], f"{read} documents read, {spent:.4f} USD")
            if len(found) >= row["count"] or not whole:
                break
            documents = [await self._document(principal, place) for place in places[first : first + CONCURRENT]]
            left = None if row["budget_usd"] is None else max(0.0, row["budget_usd"] - spent)
            answers = await self._ask(steps.scope, wanted, principal, release, documents, left)
            for (at, _), said in sorted(answers.delivered.items()):
                if said.outcome is Outcome.FAILED:
                    failed = failed or said.text
                elif case := drafts.from_document(*documents[int(at)][:2], said.text, documents[int(at)][2]):
                    found.append(case)
            spent, read, whole = spent + answers.spent, read + len(answers.delivered), answers.whole
            found = drafts.distinct(found)
        found = found[: row["count"]]
        async with self._store.within(steps.scope) as session:
            key = await self._keyring.workspace(session, steps.scope.workspace)
            await session.run("drafts.finish", id=wanted, sealed=seal(key, write_cases(found).encode(), "drafts"))
        told = {"cases": len(found), "documents": read, "spent_usd": spent, "failed": failed}
        return {"drafts": wanted, **told}

    async def _ask(
        self,
        scope: Scope,
        wanted: str,
        principal: Principal,
        release: Release,
        documents: Sequence[Document],
        budget: float | None,
    ) -> Answers:
        model = release.manifest.model_for(principal.key.groups, "").name
        asker = replace(principal, key=replace(principal.key, models=principal.key.models | {model}))
        cases = [Case(str(at), drafts.prompt(text)) for at, (_, text, _) in enumerate(documents) if text]
        asking = Asking(wanted, model, asker, cases, budget_usd=budget, max_tokens=_MAX_TOKENS)
        return await self._runner.ask(scope, asking, _told_elsewhere)

    async def _places(self, principal: Principal, release: Release) -> list[tuple[str, str, int]]:
        """Base, document and serial of what the release searches and the principal may read."""
        found = []
        scope = principal.scope
        async with self._store.within(scope) as session:
            for use in release.manifest.knowledge:
                snapshot = await find(session, scope, use.name, use.snapshot or None)
                about = {"workspace": scope.workspace, "knowledge": use.name, "snapshot": snapshot["digest"]}
                row = await session.row("snapshots.documents", **about)
                found += [(use.name, document, snapshot["serial"]) for document in (row["digests"] if row else ())]
        return found

    async def _document(self, principal: Principal, place: tuple[str, str, int]) -> Document:
        knowledge, document, serial = place
        workspace = principal.key.workspace
        async with self._store.within(principal.scope) as session:
            about = {"workspace": workspace, "knowledge": knowledge, "document": document, "serial": serial}
            row = await session.row("versions.get", **about)
            if row is None:  # deleted just now
                return document, "", []
            key = await self._keyring.unwrap(
                session, workspace, "document", owner_of(knowledge, document), row["wrapped"]
            )
        mine = [group for group in sorted(principal.key.groups) if f"group:{group}" in row["readers"]]
        return document, unseal_whole(key, row["sealed"]).text, [] if EVERYONE in row["readers"] else mine[:1]


async def _told_elsewhere(done: int, total: int, spent: float) -> None:
    """Reports nothing: the job's progress counts drafts, not calls."""
