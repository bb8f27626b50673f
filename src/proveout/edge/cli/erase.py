"""`proveout erase`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from proveout import settings
from proveout.edge.cli import output
from proveout.edge.cli.client import connect


def erase(
    subject: Annotated[str, typer.Option(help="A user as clients named it in `user`, or the id of a key.")],
    json: output.AsJson = False,
) -> None:
    """Destroy everything that a subject asked and was answered. The log still verifies; nothing brings it back."""

    async def run() -> dict[str, Any]:
        told = settings.read()
        async with connect(told.url, told.key) as client:
            return dict(await client.call("POST", "/api/v1/erasures", {"subject": subject}))

    done = asyncio.run(run())
    if json:
        output.document(done)
        return
    output.say(f"erased: {done['payloads']} payloads, {done['records']} records")
    for refused in done["not_purged"]:
        output.warn(f"the database did not allow: {refused}")
