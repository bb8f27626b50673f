"""Retention: what is older than its class is kept goes; the log's entries stay, and holds keep what they cover."""

from __future__ import annotations

from proveout.domain import Scope
from proveout.settings import RetentionSettings
from proveout.store.events import Kind, note
from proveout.store.pool import Store

_BATCH = 1_000


async def expire(store: Store, scope: Scope, kept: RetentionSettings) -> dict[str, int]:
    """Deletes what is too old in the scope's workspace, class by class; answers with how many of each went.

    What goes is on record, if anything does.
    """
    days = {
        "payloads": kept.payloads,
        "requests": kept.requests,
        "evaluations": kept.evaluations,
        "events": kept.events,
    }
    gone: dict[str, int] = {}
    for name, most in days.items():
        if most is None:
            continue
        while True:  # in batches, so that nobody waits long for a lock
            async with store.within(scope) as session:
                row = await session.row("records.expire", **{"class": name, "days": most, "most": _BATCH})
                assert row is not None
                gone[name] = gone.get(name, 0) + row["gone"]
                if row["gone"] < _BATCH:
                    break
        if gone[name]:
            async with store.within(scope) as session:
                about = {"class": name, "days": most, "count": gone[name]}
                await note(session, scope.workspace, Kind.RECORDS_EXPIRED, "system", about)
    return gone
