"""`proveout replay`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from proveout.edge.cli import output
from proveout.edge.cli.client import connected


def replay(
    request: Annotated[str, typer.Argument(metavar="REQUEST", help="The number of a request: req_…")],
    json: output.AsJson = False,
) -> None:
    """Ask a request again, of the same release, and say what differs from its record. Exit code 1: something does."""

    async def run() -> dict[str, Any]:
        async with connected() as client:
            return dict(await client.call("POST", f"/api/v1/requests/{request}/replays"))

    found = asyncio.run(run())
    if json:
        output.document(found)
    elif found["identical"]:
        output.say(f"identical: {found['request']}")
    else:
        output.say(f"differs: {', '.join(found['differs'])} ({found['request']})")
        for what, pair in found["differs"].items():
            if what != "answer":
                output.say(f"{what}\n  recorded: {pair['recorded']}\n  replayed: {pair['replayed']}")
        if found["diff"]:
            output.say(found["diff"])
    if not found["identical"]:
        raise typer.Exit(1)
