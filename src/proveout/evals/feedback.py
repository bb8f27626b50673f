"""What people, or systems downstream, made of an answer: kept with the request, and told to the log without words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from proveout.domain import Principal, Right
from proveout.errors import Conflict, NotFound
from proveout.evals.online import is_negative
from proveout.store.events import Kind, note
from proveout.store.pool import Row, Store, as_json
from proveout.store.sealing import Keyring, seal, unseal


@dataclass(frozen=True, slots=True)
class Feedback:
    """On one request. `outcome` is what came of it, numbers by name: solved, minutes, escalated, an own KPI.

    A `thumb` counts as a score of 0 or 1 and, where it is down, as negative feedback; a `score` in [0, 1] is a
    reviewer's or a judge's. What is None, or not among the outcomes, is not said.
    """

    request: str
    score: float | None = None
    thumb: bool | None = None  # True: up
    comment: str | None = None
    correction: str | None = None
    outcome: Mapping[str, float] | None = None

    @property
    def value(self) -> float | None:
        return self.score if self.thumb is None else float(self.thumb)


class Words(msgspec.Struct, frozen=True):
    """What of feedback is sealed."""

    comment: str = ""
    correction: str = ""


async def give(store: Store, keyring: Keyring, principal: Principal, given: Feedback) -> None:
    """Keeps feedback, beside what was said before of something else: of each, the last word stands.

    Words are sealed under the key of the request's subject.
    Raises NotFound for a request that is not the caller's to judge, Conflict for one that has not ended.
    """
    scope = principal.scope
    async with store.within(scope) as session:
        row = await session.row("feedback.of_request", request=given.request)
        if row is None or not _may_judge(principal, row):
            raise NotFound(f"There is no request {given.request}.")
        if row["subject"] is None:
            raise Conflict(f"{given.request} has not ended, or its subject was erased: there is nothing to judge.")
        outcome, by = given.outcome or {}, principal.key.id
        kept = {"score": given.value, "outcome": as_json(outcome)}
        before = await session.row("feedback.put", request=given.request, subject=row["subject"], key=by, **kept)
        said = {"comment": given.comment, "correction": given.correction}
        said = {name: words for name, words in said.items() if words is not None}
        if said:
            key = await keyring.key(session, scope.workspace, "subject", row["subject"])
            words = msgspec.structs.replace(_unsealed(key, given.request, before["sealed"] if before else None), **said)
            sealed = seal(key, msgspec.json.encode(words), _purpose(given.request)) if words != Words() else None
            await session.run("feedback.word", request=given.request, sealed=sealed)
        about = {name: row[name] for name in ("request", "app", "release", "arm")}
        told = {"score": given.score, "outcome": outcome, "worded": any(said.values())}
        negative = is_negative(None if given.thumb is None else given.value, outcome)
        await note(session, scope.workspace, Kind.FEEDBACK_GIVEN, by, {**about, **told, "negative": negative})


async def show(store: Store, keyring: Keyring, principal: Principal, request: str) -> dict[str, Any]:
    """What was said of a request; its words for whoever may replay it, on record as opened. Raises NotFound."""
    scope = principal.scope
    async with store.within(scope) as session:
        row = await session.row("feedback.get", request=request)
        if row is None:
            raise NotFound(f"There is no feedback on {request}.")
        told: dict[str, Any] = {"request": request, "score": row["score"], "outcome": row["outcome"], "at": row["at"]}
        if row["sealed"] is not None and Right.REQUESTS_REPLAY in principal.rights:
            key = await keyring.key(session, scope.workspace, "subject", row["subject"])
            told |= msgspec.to_builtins(_unsealed(key, request, row["sealed"]))
            await note(session, scope.workspace, Kind.PAYLOAD_OPENED, principal.key.id, {"request": request})
    return told


def _unsealed(key: bytes, request: str, sealed: bytes | None) -> Words:
    if sealed is None:
        return Words()
    return msgspec.json.decode(unseal(key, sealed, _purpose(request)), type=Words)


def _purpose(request: str) -> str:
    return f"feedback {request}"


def _may_judge(principal: Principal, row: Row) -> bool:
    """Whoever asked, and whoever may look at requests to the app."""
    if row["key"] == principal.key.id:
        return True
    return Right.REQUESTS_READ in principal.rights and (row["app"] is None or principal.reaches(row["app"]))
