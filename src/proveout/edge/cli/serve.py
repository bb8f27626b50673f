"""`proveout up` and `proveout login`."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from proveout import settings
from proveout.edge.cli import output
from proveout.edge.cli.client import Client, Refused, connect, connected
from proveout.edge.logs import begin_log
from proveout.edge.processes.up import Plan, Running
from proveout.edge.processes.up import up as start
from proveout.errors import ProveoutError, StartRefused
from proveout.releases.bundle import read_folder
from proveout.releases.manifest import App, read_app

_READY_SECONDS = 300.0


def up(
    folders: Annotated[list[Path] | None, typer.Argument(metavar="[APP_DIR]...", help="Apps to serve.")] = None,
    config: Annotated[Path | None, typer.Option(help="Default: ./proveout.yaml, then DATA/proveout.yaml.")] = None,
    data: Annotated[Path | None, typer.Option(help="Where everything is kept. Default: ./.proveout")] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.")] = 8080,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Gateway processes.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Job workers.")] = 1,
    database: Annotated[
        str | None, typer.Option(help="The DSN of a Postgres 15+ with pgvector; default: an embedded one.")
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="Speak TLS, with this certificate (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The key of the certificate (PEM).")] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="A proxy that speaks TLS stands before: listen beyond loopback.")
    ] = False,
) -> None:
    """Start the server: database, models, gateways and workers, and serve these apps in the stage poc."""
    told = settings.read()
    apps = [(folder, read_app(read_folder(folder))) for folder in folders or ()]
    plan = Plan(
        data=data or told.data,
        host=host,
        port=port,
        workers=workers,
        jobs=jobs,
        database=database or told.database,
        config=config,
        apps=tuple(app.declared.app for _, app in apps),
        folders=tuple(folder.absolute() for folder, _ in apps),
        certificate=tls_certificate,
        key=tls_key,
        behind_proxy=behind_proxy,
    )
    begin_log(told.telemetry.log, logging.WARNING)
    asyncio.run(_up(plan, apps))


async def _up(plan: Plan, apps: list[tuple[Path, App]]) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    output.warn("starting …")
    async with start(plan) as server:
        serving = asyncio.create_task(_serve(server, apps))
        waiting = asyncio.create_task(stopped.wait())
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not stopped.is_set():
            serving.result()
            await waiting
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
        output.warn("stopping …")


async def _serve(server: Running, apps: list[tuple[Path, App]]) -> None:
    """Waits for the models, makes the apps' releases, and says where everything is."""
    key = server.owner_key.read_text(encoding="ascii").strip()
    async with connect(server.url, key, server.certificate) as client:
        await _until(client, lambda missing: "models" not in missing)
        for folder, app in apps:
            await _release(client, folder, app.declared.app)
        await _until(client, lambda missing: not missing)
        code = (await client.call("POST", "/api/v1/logins"))["code"]
    model = apps[0][1].declared.app if apps else "local/smollm2-135m-instruct"
    output.say(
        f"\nProveout is up: {server.url}\n\n"
        f"  console    {server.url}/login?code={code}  (works once, within 15 minutes)\n"
        f"  owner key  {server.owner_key}\n\n"
        f"  curl -s {server.url}/v1/chat/completions \\\n"
        f"    -H \"Authorization: Bearer $(cat '{server.owner_key}')\" -H 'Content-Type: application/json' \\\n"
        f'    -d \'{{"model": "{model}", "messages": '
        '[{"role": "user", "content": "How do I reset my password?"}]}\'\n'
    )


async def _release(client: Client, folder: Path, app: str) -> None:
    with output.progress_bar() as progress:
        made = await client.create_release(folder, progress)
    for problem in made["problems"]:
        output.warn(f"left out of knowledge {problem['knowledge']}: {problem['message']}")
    await client.call("POST", f"/api/v1/apps/{app}/promotions", {"release": made["number"], "stage": "poc"})
    output.warn(f"{app}@{made['number']} {made['digest']} serves poc")


async def _until(client: Client, enough: Any) -> None:
    """Waits until what `/readyz` says is missing is `enough`. Raises StartRefused after 5 minutes."""
    deadline = asyncio.get_running_loop().time() + _READY_SECONDS
    said = "it does not answer"
    while asyncio.get_running_loop().time() < deadline:
        try:
            status = await client.ready()
            if enough(status.get("missing", {})):
                return
            said = str(status["missing"])
        except (Refused, ProveoutError) as error:
            said = error.message
        await asyncio.sleep(0.2)
    raise StartRefused(f"The server did not become ready in {_READY_SECONDS:.0f} s: {said}. Its logs are in DATA/logs.")


def login(json: output.AsJson = False) -> None:
    """Print a one-time link that opens the console as the holder of your key."""

    async def run() -> str:
        async with connected() as client:
            return f"{client.url}/login?code={(await client.call('POST', '/api/v1/logins'))['code']}"

    link = asyncio.run(run())
    output.document({"link": link}) if json else output.say(link)
