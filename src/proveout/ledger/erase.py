"""Erasure of a subject: keys, salts, records and payloads go; the log keeps its entries and still verifies.

A subject under a legal hold is not erased.
"""

from __future__ import annotations

from collections.abc import Sequence

from proveout.domain import Scope
from proveout.errors import Conflict
from proveout.jobs.runtime import Result, Steps
from proveout.store.events import Kind, note
from proveout.store.pool import Session, Store
from proveout.store.purge import purge
from proveout.store.sealing import Keyring


async def pseudonyms(store: Store, keyring: Keyring, scope: Scope, subject: str) -> list[str]:
    """What stands for a subject in the records: as the user that clients named, and as the id of a key."""
    async with store.within(scope) as session:
        names = (f"user:{subject}", f"key:{subject}")
        return [await keyring.pseudonym(session, scope.workspace, name) for name in names]


class Erase:
    """The job `erase`: given the key that asked for it and pseudonyms, `{payloads, records, not_purged}`.

    Ends with Conflict where a hold stands.
    """

    def __init__(self, store: Store, dsn: str) -> None:
        self._store = store
        self._dsn = dsn

    async def __call__(self, steps: Steps, by: str, *subjects: str) -> Result:
        done = await steps.run("destroy", self._destroy, steps.scope, by, subjects)
        return {**done, "not_purged": await steps.run("purge", purge, self._dsn)}

    async def _destroy(self, scope: Scope, by: str, subjects: tuple[str, ...]) -> dict[str, int]:
        async with self._store.within(scope) as session:
            await _refuse_held(session, subjects)
            where = {"workspace": scope.workspace, "kind": "subject", "owners": list(subjects)}
            await session.run("sealing.destroy", **where)
            payloads = await session.run("payloads.erase", subjects=list(subjects))
            await session.run("feedback.erase", subjects=list(subjects))
            records = await session.run("events.erase", subjects=list(subjects))
            await session.run("configuration.changed")
            about = {"subjects": list(subjects), "payloads": payloads, "records": records}
            await note(session, scope.workspace, Kind.SUBJECT_ERASED, by, about)
        return {"payloads": payloads, "records": records}


async def _refuse_held(session: Session, subjects: Sequence[str]) -> None:
    """Until the session ends, none is placed over these subjects. Raises Conflict, naming the holds that stand."""
    await session.row("holds.lock")
    if rows := await session.fetch("holds.over", subjects=list(subjects)):
        names = ", ".join(row["id"] for row in rows)
        raise Conflict(f"A legal hold keeps this subject: {names}. See `proveout hold list`; lift it first.")
