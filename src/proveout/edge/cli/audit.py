"""`proveout audit`: what an auditor does, with the same verifier that runs alone as one file."""

from __future__ import annotations

import asyncio
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from proveout import settings
from proveout.edge.cli import output, requests
from proveout.edge.cli.client import ask, connected
from proveout.errors import InvalidInput, Unavailable
from proveout.ledger.verify import (
    ENTRIES,
    Checkpoint,
    Fetch,
    Finding,
    Memory,
    Policy,
    Receipt,
    Rejected,
    Replay,
    TileId,
    TileReader,
    VerifierKey,
    fetch_from,
    follow,
    head,
    split_note,
    tile_reader,
    tiles_of,
)

app = typer.Typer(no_args_is_help=True)

LogKey = Annotated[
    str | None,
    typer.Option("--key", help="The log's key, got by another way. Default: what the server says."),
]
Witnesses = Annotated[list[str] | None, typer.Option("--witness", help="A witness's key that must have signed too.")]


@app.command()
def verify(
    file: Annotated[Path | None, typer.Option(help="A receipt, or a folder that `export` made; needs --key.")] = None,
    key: LogKey = None,
    witness: Witnesses = None,
    json: output.AsJson = False,
) -> None:
    """Read the whole log again, or check a receipt offline. Exit code 1: something is wrong, and where."""
    if file is not None and key is None:
        raise InvalidInput("--file is checked without a server: give the log's --key, from `proveout audit key`.")
    if file is not None and file.is_file():
        _verify_receipt(file, _policy(key or "", witness), json)
        return
    fetch, found = (fetch_from(str(file)), key or "") if file is not None else _server(key)
    policy = _policy(found, witness)
    findings: list[Finding] = []
    note = _head(fetch, policy)
    try:
        checkpoint = policy.open(note)[0]
    except Rejected as error:  # go on: what is wrong may yet be found where it is
        findings.append(error.finding)
        checkpoint = Checkpoint.parse(split_note(note)[0])
    _tell(checkpoint, findings + Replay(tile_reader(fetch)).run(checkpoint), json)


def _verify_receipt(file: Path, policy: Policy, json: bool) -> None:
    try:
        checkpoint, _ = Receipt.parse(file.read_bytes()).check(policy)
    except Rejected as error:
        _tell(None, [error.finding], json)
    else:
        _tell(checkpoint, [], json)


@app.command()
def receipt(
    request: Annotated[str, typer.Argument(metavar="REQUEST", help="The number of a request: req_…")],
    file: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write it. Default: print it.")] = None,
    opening: Annotated[Path | None, typer.Option(help="Where to write what the log's entry commits to.")] = None,
    json: output.AsJson = False,
) -> None:
    """Fetch the receipt of a request: with the log's key it proves to anyone that the answer is on record."""
    shown = ask("GET", f"/api/v1/requests/{request}/receipt")
    if file is not None:
        file.write_text(shown["receipt"], encoding="utf-8")
    if opening is not None and shown["opening"] is not None:
        opening.write_text(shown["opening"], encoding="utf-8")
    if json:
        output.document(shown)
    elif file is None:
        output.say(shown["receipt"].rstrip("\n"))


@app.command()
def key(json: output.AsJson = False) -> None:
    """Print the public key of the log. Auditors should get it by a way that the server does not control."""
    about = ask("GET", "/api/v1/log")
    output.document(about) if json else output.say(about["key"])


@app.command()
def events(
    kind: Annotated[str | None, typer.Option(help="A kind, or its beginning: `access:`")] = None,
    subject: Annotated[str | None, typer.Option(help="A user as clients named it, or a key's id.")] = None,
    request: Annotated[str | None, typer.Option(help="The number of a request.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 50,
    json: output.AsJson = False,
) -> None:
    """List what happened, newest first."""
    given = {"kind": kind, "subject": subject, "request": request, "limit": limit}
    query = urllib.parse.urlencode({name: value for name, value in given.items() if value is not None})
    found = ask("GET", f"/api/v1/log/events?{query}")
    if json:
        output.document(found)
    else:
        rows = [{**event, "by": (event["record"] or {}).get("by", (event["record"] or {}).get("key"))}
                for event in found["events"]]  # fmt: skip
        output.table(rows, ("at", "position", "kind", "by", "request"))


class Form(StrEnum):
    """What an export is made of."""

    JSONL = "jsonl"
    OTEL = "otel"
    TILES = "tiles"


@app.command()
def export(
    to: Annotated[Path, typer.Option(help="The file; of `tiles` the folder.")],
    format: Annotated[
        Form,
        typer.Option(
            help="jsonl: records with their entries of the log, otel: OTLP spans, one a line, tiles: the whole log, as "
            "any client of C2SP's tlog-tiles reads it."
        ),
    ] = Form.TILES,
    app: Annotated[str | None, requests.OF_APP] = None,
    release: Annotated[int | None, requests.OF_RELEASE] = None,
    subject: Annotated[str | None, requests.OF_SUBJECT] = None,
    outcome: Annotated[str | None, requests.OF_OUTCOME] = None,
    guard: Annotated[str | None, requests.OF_GUARD] = None,
    since: Annotated[datetime | None, requests.SINCE] = None,
    until: Annotated[datetime | None, requests.UNTIL] = None,
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """Write out what happened. That it was exported is on record too."""
    which = requests.given(
        app=app, release=release, subject=subject, outcome=outcome, guard=guard, since=since, until=until
    )
    if format == Form.TILES and which:
        raise InvalidInput(f"tiles are the whole log: leave out {', '.join(which)}, or export jsonl.")
    count = _write_tiles(to) if format == Form.TILES else asyncio.run(_write_lines(to, {"format": format, **which}))
    what = {Form.JSONL: "records", Form.OTEL: "spans", Form.TILES: "entries"}[format]
    output.document({"to": str(to), what: count}) if json else output.say(f"{count} {what} in {to}")


async def _write_lines(file: Path, asked: Mapping[str, Any]) -> int:
    count = 0
    async with connected() as client:
        with file.open("wb") as out:
            async for line in client.lines("/api/v1/log/exports", asked):
                out.write(line)
                count += 1
    return count


def _write_tiles(folder: Path) -> int:
    ask("POST", "/api/v1/log/exports", {"format": "tiles"})
    fetch, _ = _server(None)
    notes = {"checkpoint": _head(fetch, None)}
    with suppress(OSError):
        notes["witnessed"] = fetch("witnessed")
    sizes = [Checkpoint.parse(split_note(note)[0]).size for note in notes.values()]
    read = tile_reader(fetch)
    wanted = list(dict.fromkeys(tile for size in sizes for tile in _all_tiles(size)))
    with output.progress_bar() as progress:
        for done, tile in enumerate(wanted):
            path = folder / tile.path
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(_read(read, tile))
            progress(done + 1, len(wanted), "tiles")
    for name, note in notes.items():
        (folder / name).write_bytes(note)
    return sizes[0]


@app.command(name="follow")
def follow_log(
    memory: Annotated[Path, typer.Option(help="The folder to remember in.")],
    key: LogKey = None,
    witness: Witnesses = None,
    every: Annotated[
        float | None, typer.Option(help="Seconds until it looks again; it ends when something is wrong.")
    ] = None,
    json: output.AsJson = False,
) -> None:
    """Read what is new in the log, compare it with what is remembered, and remember it: what a monitor does."""
    fetch, found = _server(key)
    policy = _policy(found, witness)
    while True:
        try:
            checkpoint, _, findings = follow(fetch, policy, Memory(memory))
        except Rejected as error:
            _tell(None, [error.finding], json)
        except OSError as error:
            raise Unavailable(f"The log cannot be read ({error}).") from error
        else:
            _tell(checkpoint, findings, json)
        if every is None:
            return
        time.sleep(every)


def _policy(text: str, witnesses: list[str] | None) -> Policy:
    try:
        keys = tuple(VerifierKey.parse(witness) for witness in witnesses or ())
        return Policy(VerifierKey.parse(text), keys, len(keys))
    except Rejected as error:
        raise InvalidInput(f"This is not a verifier key: {error}.") from error


def _tell(checkpoint: Checkpoint | None, findings: list[Finding], json: bool) -> None:
    """Says what was found; ends with 1 when that is anything."""
    about = {} if checkpoint is None else {"origin": checkpoint.origin, "size": checkpoint.size}
    if json:
        output.document({"verified": not findings, **about, "findings": [asdict(finding) for finding in findings]})
    elif findings:
        for finding in findings:
            output.say(str(finding))
    else:
        output.say(f"verified: {about['origin']}, {about['size']} entries")
    if findings:
        raise typer.Exit(1)


def _server(key: str | None) -> tuple[Fetch, str]:
    """Reads the log of PROVEOUT_URL; and its key, the one that was given or the one that the server states."""
    told = settings.read_client()
    about = ask("GET", "/api/v1/log")
    base, authorization = told.url + about["path"], f"Bearer {told.key}"

    def fetch(path: str) -> bytes:
        asked = urllib.request.Request(f"{base}/{path}", headers={"authorization": authorization})  # noqa: S310
        with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310 (the operator's own PROVEOUT_URL)
            return bytes(answer.read())

    return fetch, key or about["key"]


def _head(fetch: Fetch, policy: Policy | None) -> bytes:
    """The newest checkpoint, of those that satisfy the policy's witnesses where there is one."""
    try:
        return fetch("checkpoint") if policy is None else head(fetch, policy)
    except OSError as error:
        raise Unavailable(f"The log's checkpoint cannot be read ({error}).") from error


def _all_tiles(size: int) -> Iterator[TileId]:
    for level in (ENTRIES, *range((size.bit_length() + 7) // 8)):
        yield from tiles_of(level, size)


def _read(read: TileReader, tile: Any) -> bytes:
    try:
        return read(tile)
    except OSError as error:
        raise Unavailable(f"The log's {tile.path} cannot be read ({error}).") from error
