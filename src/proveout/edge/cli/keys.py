"""`proveout key`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from proveout.edge.cli import output
from proveout.edge.cli.client import ask, connected
from proveout.errors import InvalidInput

app = typer.Typer(no_args_is_help=True)


@app.command()
def create(
    name: str,
    role: Annotated[str, typer.Option(help="user, developer, operator, approver or publisher.")] = "user",
    app_: Annotated[list[str] | None, typer.Option("--app", help="An app that it may ask; default: every app.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="A model that it may call directly.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="A group whose documents it may read.")] = None,
    json: output.AsJson = False,
) -> None:
    """Make an API key. Its text is shown once and kept nowhere."""
    body = {"name": name, "role": role, "apps": app_ or None, "models": model or [], "groups": group or []}
    made = ask("POST", "/api/v1/keys", body)
    output.document(made) if json else output.say(
        f"{made['key']}\n(id {made['id']}; this is the only time it is shown)"
    )


@app.command("list")
def list_(json: output.AsJson = False) -> None:
    """List the keys of the workspace, newest first."""
    found = ask("GET", "/api/v1/keys")
    if json:
        output.document(found)
    else:
        output.table(found["keys"], ("id", "name", "role", "apps", "models", "groups", "created", "revoked"))


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="The key's id, as `key list` shows it.")], json: output.AsJson = False
) -> None:
    """Revoke a key; it is refused from now on."""
    ask("DELETE", f"/api/v1/keys/{key}")
    output.document({"revoked": key}) if json else output.say(f"{key} is revoked")


@app.command()
def rotate(
    master: Annotated[bool, typer.Option("--master", help="The master key, above those of all workspaces.")] = False,
    workspace: Annotated[bool, typer.Option("--workspace", help="The workspace's key.")] = False,
    json: output.AsJson = False,
) -> None:
    """Put a new key in the place of one that seals content. Everything opens all the while; a killed job goes on."""
    if master == workspace:
        raise InvalidInput("Give --master or --workspace, one of them.")

    async def run() -> dict[str, Any]:
        async with connected() as client:
            level = "master" if master else "workspace"
            begun = await client.call("POST", "/api/v1/rotations", {"level": level})
            return await client.job(begun["job"])

    done = asyncio.run(run())
    if json:
        output.document(done)
        return
    output.say(f"the {done['rotated']} key is new; {done['rewrapped']} keys were wrapped anew")
    for refused in done["not_purged"]:
        output.warn(f"the database did not allow: {refused}")
