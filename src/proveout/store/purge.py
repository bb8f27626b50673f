"""Takes deleted rows out of files: Postgres leaves their bytes in tables, in indexes and in the write-ahead log."""

from __future__ import annotations

import asyncio
from typing import LiteralString

import psycopg

_LOCK_TRIES, _LOCK_SECONDS = 5, 1
_SETTLE_TRIES, _SETTLE_SECONDS = 300, 0.1
_OLDER = """select exists (select from pg_stat_activity, (select %s::text::xid as now) t where pid <> pg_backend_pid()
    and datname = current_database() and greatest(age(backend_xid), age(backend_xmin)) >= age(t.now))"""
_STATEMENTS = (
    "vacuum full proveout.sealing_keys",  # small: the rewrite leaves no deleted key behind
    "vacuum proveout.payloads",
    "vacuum proveout.events",
    "select pg_switch_wal()",
    "checkpoint",  # what is before it is removed, not kept for reuse (wal_recycle is off)
)


async def purge(dsn: str) -> list[str]:
    """Runs after the deletion was committed; answers with what this database did not allow, in its own words.

    A backup holds the tables while it reads them. A lock is waited for a second at a time, for whoever comes behind
    one that waits is kept waiting, too.
    """
    refused = []
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        if not await _settled(connection):
            refused.append("a transaction from before the deletion is still open, and may read what was deleted")
        await connection.execute(f"set lock_timeout = '{_LOCK_SECONDS}s'")
        for statement in _STATEMENTS:
            said = await _run(connection, statement)
            if said is not None:
                refused.append(f"{statement}: {said}")
    return refused


async def _settled(connection: psycopg.AsyncConnection) -> bool:
    """Waits until nobody's view is from before now: what somebody may still see, no vacuum takes away."""
    cursor = await connection.execute("select pg_current_xact_id()::xid::text")
    now = await cursor.fetchone()
    for _ in range(_SETTLE_TRIES):
        cursor = await connection.execute(_OLDER, now)
        if await cursor.fetchone() == (False,):
            return True
        await asyncio.sleep(_SETTLE_SECONDS)
    return False


async def _run(connection: psycopg.AsyncConnection, statement: LiteralString) -> str | None:
    """What the database said against a statement, None when it did it."""
    said = None
    for _ in range(_LOCK_TRIES):
        try:
            await connection.execute(statement)
        except psycopg.errors.InsufficientPrivilege as error:
            return error.diag.message_primary
        except psycopg.errors.LockNotAvailable as error:
            said = error.diag.message_primary
            await asyncio.sleep(_LOCK_SECONDS)
        else:
            return None
    return said
