"""What `doctor` says of a database: the embedded one is fit, and what would lose or leak is named."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import psycopg
import pytest

from proveout.store.examine import Check, examine


def look(dsn: str) -> dict[str, Check]:
    return {check.name: check for check in asyncio.run(examine(dsn))}


@pytest.fixture
def administrator(dsn: str) -> Iterator[Callable[[str], None]]:
    """Runs a statement as the superuser."""
    with psycopg.connect(dsn, autocommit=True) as connection:

        def run(statement: str) -> None:
            connection.execute(statement.encode())

        yield run


def test_the_embedded_database_is_fit(dsn: str) -> None:
    checks = look(dsn)
    assert {check.state for check in checks.values()} == {"ok"}, checks
    assert set(checks) == {
        "database version", "pgvector", "fsync", "full_page_writes", "synchronous_commit", "connections", "roles",
        "listen and notify",
    }  # fmt: skip


def test_a_target_that_takes_no_notifications(dsn: str, administrator: Callable[[str], None]) -> None:
    administrator("insert into proveout.workspaces values ('default', 's')")
    columns = "(workspace, name, position, failing, error)"
    administrator(f"insert into proveout.followers {columns} values ('default', 'chat x', 1, now(), 'it answered 500')")
    (found,) = [check for check in asyncio.run(examine(dsn, ["chat x"])) if check.name == "notifications"]
    assert found.state == "warn" and "chat x, since 2" in found.found and "it answered 500" in found.found
    (found,) = [check for check in asyncio.run(examine(dsn, ["chat y"])) if check.name == "notifications"]
    assert found.state == "ok" and "notifications" not in look(dsn)


def test_no_answer_is_one_finding() -> None:
    checks = look("postgresql://nobody@127.0.0.1:1/none")
    assert [*checks] == ["database"] and checks["database"].state == "fail" and checks["database"].mend


def test_commits_that_do_not_wait_for_the_disk(dsn: str, administrator: Callable[[str], None]) -> None:
    database = dsn.partition("?")[0].rpartition("/")[2]
    administrator(f"alter database {database} set synchronous_commit = off")
    found = look(dsn)["synchronous_commit"]
    assert found.state == "fail" and "synchronous_commit = on" in found.mend
    administrator(f"alter database {database} set synchronous_commit = local")
    assert look(dsn)["synchronous_commit"].state == "ok"


def test_a_service_role_that_bypasses_row_level_security(dsn: str, administrator: Callable[[str], None]) -> None:
    administrator("alter role proveout_service bypassrls")
    try:
        found = look(dsn)["roles"]
    finally:
        administrator("alter role proveout_service nobypassrls")
    assert found.state == "fail" and "NOBYPASSRLS" in found.mend
    assert look(dsn)["roles"].state == "ok"


def test_a_role_that_may_not_act_for_the_service(dsn: str, administrator: Callable[[str], None]) -> None:
    administrator("create role stranger login password 'known'")
    try:
        start, _, rest = dsn.partition("//")
        found = look(f"{start}//stranger:known@{rest.partition('@')[2]}")["roles"]
        assert found.state == "fail" and found.mend == "Run as an administrator: GRANT proveout_service TO stranger;"
        administrator("grant proveout_service to stranger")
        assert look(f"{start}//stranger:known@{rest.partition('@')[2]}")["roles"].state == "ok"
    finally:
        administrator("drop role stranger")
