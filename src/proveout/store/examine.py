"""Whether a database is fit to hold what Proveout keeps: durable, isolating, and able to notify."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg.rows import DictRow, dict_row

State = Literal["ok", "warn", "fail"]

_CONNECT_SECONDS = 5
_NOTIFY_SECONDS = 2.0
_CONNECTIONS = 22  # a gateway's 8 and a worker's 14

_SERVER = """
select current_setting('server_version_num')::int as version, current_setting('server_version') as shown,
       (select default_version from pg_available_extensions where name = 'vector') as available,
       (select extversion from pg_extension where extname = 'vector') as installed,
       current_setting('fsync') as fsync, current_setting('full_page_writes') as full_page_writes,
       current_setting('synchronous_commit') as synchronous_commit,
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int as most,
       (select count(*)::int from pg_stat_activity where backend_type = 'client backend') as used
"""
_ROLES = """
select current_user as name, me.rolsuper as super, me.rolcreaterole as creates,
       has_database_privilege(current_database(), 'CREATE') as sets_up,
       service.rolname is not null as known, coalesce(service.rolsuper or service.rolbypassrls, false) as bypasses,
       coalesce(pg_has_role(current_user, service.oid, 'member'), false) as member
from pg_roles me left join pg_roles service on service.rolname = 'proveout_service' where me.rolname = current_user
"""

_FOLLOWERS = """
select name, failing, error from proveout.followers where name = any(%s) and failing is not null order by failing
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: what was found, and how to mend it when it is not as it must be."""

    name: str
    state: State
    found: str
    mend: str = ""


async def examine(dsn: str, followers: Sequence[str] = ()) -> list[Check]:
    """Looks at a Postgres, and how those who follow its logs fare; changes nothing in it."""
    try:
        connection = await psycopg.AsyncConnection.connect(
            dsn, autocommit=True, connect_timeout=_CONNECT_SECONDS, row_factory=dict_row
        )
    except psycopg.Error as error:
        mend = "Start it, or correct the DSN: postgresql://USER:PASSWORD@HOST:PORT/DATABASE."
        return [Check("database", "fail", " ".join(str(error).split()), mend)]
    async with connection:
        server = await _row(connection, _SERVER)
        checks = [_version(server), _pgvector(server), *_durable(server), _connections(server)]
        checks += [_role(await _row(connection, _ROLES)), await _listens(connection, dsn)]
        return checks + await _followers(connection, followers)


async def _row(connection: psycopg.AsyncConnection[DictRow], query: str) -> DictRow:
    row = await (await connection.execute(query)).fetchone()
    assert row is not None
    return row


def _version(server: DictRow) -> Check:
    if server["version"] < 150000:
        return Check("database version", "fail", str(server["shown"]), "Use Postgres 15 or newer.")
    return Check("database version", "ok", f"Postgres {server['shown']}")


def _pgvector(server: DictRow) -> Check:
    found = server["installed"] or server["available"]
    if found is None:
        return Check("pgvector", "fail", "not installed", "Install pgvector 0.8 or newer on the database's machine.")
    if _numbers(found) < (0, 8):
        mend = "Install pgvector 0.8 or newer, then run: ALTER EXTENSION vector UPDATE;"
        return Check("pgvector", "fail", found, mend)
    return Check("pgvector", "ok", found)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _durable(server: DictRow) -> list[Check]:
    """What makes a commit survive a loss of power."""
    reason = "answered requests would be lost with the power"
    return [
        Check(name, "fail", "off", f"Set {name} = on in postgresql.conf: {reason}.")
        if server[name] == "off"
        else Check(name, "ok", server[name])
        for name in ("fsync", "full_page_writes", "synchronous_commit")
    ]


def _connections(server: DictRow) -> Check:
    free = server["most"] - server["used"]
    found = f"{free} of {server['most']} are free"
    if free < _CONNECTIONS:
        mend = f"Raise max_connections: a gateway and a worker use up to {_CONNECTIONS}, each further gateway 8."
        return Check("connections", "warn", found, mend)
    return Check("connections", "ok", found)


def _role(role: DictRow) -> Check:
    name = role["name"]
    if role["bypasses"]:
        mend = "Run: ALTER ROLE proveout_service NOSUPERUSER NOBYPASSRLS;"
        return Check("roles", "fail", "proveout_service passes by row-level security", mend)
    if role["known"] and (role["member"] or role["super"]):
        return Check("roles", "ok", f"{name} acts as proveout_service, which row-level security binds")
    if role["known"]:
        mend = f"Run as an administrator: GRANT proveout_service TO {name};"
        return Check("roles", "fail", f"{name} may not act as proveout_service", mend)
    if (role["creates"] or role["super"]) and role["sets_up"]:
        return Check("roles", "ok", f"{name} may make the schema and its role at the first start")
    mend = f"Run as an administrator: ALTER ROLE {name} CREATEROLE; and GRANT CREATE ON DATABASE … TO {name};"
    return Check("roles", "fail", f"{name} may not set up the schema", mend)


async def _listens(connection: psycopg.AsyncConnection[DictRow], dsn: str) -> Check:
    """A pooler that hands connections out by transaction swallows notifications."""
    channel = f"proveout_doctor_{connection.info.backend_pid}"
    await connection.execute(f"listen {channel}")
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as other:
        await other.execute(f"notify {channel}")
    async for _ in connection.notifies(timeout=_NOTIFY_SECONDS, stop_after=1):
        return Check("listen and notify", "ok", "a notification arrived")
    mend = "Connect to Postgres itself, or through a pooler in session mode."
    return Check("listen and notify", "fail", "a notification did not arrive", mend)


async def _followers(connection: psycopg.AsyncConnection[DictRow], names: Sequence[str]) -> list[Check]:
    """Targets of notifications that do not take them."""
    if not names or (await _row(connection, "select to_regclass('proveout.followers') as there"))["there"] is None:
        return []
    rows = await (await connection.execute(_FOLLOWERS, (list(names),))).fetchall()
    mend = "Mend what it says, and see `proveout notify test`: for a day what was missed is sent again."
    failing = [
        Check("notifications", "warn", f"{row['name']}, since {row['failing']:%Y-%m-%d %H:%M}: {row['error']}", mend)
        for row in rows
    ]
    return failing or [Check("notifications", "ok", f"no target is failing, of {len(names)}")]
