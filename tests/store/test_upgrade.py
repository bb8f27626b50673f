"""A database that an earlier version made: its migrations lead to the same schema that a fresh one has."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from proveout.store.schema import migrate, migrations

RELEASED = sorted((Path(__file__).parent / "released").glob("*.sql"))
"""The schemas that databases out there may have: frozen copies of schema.sql."""

ROWS = """
set search_path to proveout, public;
insert into workspaces (name, secret) values ('default', 'x');
insert into keys (id, workspace, name, role, digest) values ('key_1', 'default', 'owner', 'owner', 'd');
insert into releases (workspace, app, number, digest, manifest) values ('default', 'helpdesk', 1, 'sha256:1', '{}');
insert into facts (workspace, app, release, version, facts) values ('default', 'helpdesk', 1, 1, '{}');
insert into routes (workspace, app, stage, stable) values ('default', 'helpdesk', 'poc', 1);
insert into sealing_keys (workspace, kind, owner, wrapped) values ('default', 'workspace', 'default', 'w');
insert into intents (request, workspace, key, purpose, model, parameters, streamed, begun)
    values ('req_1', 'default', 'key_1', 'request', 'echo', '{}', true, now());
insert into completions (request, workspace, outcome, prompt_tokens, completion_tokens, model, served_by, runtime,
                         schema, total_ms, ended)
    values ('req_1', 'default', 'answered', 1, 1, 'echo', '', '', 1, 1, now());
insert into payloads (request, workspace, subject, sealed) values ('req_1', 'default', 's', 'p');
insert into events (workspace, kind, at, request) values ('default', 'serving:request:begun', now(), 'req_1');
insert into bundles (id, workspace, sealed) values ('bundle_1', 'default', 'b');
insert into evaluations (id, workspace, app, release, key, dataset)
    values ('evaluation_1', 'default', 'helpdesk', 1, 'key_1', 'd');
"""

CATALOG = {
    "columns": """
        select c.relname || '.' || a.attname,
               format_type(a.atttypid, a.atttypmod) || ' null=' || (not a.attnotnull)::text
               || ' storage=' || a.attstorage::text || ' identity=' || a.attidentity::text
               || ' default=' || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
        from pg_class c join pg_attribute a on a.attrelid = c.oid
        left join pg_attrdef d on (d.adrelid, d.adnum) = (c.oid, a.attnum)
        where c.relnamespace = 'proveout'::regnamespace and c.relkind in ('r', 'v', 'S') and a.attnum > 0
          and not a.attisdropped""",
    "tables": """
        select relname, relkind::text || ' rows secured=' || relrowsecurity::text || relforcerowsecurity::text || ' '
               || coalesce(array_to_string(array(select unnest(relacl)::text order by 1), ' '), '')
               || coalesce(array_to_string(reloptions, ' '), '')
        from pg_class where relnamespace = 'proveout'::regnamespace and relkind in ('r', 'v', 'S', 'm')""",
    "indexes": """
        select indexname, indexdef from pg_indexes where schemaname = 'proveout'""",
    "constraints": """
        select conrelid::regclass::text || ' ' || pg_get_constraintdef(oid), conname
        from pg_constraint where connamespace = 'proveout'::regnamespace""",
    "policies": """
        select tablename || '.' || policyname,
               concat_ws(' ', permissive, roles::text, cmd, 'using', qual, 'check', with_check)
        from pg_policies where schemaname = 'proveout'""",
    "functions": """
        select p.oid::regprocedure::text,
               regexp_replace(pg_get_functiondef(p.oid), '\\s*--[^\\n]*', '', 'g')
               || coalesce(array_to_string(array(select unnest(proacl)::text order by 1), ' '), '')
        from pg_proc p where pronamespace = 'proveout'::regnamespace""",
    "triggers": """
        select tgrelid::regclass::text || '.' || tgname, pg_get_triggerdef(oid)
        from pg_trigger where not tgisinternal and tgrelid::regclass::text like 'proveout.%'""",
    "types": """
        select t.typname, t.typtype::text || coalesce((select string_agg(enumlabel, ',' order by enumsortorder)
                                                       from pg_enum where enumtypid = t.oid), '')
        from pg_type t where typnamespace = 'proveout'::regnamespace and typtype in ('e', 'd')""",
}


def catalog(dsn: str) -> dict[str, dict[str, str]]:
    with psycopg.connect(dsn) as connection:
        return {part: dict(connection.execute(query.encode()).fetchall()) for part, query in CATALOG.items()}


@pytest.fixture
def empty(postgres: str) -> Iterator[str]:
    """A database with nothing in it."""
    name = f"old_{secrets.token_hex(4)}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"create database {name}".encode())
        yield postgres.replace("/postgres?", f"/{name}?")
        connection.execute(f"drop database {name} with (force)".encode())


@pytest.mark.parametrize("released", RELEASED, ids=lambda path: path.stem)
def test_migrations_lead_to_the_schema_of_a_fresh_database(released: Path, empty: str, dsn: str) -> None:
    with psycopg.connect(empty) as connection:
        connection.execute(released.read_bytes())
        connection.execute(ROWS.encode())
    asyncio.run(migrate(empty))
    asyncio.run(migrate(empty))  # a second time nothing is left to do
    migrated, fresh = catalog(empty), catalog(dsn)
    for part in CATALOG:
        wrong = {
            name: (migrated[part].get(name), fresh[part].get(name))
            for name in migrated[part].keys() | fresh[part].keys()
            if migrated[part].get(name) != fresh[part].get(name)
        }
        assert not wrong, f"{part}: (migrated, fresh) differ: {wrong}"
    with psycopg.connect(empty) as connection:
        applied = connection.execute("select name from proveout.migrations order by name").fetchall()
        kept = connection.execute("select request, outcome from proveout.completions").fetchall()
    assert [name for (name,) in applied] == migrations() and kept == [("req_1", "answered")]


def test_the_numbers_of_migrations_are_given_once() -> None:
    numbers = [name[:4] for name in migrations()]
    assert numbers and len(set(numbers)) == len(numbers)
