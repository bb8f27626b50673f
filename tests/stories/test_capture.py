"""What was asked and answered is kept sealed, but not for an app whose content the config says not to keep."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import psycopg

from conftest import Scripted, Server
from proveout.store.postgres import EmbeddedPostgres

APP = """\
app: {name}
purpose: Say it again.
owners: {{accountable: someone@example.com}}
model: {{use: echo}}
"""


def payloads(server: Server, request: str) -> int:
    embedded = EmbeddedPostgres(server.data / "postgres", server.data / "run")
    with psycopg.connect(embedded.dsn) as connection:
        row = connection.execute("select count(*) from proveout.payloads where request = %s", (request,)).fetchone()
    assert row is not None
    return int(row[0])


def test_an_app_whose_content_is_not_kept(scripted: Scripted, app_folder: Callable[..., Path]) -> None:
    server = scripted.server
    for name in ("silent", "other"):
        folder = app_folder({"app.yaml": APP.format(name=name)}, name)
        assert json.loads(server.cli("release", "create", str(folder), "--json").stdout)["number"] == 1
        assert server.cli("release", "promote", f"{name}@1", "--to", "poc").returncode == 0

    async def ask() -> list[str]:
        async with scripted.world() as world:
            seen = [await world.client.ask(model, "c") for model in ("silent", "other", "echo")]
        assert [s.ending for s in seen] == ["whole"] * 3
        return [s.request or "" for s in seen]

    assert [payloads(server, request) for request in asyncio.run(ask())] == [0, 1, 1]
