"""`proveout witness`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer


def witness(
    key_file: Annotated[Path, typer.Option(help="The witness's own key; made at the first start, with mode 0600.")],
    data: Annotated[Path, typer.Option(help="The folder that keeps the last checkpoint of each log.")],
    log: Annotated[
        list[str], typer.Option(metavar="VKEY", help="The key of a log, from `proveout audit key`; may be repeated.")
    ],
    name: Annotated[
        str | None, typer.Option(help="The name of a new key, as the web has names. Default: this machine's.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.")] = 8091,
) -> None:
    """Cosign logs that others keep, so that they cannot rewrite them unseen. Run it where they have no access."""
    given = ["--key-file", str(key_file), "--data", str(data), "--host", host, "--port", str(port)]
    for key in log:
        given += ["--log", key]
    if name is not None:
        given += ["--name", name]
    # In place of this process, which has loaded what the other commands need.
    os.execv(sys.executable, [sys.executable, "-m", "proveout.edge.processes.witness", *given])  # noqa: S606 (itself)
