"""`proveout requests`: what is on record of requests, never what was said in them."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from proveout.edge.cli import output
from proveout.edge.cli.client import ask

app = typer.Typer(no_args_is_help=True)

_TIME = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]
OF_APP = typer.Option("--app", help="Of this app.")
OF_RELEASE = typer.Option("--release", help="Answered by the release with this number.")
OF_SUBJECT = typer.Option("--subject", help="Of a user as clients named it, or a key's id.")
OF_OUTCOME = typer.Option("--outcome", help="answered, refused, failed, …, or open.")
OF_GUARD = typer.Option("--guard", help="With a verdict of this guard.")
SINCE = typer.Option("--since", formats=_TIME, help="From then on; UTC without a zone.")
UNTIL = typer.Option("--until", formats=_TIME, help="Before then; UTC without a zone.")


def given(**options: Any) -> dict[str, Any]:
    """The options that were given, as the server takes them."""
    found = {name: value for name, value in options.items() if value is not None}
    for name, value in found.items():
        if isinstance(value, datetime):
            found[name] = value.replace(tzinfo=value.tzinfo or UTC).isoformat()
    return found


@app.command(name="list")
def list_requests(
    app: Annotated[str | None, OF_APP] = None,
    release: Annotated[int | None, OF_RELEASE] = None,
    subject: Annotated[str | None, OF_SUBJECT] = None,
    outcome: Annotated[str | None, OF_OUTCOME] = None,
    guard: Annotated[str | None, OF_GUARD] = None,
    since: Annotated[datetime | None, SINCE] = None,
    until: Annotated[datetime | None, UNTIL] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 50,
    json: Annotated[bool, output.JSON] = False,
) -> None:
    """List requests, newest first."""
    which = given(
        app=app,
        release=release,
        subject=subject,
        outcome=outcome,
        guard=guard,
        since=since,
        until=until,
        limit=limit,
    )
    found = ask("GET", f"/api/v1/requests?{urllib.parse.urlencode(which)}")
    if json:
        output.document(found)
        return
    output.table([_listed(row) for row in found["requests"]], ("begun", "request", "asked", "outcome", "ms"))


def _listed(row: Mapping[str, Any]) -> dict[str, Any]:
    """A request in the 80 columns of a narrow terminal; `--json` has the rest."""
    asked = f"{row['app']}@{row['release']}" if row["app"] else row["model"]
    begun = datetime.fromisoformat(row["begun"]).strftime("%m-%d %H:%M:%S")
    ms = None if row["total_ms"] is None else round(row["total_ms"])
    return {**row, "begun": begun, "asked": asked, "outcome": row["outcome"] or "open", "ms": ms}


@app.command()
def show(
    request: Annotated[str, typer.Argument(metavar="REQUEST", help="The number of a request: req_…")],
    json: output.AsJson = False,
) -> None:
    """Show one request: who asked, which release answered, what was found and checked, tokens, cost and times."""
    row = ask("GET", f"/api/v1/requests/{request}")
    if json:
        output.document(row)
        return
    decision = row.pop("decision", None) or {}
    retrieval = decision.pop("retrieval", None) or {}
    chunks = retrieval.pop("chunks", [])
    lines = {**row, **retrieval, **{k: v for k, v in decision.items() if k != "verdicts"}}
    output.table([{"field": name, "value": _short(value)} for name, value in lines.items()], ("field", "value"))
    if chunks:
        output.table([{"passage": chunk, "score": f"{score:.3f}"} for chunk, score in chunks], ("passage", "score"))
    if decision.get("verdicts"):
        output.table(decision["verdicts"], ("guard", "action", "reason", "score"))


def _short(value: Any) -> Any:
    return {k: v for k, v in value.items() if v not in (None, [])} or None if isinstance(value, dict) else value
