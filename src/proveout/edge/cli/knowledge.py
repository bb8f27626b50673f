"""`proveout knowledge`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from proveout.edge.cli import output
from proveout.edge.cli.client import ask, connected
from proveout.errors import InvalidInput
from proveout.releases.bundle import pack, read_folder
from proveout.releases.manifest import read_app

app = typer.Typer(no_args_is_help=True)
_BASES = "/api/v1/knowledge"
Name = Annotated[str, typer.Argument(metavar="KNOWLEDGE")]


@app.command()
def sync(
    folder: Annotated[Path, typer.Argument(metavar="APP_DIR", help="A folder with an app.yaml.")],
    json: output.AsJson = False,
) -> None:
    """Read an app's folders anew: the newest snapshots hold exactly their documents. No release is made."""
    files = read_folder(folder)
    names = [part.name for part in read_app(files).declared.knowledge if part.source is not None]
    if not names:
        raise InvalidInput(f"{folder} declares no knowledge with a source: there is nothing to sync.")

    async def run() -> list[dict[str, Any]]:
        headers = {"prefer": "respond-async", "content-type": "application/zip"}
        async with connected() as client:
            with output.progress_bar() as progress:
                made = []
                for name in names:
                    begun = await client.call("POST", f"/api/v1/knowledge/{name}/sync", pack(files), headers)
                    made.append(await client.job(begun["job"], progress))
                return made

    made = asyncio.run(run())
    if json:
        output.document({"knowledge": made})
        return
    for one in made:
        for problem in one["problems"]:
            output.warn(f"left out of knowledge {one['knowledge']}: {problem['message']}")
        output.say(f"{one['knowledge']} {one['snapshot']}  {one['documents']} documents")


@app.command()
def status(json: output.AsJson = False) -> None:
    """List the bases with the snapshots that are searched, and what could not be read."""
    found = ask("GET", _BASES)
    if json:
        output.document(found)
        return
    output.table(found["knowledge"], ("name", "origin", "snapshot", "documents", "chunks", "created"))
    for base in found["knowledge"]:
        for problem in base["problems"] or []:
            output.warn(f"left out of {base['name']}: {problem['message']}")


@app.command()
def search(
    name: Name,
    query: str,
    k: Annotated[int, typer.Option(help="How many passages.")] = 6,
    mode: Annotated[str, typer.Option(help="hybrid, dense or lexical.")] = "hybrid",
    as_: Annotated[
        list[str] | None, typer.Option("--as", help="Search as group:NAME, user:NAME or everyone would; repeatable.")
    ] = None,
    json: output.AsJson = False,
) -> None:
    """Search the newest snapshot, as far as your key may read."""
    found = ask("POST", f"{_BASES}/{quote(name)}/search", {"query": query, "k": k, "mode": mode, "as": as_})
    if json:
        output.document(found)
        return
    for passage in found["results"]:
        output.say(f"{passage['score']:.3f}  {passage['document']}  {' › '.join(passage['headings'])}")
        output.say(f"       {' '.join(passage['text'].split())[:200]}")


@app.command()
def snapshots(name: Name, json: output.AsJson = False) -> None:
    """List the snapshots of a base, newest first, and what could not be read."""
    found = ask("GET", f"{_BASES}/{quote(name)}/snapshots")
    if json:
        output.document(found)
        return
    output.table(found["snapshots"], ("digest", "documents", "chunks", "created"))
    for problem in found["snapshots"][0]["problems"]:
        output.warn(f"left out: {problem['message']}")


@app.command()
def diff(name: Name, before: str, after: str, json: output.AsJson = False) -> None:
    """Say which documents one snapshot added, removed and changed against another, given by their digests."""
    found = ask("GET", f"{_BASES}/{quote(name)}/snapshots/{quote(before)}/diff/{quote(after)}")
    if json:
        output.document(found)
        return
    for sign, what in (("+", "added"), ("-", "removed"), ("~", "changed")):
        for document in found[what]:
            output.say(f"{sign} {document}")
    if found["unseen"]:
        output.say(f"{found['unseen']} documents are hidden from your key")


@app.command()
def rollback(
    name: Name, to: Annotated[str, typer.Option(help="The digest of the snapshot.")], json: output.AsJson = False
) -> None:
    """Let an older snapshot be searched again. What is pushed next is added to that one."""
    ask("POST", f"{_BASES}/{quote(name)}/rollback", {"snapshot": to})
    output.document({"knowledge": name, "snapshot": to}) if json else output.say(f"{name} {to}")
