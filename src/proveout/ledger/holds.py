"""Legal holds: while one stands over a subject or an app, neither retention nor erasure touches what it covers."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from proveout.domain import Scope
from proveout.errors import NotFound
from proveout.ledger.erase import pseudonyms
from proveout.store.events import Kind, note
from proveout.store.pool import Session, Store
from proveout.store.sealing import Keyring, seal, unseal


class _Sealed(msgspec.Struct, frozen=True):
    """What of a hold is about a person."""

    subject: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold that stands. One of `subject` and `app` is None; `by` is the key that placed it."""

    id: str
    subject: str | None
    app: str | None
    reason: str
    by: str
    since: datetime


class Holds:
    """Places and lifts holds, each on record; the reason is sealed, for it may name people."""

    def __init__(self, store: Store, keyring: Keyring) -> None:
        self._store = store
        self._keyring = keyring

    async def place(self, scope: Scope, by: str, subject: str | None, app: str | None, reason: str) -> str:
        """Places a hold over a subject or an app; answers with its id."""
        subjects = [] if subject is None else await pseudonyms(self._store, self._keyring, scope, subject)
        hold = f"hold_{secrets.token_hex(8)}"
        content = msgspec.json.encode(_Sealed(subject, reason))
        async with self._store.within(scope) as session:
            await session.row("holds.lock")
            key = await self._keyring.workspace(session, scope.workspace)
            sealed = seal(key, content, f"hold {hold}")
            await session.run("holds.insert", id=hold, subjects=subjects, app=app, sealed=sealed, key=by)
            await _note(session, scope, Kind.HOLD_PLACED, by, hold, subjects, app)
        return hold

    async def standing(self, scope: Scope) -> list[Hold]:
        """The holds of the scope's workspace, oldest first."""
        async with self._store.within(scope) as session:
            key = await self._keyring.workspace(session, scope.workspace)
            rows = await session.fetch("holds.list")
        holds = []
        for row in rows:
            about = msgspec.json.decode(unseal(key, row["sealed"], f"hold {row['id']}"), type=_Sealed)
            holds.append(Hold(row["id"], about.subject, row["app"], about.reason, row["key"], row["since"]))
        return holds

    async def lift(self, scope: Scope, by: str, hold: str) -> None:
        """Lifts a hold. Raises NotFound."""
        async with self._store.within(scope) as session:
            row = await session.row("holds.delete", id=hold)
            if row is None:
                raise NotFound(f"There is no hold {hold}.")
            await _note(session, scope, Kind.HOLD_LIFTED, by, hold, row["subjects"], row["app"])


async def _note(
    session: Session, scope: Scope, kind: Kind, by: str, hold: str, subjects: Sequence[str], app: str | None
) -> None:
    about: dict[str, Any] = {"hold": hold, "subjects": list(subjects), "app": app}
    await note(session, scope.workspace, kind, by, about)
