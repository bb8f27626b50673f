"""`proveout notify`."""

from __future__ import annotations

import typer

from proveout.configfile import TOPICS
from proveout.edge.cli import output
from proveout.edge.cli.client import ask

_NONE = "nobody is told anything: name targets under `notify` in proveout.yaml"

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_(json: output.AsJson = False) -> None:
    """List who is told what, when each was told last, what waits, and since when one fails and why."""
    found = ask("GET", "/api/v1/notifications")
    if json:
        output.document(found)
    elif not found["targets"]:
        output.say(_NONE)
    else:
        shown = (
            {**target, "on": "everything"} if len(target["on"]) == len(TOPICS) else target
            for target in found["targets"]
        )
        output.table([*shown], ("name", "on", "apps", "sent", "waiting", "failing", "error"))


@app.command()
def test(json: output.AsJson = False) -> None:
    """Send each target a test; ends with 1 when one of them did not take it."""
    done = ask("POST", "/api/v1/notifications/test")
    if json:
        output.document(done)
    elif not done["targets"]:
        output.say(_NONE)
    else:
        for target in done["targets"]:
            output.say(f"{'fail' if target['error'] else 'ok':4}  {target['name']}  {target['error']}".rstrip())
    if any(target["error"] for target in done["targets"]):
        raise typer.Exit(1)
