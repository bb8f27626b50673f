"""Erasure of a subject: keys, salts, records and payloads go; the log keeps its entries and still verifies."""

from __future__ import annotations

from proveout.domain import Scope
from proveout.jobs.runtime import Result, Steps
from proveout.store.events import Kind, note
from proveout.store.pool import Store
from proveout.store.purge import purge
from proveout.store.sealing import Keyring


async def pseudonyms(store: Store, keyring: Keyring, scope: Scope, subject: str) -> list[str]:
    """What stands for a subject in the records: as the user that clients named, and as the id of a key."""
    async with store.within(scope) as session:
        names = (f"user:{subject}", f"key:{subject}")
        return [await keyring.pseudonym(session, scope.workspace, name) for name in names]


class Erase:
    """The job `erase`: given the key that asked for it and pseudonyms, `{payloads, records, not_purged}`."""

    def __init__(self, store: Store, dsn: str) -> None:
        self._store = store
        self._dsn = dsn

    async def __call__(self, steps: Steps, by: str, *subjects: str) -> Result:
        done = await steps.run("destroy", self._destroy, steps.scope, by, subjects)
        return {**done, "not_purged": await steps.run("purge", purge, self._dsn)}

    async def _destroy(self, scope: Scope, by: str, subjects: tuple[str, ...]) -> dict[str, int]:
        async with self._store.within(scope) as session:
            where = {"workspace": scope.workspace, "kind": "subject", "owners": list(subjects)}
            await session.run("sealing.destroy", **where)
            payloads = await session.run("payloads.erase", subjects=list(subjects))
            records = await session.run("events.erase", subjects=list(subjects))
            await session.run("configuration.changed")
            about = {"subjects": list(subjects), "payloads": payloads, "records": records}
            await note(session, scope.workspace, Kind.SUBJECT_ERASED, by, about)
        return {"payloads": payloads, "records": records}
