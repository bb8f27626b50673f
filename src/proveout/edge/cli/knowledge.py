"""`proveout knowledge`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any
from urllib.parse import quote

import typer

from proveout import settings
from proveout.edge.cli import output
from proveout.edge.cli.client import connect

app = typer.Typer(no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="KNOWLEDGE")]


@app.command()
def search(
    name: Name,
    query: str,
    k: Annotated[int, typer.Option(help="How many passages.")] = 6,
    mode: Annotated[str, typer.Option(help="hybrid, dense or lexical.")] = "hybrid",
    json: output.AsJson = False,
) -> None:
    """Search the newest snapshot, as far as your key may read."""
    found = _call("POST", f"/api/v1/knowledge/{quote(name)}/search", {"query": query, "k": k, "mode": mode})
    if json:
        output.document(found)
        return
    for passage in found["results"]:
        output.say(f"{passage['score']:.3f}  {passage['document']}  {' › '.join(passage['headings'])}")
        output.say(f"       {' '.join(passage['text'].split())[:200]}")


@app.command()
def snapshots(name: Name, json: output.AsJson = False) -> None:
    """List the snapshots of a corpus, newest first, and what could not be read."""
    found = _call("GET", f"/api/v1/knowledge/{quote(name)}/snapshots")
    if json:
        output.document(found)
        return
    output.table(found["snapshots"], ("digest", "documents", "chunks", "created"))
    for problem in found["snapshots"][0]["problems"]:
        output.warn(f"left out: {problem['message']}")


def _call(method: str, path: str, body: object = None) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        told = settings.read()
        async with connect(told.url, told.key) as client:
            return dict(await client.call(method, path, body))

    return asyncio.run(run())
