"""`proveout erase`."""

from __future__ import annotations

from typing import Annotated

import typer

from proveout.edge.cli import output
from proveout.edge.cli.client import ask


def erase(
    subject: Annotated[str, typer.Option(help="A user as clients named it in `user`, or the id of a key.")],
    json: output.AsJson = False,
) -> None:
    """Destroy everything that a subject asked and was answered. The log still verifies; nothing brings it back."""
    done = ask("POST", "/api/v1/erasures", {"subject": subject})
    if json:
        output.document(done)
        return
    output.say(f"erased: {done['payloads']} payloads, {done['records']} records")
    for refused in done["not_purged"]:
        output.warn(f"the database did not allow: {refused}")
