"""Takes deleted rows out of files: Postgres leaves their bytes in tables, in indexes and in the write-ahead log."""

from __future__ import annotations

import psycopg

_STATEMENTS = (
    "vacuum full proveout.sealing_keys",  # small: the rewrite leaves no deleted key behind
    "vacuum proveout.payloads",
    "vacuum proveout.events",
    "select pg_switch_wal()",
    "checkpoint",  # what is before it is removed, not kept for reuse (wal_recycle is off)
)


async def purge(dsn: str) -> list[str]:
    """Runs after the deletion was committed; answers with what this database did not allow, in its own words."""
    refused = []
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        for statement in _STATEMENTS:
            try:
                await connection.execute(statement)
            except psycopg.errors.InsufficientPrivilege as error:
                refused.append(f"{statement}: {error.diag.message_primary}")
    return refused
