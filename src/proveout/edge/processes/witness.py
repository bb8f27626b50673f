"""The witness process: cosigns checkpoints of logs that others keep, on a machine of its own (C2SP tlog-witness).

Small on purpose: a key, a folder, no database, no model. It speaks plain HTTP: all that it takes and gives is signed.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import platform
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from proveout.edge.logs import begin_log
from proveout.errors import InvalidInput, ProveoutError, StartRefused
from proveout.ledger.note import SigningKey
from proveout.ledger.verify import COSIGNATURE, ED25519, Rejected, VerifierKey
from proveout.ledger.witness import (
    LARGEST_REQUEST,
    BadProof,
    Conflicting,
    MalformedRequest,
    NotSigned,
    Refused,
    UnknownLog,
    Witness,
)

log = logging.getLogger(__name__)

_STATUSES: dict[type[Refused], int] = {
    MalformedRequest: 400,
    NotSigned: 403,
    UnknownLog: 404,
    Conflicting: 409,
    BadProof: 422,
}
_BODY_SECONDS = 10.0
_MOST_AT_ONCE = 64


def application(witness: Witness, key: VerifierKey) -> Starlette:
    """`POST /add-checkpoint` asks for a cosignature; `GET /` says the key that it will be by."""

    async def add_checkpoint(request: Request) -> Response:
        try:
            body = await _body(request)
            lines = await asyncio.to_thread(witness.add_checkpoint, body)  # it waits for the disk
        except Conflicting as conflict:
            return Response(f"{conflict.size}\n", _STATUSES[Conflicting], {"content-type": "text/x.tlog.size"})
        except Refused as refused:
            return PlainTextResponse(f"{refused.message}\n", _STATUSES[type(refused)])
        except OSError as error:
            log.error("nothing can be cosigned: %s", error)
            return PlainTextResponse("The witness cannot keep its state just now.\n", 503, {"retry-after": "10"})
        return PlainTextResponse(lines)

    async def about(_: Request) -> Response:
        return PlainTextResponse(f"{key}\n")

    return Starlette(
        routes=[Route("/add-checkpoint", add_checkpoint, methods=["POST"]), Route("/", about, methods=["GET"])]
    )


async def _body(request: Request) -> bytes:
    """The body, as far as a request may be long and one byte more, which tells that it is longer."""
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > LARGEST_REQUEST:
                    break
    except (ClientDisconnect, TimeoutError) as error:
        raise MalformedRequest("The request broke off.") from error
    return bytes(body)


def signing_key(file: Path, name: str | None) -> SigningKey:
    """The witness's key, made when there is no such file, readable by its owner alone. Raises InvalidInput."""
    try:
        found = SigningKey.parse(file.read_text(encoding="utf-8"), COSIGNATURE)
    except FileNotFoundError:
        made = SigningKey.generate(name or platform.node(), COSIGNATURE)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(made.encode() + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        return made
    if name is not None and name != found.verifier.name:
        raise InvalidInput(f"The key in {file} is that of {found.verifier.name}: leave --name away, or name another.")
    return found


def log_keys(given: Sequence[str]) -> dict[str, VerifierKey]:
    """The keys of the logs that are cosigned, by origin. Raises InvalidInput."""
    keys: dict[str, VerifierKey] = {}
    for text in given:
        try:
            key = VerifierKey.parse(text)
        except Rejected as error:
            raise InvalidInput(f"--log: {error}.") from error
        if key.kind != ED25519 or key.name in keys:
            raise InvalidInput(f"--log: {key.name}: give one key of each log, as `proveout audit key` prints it.")
        keys[key.name] = key
    return keys


def run(options: argparse.Namespace) -> None:
    """Cosigns until it is stopped. Raises InvalidInput and StartRefused."""
    logs = log_keys(options.log)
    try:
        key = signing_key(options.key_file, options.name)
        options.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, UnicodeDecodeError) as error:
        raise StartRefused(f"The key file or the folder of --data cannot be used ({error}).") from error
    witness = Witness(key, logs, options.data)
    try:
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        door = socket.create_server((options.host, options.port), family=family)
    except OSError as error:
        raise StartRefused(f"{options.host}:{options.port} cannot be listened on ({error.strerror}).") from error
    host = f"[{options.host}]" if ":" in options.host else options.host
    sys.stdout.write(f"key      {key.verifier}\naddress  http://{host}:{door.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(
        application(witness, key.verifier),
        ws="none",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=75,
        limit_concurrency=_MOST_AT_ONCE,
    )
    uvicorn.Server(config).run([door])


def main() -> None:
    parser = argparse.ArgumentParser(prog="proveout witness", description=__doc__)
    parser.add_argument("--key-file", type=Path, required=True, help="the witness's key, made if there is none")
    parser.add_argument("--name", help="the name of a new key")
    parser.add_argument("--data", type=Path, required=True, help="where the last checkpoint of each log is kept")
    parser.add_argument("--log", action="append", required=True, help="the key of a log; may be repeated")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8091)
    options = parser.parse_args()
    begin_log(None)
    try:
        run(options)
    except ProveoutError as error:
        sys.stderr.write(f"{error.message}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
