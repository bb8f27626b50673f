"""`proveout migrate`: brings a database to this version's schemas."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import typer

from proveout import settings
from proveout.errors import StartRefused
from proveout.store.schema import migrate as migrate_store

_POLL_SECONDS = 0.05


def migrate(
    database: Annotated[str | None, typer.Option(help="The DSN of the Postgres.")] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a database that is still starting.")] = 0,
) -> None:
    """Bring a database to this version's schemas. `up` does it by itself; containers run it first, once."""
    from proveout.jobs.runtime import migrate as migrate_jobs  # half a second that no other command needs

    dsn = database or settings.read().database
    if dsn is None:
        raise StartRefused("No database was named: give --database DSN, or set PROVEOUT_DATABASE.")
    deadline = time.monotonic() + wait
    while True:
        try:
            asyncio.run(migrate_store(dsn))
            break
        except StartRefused:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)
    migrate_jobs(dsn)
