"""What drafts are made of: a release's documents, its app's requests, and what people said of the answers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

from proveout.domain import EVERYONE, Message, Principal, Release
from proveout.errors import Conflict, NotFound, Truncated
from proveout.evals import drafts, feedback
from proveout.evals.cases import Case
from proveout.evals.runner import CONCURRENT, PURPOSE, whole
from proveout.evals.scorers.personal_data import mask
from proveout.ledger.journal import new_request_id
from proveout.retrieval.sealed import owner as owner_of
from proveout.retrieval.sealed import unseal_whole
from proveout.retrieval.snapshots import find
from proveout.serving.call import Asked, Call, Rooms
from proveout.store.pool import Store
from proveout.store.sealing import Keyring

_SPARE = 3  # times as many are looked at as are wanted: not each makes a draft
_MAX_TOKENS = 160
_BAD = 0.5  # a score below it


@dataclass(frozen=True, slots=True)
class Gather:
    """Cases for a person to review. Every payload that is opened is on record as opened by the principal's key."""

    store: Store
    keyring: Keyring
    rooms: Rooms

    async def from_documents(self, principal: Principal, release: Release, count: int) -> list[Case]:
        """Questions that the release's model asks of documents drawn at random, as far as the principal reads them; in
        a group that may read the document."""
        model = release.manifest.model_for(principal.key.groups, "").name
        asker = replace(principal, key=replace(principal.key, models=principal.key.models | {model}))

        async def ask(prompt: str) -> str:
            asked = Asked(model, (Message("user", prompt),), max_tokens=_MAX_TOKENS)
            call = Call(request=new_request_id(), principal=asker, asked=asked, streamed=False, purpose=PURPOSE)
            try:
                return (await whole(call, self.rooms))[1]
            except Truncated:
                return ""

        async def drafted(at: tuple[str, str, int]) -> list[Case]:
            text, groups = await self._document(principal, *at)
            made = await drafts.from_documents({at[1]: text}, ask)
            return [msgspec.structs.replace(case, groups=groups) for case in made]

        places = await self._places(principal, release)
        places = random.SystemRandom().sample(places, min(len(places), _SPARE * count))
        found: list[Case] = []
        for first in range(0, len(places), CONCURRENT):
            if len(found) >= count:
                break
            made = await asyncio.gather(*map(drafted, places[first : first + CONCURRENT]))
            found += [case for cases in made for case in cases]
        return found[:count]

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

    async def _places(self, principal: Principal, release: Release) -> list[tuple[str, str, int]]:
        """Base, document and serial of what the release searches and the principal may read."""
        found = []
        scope = principal.scope
        async with self.store.within(scope) as session:
            for use in release.manifest.knowledge:
                snapshot = await find(session, scope, use.name, use.snapshot or None)
                about = {"workspace": scope.workspace, "knowledge": use.name, "snapshot": snapshot["digest"]}
                row = await session.row("snapshots.documents", **about)
                found += [(use.name, document, snapshot["serial"]) for document in (row["digests"] if row else ())]
        return found

    async def _document(
        self, principal: Principal, knowledge: str, document: str, serial: int
    ) -> tuple[str, Sequence[str]]:
        """A document's text, and a group of the principal that may read it; none where everybody may."""
        workspace = principal.key.workspace
        async with self.store.within(principal.scope) as session:
            about = {"workspace": workspace, "knowledge": knowledge, "document": document, "serial": serial}
            row = await session.row("versions.get", **about)
            if row is None:  # deleted just now
                return "", []
            key = await self.keyring.unwrap(
                session, workspace, "document", owner_of(knowledge, document), row["wrapped"]
            )
        mine = [group for group in sorted(principal.key.groups) if f"group:{group}" in row["readers"]]
        return unseal_whole(key, row["sealed"]).text, [] if EVERYONE in row["readers"] else mine[:1]
