"""`proveout rollout` and `proveout rollback`."""

from __future__ import annotations

import asyncio
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from proveout import settings
from proveout.domain import STAGES
from proveout.edge.cli import output
from proveout.edge.cli.client import Client, connect
from proveout.edge.cli.releases import split
from proveout.errors import InvalidInput, NotFound
from proveout.releases.plan import Plan
from proveout.releases.simulate import Behaviour, End, Traffic, regressions, seeds
from proveout.releases.simulate import simulate as simulated

app = typer.Typer(no_args_is_help=True)
Named = Annotated[str, typer.Argument(metavar="APP")]
Stage = Annotated[str, typer.Option(help="The stage. Default: the highest that has a stable release.")]

_BARS = "▁▂▃▄▅▆▇█"
_SPARKS = 40
_FOLLOW_SECONDS = 1.0
_ACTIVE = ("running", "paused", "frozen")


@app.command()
def start(
    release: Annotated[str, typer.Argument(metavar="APP@N")], stage: Stage = "", json: output.AsJson = False
) -> None:
    """Give a release a part of a stage's traffic, and let the rollout decide."""
    name, number = split(release)
    _say(_order(name, stage, {"action": "start", "release": number}), json)


@app.command()
def status(
    name: Named,
    stage: Stage = "",
    follow: Annotated[
        bool, typer.Option("--follow", help="Print again whenever something changes, to its end.")
    ] = False,
    json: output.AsJson = False,
) -> None:
    """Show the latest rollout of a stage: its state, the evidence, both arms, and every decision."""

    async def run() -> dict[str, Any]:
        told = settings.read()
        async with connect(told.url, told.key) as client:
            path = await _path(client, name, stage)
            found = dict(await client.call("GET", path))
            shown: object = None
            while follow and found["state"] in _ACTIVE:
                seen = (found["state"], found["step"], found["exposure"], len(found["decisions"]))
                if seen != shown and not json:
                    output.say(_line(found))
                shown = seen
                await asyncio.sleep(_FOLLOW_SECONDS)
                found = dict(await client.call("GET", path))
            return found

    _say(asyncio.run(run()), json)


@app.command()
def pause(name: Named, stage: Stage = "", json: output.AsJson = False) -> None:
    """Stop taking steps. The candidate keeps its weight and is watched: it is rolled back if it must be."""
    _say(_order(name, stage, {"action": "pause"}), json)


@app.command()
def resume(name: Named, stage: Stage = "", json: output.AsJson = False) -> None:
    """Go on with a paused or frozen rollout."""
    _say(_order(name, stage, {"action": "resume"}), json)


@app.command()
def promote(name: Named, stage: Stage = "", json: output.AsJson = False) -> None:
    """Make the candidate the stable release now, whatever the evidence says so far."""
    _say(_order(name, stage, {"action": "promote"}), json)


@app.command()
def abort(name: Named, stage: Stage = "", json: output.AsJson = False) -> None:
    """Take the candidate away. The stable release stays."""
    _say(_order(name, stage, {"action": "abort"}), json)


@app.command()
def simulate(
    release: Annotated[str, typer.Argument(metavar="APP@N")],
    stage: Stage = "",
    runs: Annotated[int, typer.Option(min=1, max=1000, help="Simulated rollouts of each regression.")] = 10,
    requests: Annotated[int, typer.Option(min=100, help="After so many, a simulated rollout is given up.")] = 20_000,
    json: output.AsJson = False,
) -> None:
    """Tell from the app's own traffic how soon the release's plan would catch which regression. Starts nothing."""
    name, number = split(release)

    async def ask() -> tuple[dict[str, Any], dict[str, Any]]:
        told = settings.read()
        async with connect(told.url, told.key) as client:
            found = await client.call("GET", f"/api/v1/apps/{name}/releases/{number}")
            return dict(found), dict(await client.call("GET", await _path(client, name, stage) + "/baseline"))

    found, baseline = asyncio.run(ask())
    if not baseline["median_ms"] or not baseline["per_hour"]:
        raise InvalidInput(f"{name} has not answered enough in the last week to tell anything from it.")
    plan = Plan.model_validate(found["facts"].get("rollout") or {})
    stable = Behaviour(baseline["bad"], baseline["median_ms"], baseline["spread"])
    traffic = Traffic(per_second=baseline["per_hour"] / 3600)
    rows = []
    with output.progress_bar() as progress:
        worse = regressions(stable)
        for done, one in enumerate(worse):
            progress(done, len(worse), f"simulating: {one.name}")
            ends = [simulated(plan, stable, one.candidate, traffic, requests, chance, 20) for chance in seeds(runs)]
            rows.append(_forecast(one.name, ends, traffic))
    if json:
        output.document({"baseline": baseline, "plan": plan.model_dump(mode="json"), "regressions": rows})
        return
    output.say(f"{baseline['per_hour']:.0f} requests an hour; {runs} rollouts each, of at most {requests:,} requests")
    output.table(rows, ("regression", "ends", "candidate_requests", "requests", "hours"))


def _forecast(name: str, ends: Sequence[End], traffic: Traffic) -> dict[str, Any]:
    """Medians over simulated rollouts; `ends` says how many ended how."""
    requests = statistics.median(end.requests for end in ends)
    counted = Counter(end.state for end in ends).most_common()
    return {
        "regression": name,
        "ends": [f"{state} {count}" for state, count in counted],
        "candidate_requests": statistics.median(end.candidate for end in ends),
        "requests": requests,
        "hours": round(requests / traffic.per_second / 3600, 2),
    }


def rollback(
    name: Named,
    to: Annotated[int | None, typer.Option(help="The release. Default: the last good one before.")] = None,
    stage: Stage = "",
    json: output.AsJson = False,
) -> None:
    """Go back: take away the candidate of a rollout, or make an earlier stable release stable again."""

    async def run() -> dict[str, Any]:
        told = settings.read()
        async with connect(told.url, told.key) as client:
            path = (await _path(client, name, stage)).removesuffix("/rollout") + "/rollback"
            return dict(await client.call("POST", path, {} if to is None else {"to": to}))

    done = asyncio.run(run())
    if json:
        output.document(done)
    else:
        output.say(f"{name}@{done['release']} {done['digest']} is the stable release of {done['stage']}")


def _order(name: str, stage: str, body: dict[str, Any]) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        told = settings.read()
        async with connect(told.url, told.key) as client:
            return dict(await client.call("POST", await _path(client, name, stage), body))

    return asyncio.run(run())


async def _path(client: Client, name: str, stage: str) -> str:
    """Where the rollout of an app's stage is. Raises NotFound for an app without a stable release."""
    if stage and stage not in STAGES:
        raise InvalidInput(f"--stage: {stage!r} is not one of {', '.join(STAGES)}.")
    if not stage:
        apps = (await client.call("GET", "/api/v1/apps"))["apps"]
        stages: dict[str, int] = next((one["stages"] for one in apps if one["app"] == name), {})
        stage = next((s for s in reversed(STAGES) if s in stages), "")
        if not stage:
            raise NotFound(f"{name} has no stable release in any stage: promote one first.")
    return f"/api/v1/apps/{name}/stages/{stage}/rollout"


def _say(found: dict[str, Any], json: bool) -> None:
    if json:
        output.document(found)
        return
    for line in _told(found):
        output.say(line)
    rows = [one for one in found["guardrails"] if one["e_value"] != 1 or one["candidate"] or one["stable"]]
    if rows:
        output.say("")
        output.table([{**one, "e_value": _number(one["e_value"])} for one in rows], _COLUMNS)
    output.say("")
    output.table([{**one, "at": one["at"][:19]} for one in found["decisions"]], ("at", "action", "by", "reason"))


_COLUMNS = ("name", "weight", "e_value", "candidate", "stable", "threshold")


def _told(found: dict[str, Any]) -> Iterator[str]:
    """A rollout in lines for a person."""
    yield _line(found)
    if found["waiting"]:
        yield f"waiting    {found['waiting']}"
    combined = found["combined"]
    against = f"{_number(combined['e_value'])} of {combined['needed']:g}"
    yield f"against it {against}  {sparkline(found['history'])}"
    criteria = "  ".join(f"{one['name']} {_number(one['e_value'])}" for one in found["criteria"])
    yield f"no worse   {criteria}  (each of {combined['needed']:g})"


def _line(found: dict[str, Any]) -> str:
    steps, exposure = found["plan"]["steps"], found["exposure"]
    place = f"step {found['step'] + 1} of {len(steps)}, " if found["state"] in _ACTIVE else ""
    return (
        f"{found['app']}@{found['release']} beside {found['app']}@{found['stable']} in {found['stage']}: "
        f"{found['state']}, {place}{found['weight']:.3g} of the traffic, "
        f"{exposure['candidate']} calls against {exposure['stable']}"
    )


def sparkline(history: Sequence[float]) -> str:
    """The last points of log10 of an e-value, from 1 and below (▁) to 100 and above (█)."""
    points = list(history)[-_SPARKS:]
    return "".join(_BARS[min(len(_BARS) - 1, max(0, math.floor(point / 2 * (len(_BARS) - 1))))] for point in points)


def _number(value: float) -> str:
    return f"{value:.3g}"
