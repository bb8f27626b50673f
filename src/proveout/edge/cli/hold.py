"""`proveout hold`."""

from __future__ import annotations

from typing import Annotated

import typer

from proveout.edge.cli import output
from proveout.edge.cli.client import ask
from proveout.errors import InvalidInput

app = typer.Typer(no_args_is_help=True)


@app.command()
def add(
    reason: Annotated[str, typer.Option(help="Why; kept sealed.")],
    subject: Annotated[str | None, typer.Option(help="A user as clients named it, or the id of a key.")] = None,
    app_: Annotated[str | None, typer.Option("--app", help="Instead: everything that was asked of an app.")] = None,
    json: output.AsJson = False,
) -> None:
    """Keep what a subject or an app has on record from retention and erasure."""
    if (subject is None) == (app_ is None):
        raise InvalidInput("Give --subject or --app, one of them.")
    made = ask("POST", "/api/v1/holds", {"subject": subject, "app": app_, "reason": reason})
    output.document(made) if json else output.say(made["id"])


@app.command("list")
def list_(json: output.AsJson = False) -> None:
    """List the holds that stand, oldest first."""
    found = ask("GET", "/api/v1/holds")
    output.document(found) if json else output.table(found["holds"], ("id", "subject", "app", "reason", "by", "since"))


@app.command()
def remove(
    hold: Annotated[str, typer.Argument(help="The hold's id, as `hold list` shows it.")], json: output.AsJson = False
) -> None:
    """Lift a hold; retention and erasure go on from now."""
    ask("DELETE", f"/api/v1/holds/{hold}")
    output.document({"lifted": hold}) if json else output.say(f"{hold} is lifted")
