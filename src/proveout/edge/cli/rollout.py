"""`proveout rollout` and `proveout rollback`."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Annotated, Any

import typer
from rich.table import Table

from proveout.domain import STAGES
from proveout.edge.cli import output
from proveout.edge.cli.client import Client, Refused, connected
from proveout.edge.cli.releases import split
from proveout.errors import InvalidInput, NotFound, Unavailable
from proveout.releases.plan import Plan
from proveout.releases.rollout import ACTIVE, State
from proveout.releases.simulate import Behaviour, End, Traffic, regressions, seeds
from proveout.releases.simulate import simulate as simulated

app = typer.Typer(no_args_is_help=True)
Named = Annotated[str, typer.Argument(metavar="APP")]
Stage = Annotated[str, typer.Option(help="The stage. Default: the highest that has a stable release.")]
Running = Annotated[str, typer.Option("--stage", help="The stage. Default: the one that a rollout is under way to.")]

_BARS = "▁▂▃▄▅▆▇█"
_SPARKS = 40
_WIDTH = 20  # of a bar
_SHOWN = 8  # guardrails, the weightiest evidence first
_FOLLOW_SECONDS = 1.0
_LOOK_SECONDS = 10.0  # after which a server that says nothing is away
_AWAY_SECONDS = 60.0  # after which a server that is away is not waited for
_CODES = {"promoted": 0, "rolled_back": 1, "aborted": 3}


@app.command()
def start(
    release: Annotated[str, typer.Argument(metavar="APP@N")], stage: Stage = "", json: output.AsJson = False
) -> None:
    """Give a release a part of a stage's traffic, and let the rollout decide."""
    name, number = split(release)

    async def run() -> dict[str, Any]:
        async with connected() as client:
            path = await _path(client, name, stage)
            return dict(await client.call("POST", path, {"action": "start", "release": number}))

    _say(asyncio.run(run()), json)


@app.command()
def status(
    name: Named,
    stage: Annotated[
        str, typer.Option(help="The stage. Default: the one with a rollout under way, else with the latest.")
    ] = "",
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            help="Show it live to its end. Exit code 0: promoted, 1: rolled back, 3: aborted, 2: it could not be seen.",
        ),
    ] = False,
    json: output.AsJson = False,
) -> None:
    """Show a rollout: its step, the evidence against it and for it, both arms, and every decision."""

    async def run() -> dict[str, Any]:
        async with connected() as client:
            path = await path_of_rollout(client, name, stage)
            found = dict(await client.call("GET", path))
            return await _followed(client, path, found, json) if follow else found

    try:
        found = asyncio.run(run())
    except Refused as refused:
        if follow and refused.status >= 500:  # 1 would say that it was rolled back
            raise Unavailable(refused.message) from refused
        raise
    _say(found, json)
    if follow:
        raise typer.Exit(_CODES[found["state"]])


async def _followed(client: Client, path: str, found: dict[str, Any], json: bool) -> dict[str, Any]:
    """The rollout at its end. Until then it is shown as it stands on a terminal, elsewhere a line for each change."""
    live = output.is_watched() and not json
    shown: object = None
    with output.pages() if live else nullcontext() as page:
        tell = output.warn if page is None else partial(page.console.print, markup=False)
        while found["state"] in ACTIVE:
            seen = (found["state"], found["step"], found["exposure"], len(found["decisions"]))
            if page is not None:
                page.update(output.page(list(_view(found))), refresh=True)
            elif seen != shown and not json:
                output.say(_line(found))
            shown = seen
            await asyncio.sleep(_FOLLOW_SECONDS)
            found = await _look(client, path, tell)
        if page is not None:
            page.update("", refresh=True)
    return found


async def _look(client: Client, path: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """The rollout as it stands. A server that is away is waited for; raises Unavailable when it does not come back."""
    away: float | None = None  # since
    while True:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                return dict(await client.call("GET", path))
        except (Unavailable, TimeoutError, Refused) as error:
            if isinstance(error, Refused) and error.status < 500:
                raise
            said = str(error) or f"{client.url} does not answer."
            if away is None:
                away = time.monotonic()
                tell(f"{said} Looking again for {_AWAY_SECONDS:.0f} s.")
            elif time.monotonic() - away >= _AWAY_SECONDS:
                raise Unavailable(said) from error
        await asyncio.sleep(_FOLLOW_SECONDS)


@app.command()
def pause(name: Named, stage: Running = "", json: output.AsJson = False) -> None:
    """Stop taking steps. The candidate keeps its weight and is watched: it is rolled back if it must be."""
    _say(_order(name, stage, "pause"), json)


@app.command()
def resume(name: Named, stage: Running = "", json: output.AsJson = False) -> None:
    """Go on with a paused or frozen rollout."""
    _say(_order(name, stage, "resume"), json)


@app.command()
def promote(name: Named, stage: Running = "", json: output.AsJson = False) -> None:
    """Make the candidate the stable release now, whatever the evidence says so far."""
    _say(_order(name, stage, "promote"), json)


@app.command()
def abort(name: Named, stage: Running = "", json: output.AsJson = False) -> None:
    """Take the candidate away. The stable release stays."""
    _say(_order(name, stage, "abort"), json)


@app.command()
def simulate(
    release: Annotated[str, typer.Argument(metavar="APP@N")],
    stage: Stage = "",
    runs: Annotated[int, typer.Option(min=1, max=1000, help="Simulated rollouts of each regression.")] = 10,
    requests: Annotated[int, typer.Option(min=100, help="After so many, a simulated rollout is given up.")] = 20_000,
    users: Annotated[
        int | None, typer.Option(min=1, help="Who keep their arm. Default: every request is drawn for itself.")
    ] = None,
    json: output.AsJson = False,
) -> None:
    """Tell from the app's own traffic how soon the release's plan would catch which regression. Starts nothing."""
    name, number = split(release)

    async def ask() -> tuple[dict[str, Any], dict[str, Any]]:
        async with connected() as client:
            found = await client.call("GET", f"/api/v1/apps/{name}/releases/{number}")
            return dict(found), dict(await client.call("GET", await _path(client, name, stage) + "/baseline"))

    found, baseline = asyncio.run(ask())
    if not baseline["median_ms"] or not baseline["per_hour"]:
        raise InvalidInput(f"{name} has not answered enough in the last week to tell anything from it.")
    plan = Plan.model_validate(found["facts"].get("rollout") or {})
    means, shares = ({name: one[told] for name, one in baseline["scores"].items()} for told in ("mean", "share"))
    stable = Behaviour(baseline["bad"], baseline["median_ms"], baseline["spread"], means, shares)
    traffic = Traffic(per_second=baseline["per_hour"] / 3600, users=users)
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
    output.say(f"{baseline['per_hour']:,.3g} requests an hour; {runs} rollouts each, of at most {requests:,} requests")
    output.say(f"a sound candidate: {_told(rows[0]['ends'])}")
    rows[0]["regression"] = "none: sound"
    shown = [{**one, "ends": _told(one["ends"])} for one in rows]
    output.table(shown, ("regression", "ends", "candidate_requests", "requests", "hours"))


def _forecast(name: str, ends: Sequence[End], traffic: Traffic) -> dict[str, Any]:
    """Medians over simulated rollouts; `ends` says how many ended how."""
    requests = statistics.median(end.requests for end in ends)
    counted = Counter(_UNDECIDED.get(end.state, end.state) for end in ends).most_common()
    return {
        "regression": name,
        "ends": [f"{state} {count}" for state, count in counted],
        "candidate_requests": statistics.median(end.candidate for end in ends),
        "requests": requests,
        "hours": round(requests / traffic.per_second / 3600, 2),
    }


_UNDECIDED: dict[State, str] = {"running": "undecided", "aborted": "undecided at the deadline"}


def _told(ends: Sequence[str]) -> str:
    """`promoted 8, rolled back 2`."""
    return ", ".join(ends).replace("_", " ")


def rollback(
    name: Named,
    to: Annotated[int | None, typer.Option(help="The release. Default: the last good one before.")] = None,
    stage: Stage = "",
    json: output.AsJson = False,
) -> None:
    """Go back: take away the candidate of a rollout, or make an earlier stable release stable again."""

    async def run() -> dict[str, Any]:
        async with connected() as client:
            highest = (await _stages(client, name))[-1]
            elsewhere = [] if stage else [one for one in await _under_way(client, name) if one != highest]
            if elsewhere:
                raise InvalidInput(
                    f"A rollout of {name} to {elsewhere[0]} is under way; the highest stage is {highest}: say --stage."
                )
            path = _at(name, stage or highest).removesuffix("/rollout") + "/rollback"
            return dict(await client.call("POST", path, {} if to is None else {"to": to}))

    done = asyncio.run(run())
    if json:
        output.document(done)
    else:
        output.say(f"{name}@{done['release']} {done['digest']} is the stable release of {done['stage']}")


def _order(name: str, stage: str, action: str) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        async with connected() as client:
            path = await path_of_rollout(client, name, stage)
            return dict(await client.call("POST", path, {"action": action}))

    return asyncio.run(run())


async def _path(client: Client, name: str, stage: str) -> str:
    """Where the rollout of an app's stage is. Raises NotFound for an app without a stable release."""
    return _at(name, stage or (await _stages(client, name))[-1])


async def path_of_rollout(client: Client, name: str, stage: str) -> str:
    """Where the rollout is that is under way, or else the latest. Raises InvalidInput where there are several."""
    if stage:
        return _at(name, stage)
    found = await _rollouts(client, name)
    active = [one["stage"] for one in found if one["state"] in ACTIVE]
    if len(active) > 1:
        raise InvalidInput(f"Rollouts of {name} are under way to {' and '.join(active)}: say --stage.")
    latest = max(found, key=lambda one: str(one["started"]), default=None)
    if latest is None:
        raise NotFound(f"There was no rollout of {name}: start one with proveout rollout start {name}@N.")
    return _at(name, active[0] if active else latest["stage"])


async def _under_way(client: Client, name: str) -> list[str]:
    """The stages to which a rollout is under way."""
    return [one["stage"] for one in await _rollouts(client, name) if one["state"] in ACTIVE]


async def _rollouts(client: Client, name: str) -> list[dict[str, Any]]:
    """The latest rollout of each stage that had one."""
    stages = await _stages(client, name)
    return [one for one in [await _rollout(client, _at(name, stage)) for stage in stages] if one]


async def _rollout(client: Client, path: str) -> dict[str, Any] | None:
    try:
        return dict(await client.call("GET", path))
    except Refused as refused:
        if refused.status != 404:
            raise
        return None


async def _stages(client: Client, name: str) -> list[str]:
    """The stages with a stable release of an app, ascending. Raises NotFound where there is none."""
    apps = (await client.call("GET", "/api/v1/apps"))["apps"]
    stages: dict[str, int] = next((one["stages"] for one in apps if one["app"] == name), {})
    if not stages:
        raise NotFound(f"{name} has no stable release in any stage: promote one first.")
    return [stage for stage in STAGES if stage in stages]


def _at(name: str, stage: str) -> str:
    if stage not in STAGES:
        raise InvalidInput(f"--stage: {stage!r} is not one of {', '.join(STAGES)}.")
    return f"/api/v1/apps/{name}/stages/{stage}/rollout"


def _say(found: dict[str, Any], json: bool) -> None:
    if json:
        output.document(found)
    else:
        output.put(output.page(list(_view(found))))


def _view(found: Mapping[str, Any]) -> Iterator[str | Table]:
    """A rollout for a person: where it stands, what speaks against it and for it, both arms, every decision."""
    needed = found["combined"]["needed"]
    yield _line(found)
    if found["state"] in ACTIVE:
        yield f"steps     {_steps(found)}"
        yield f"deadline  {_moment(found['deadline'])} UTC"
    if found["waiting"]:
        yield f"waiting   {found['waiting']}"
    yield ""
    combined = found["combined"]["e_value"]
    course = sparkline(found["history"])
    yield f"against it  {bar(combined, needed)} {_number(combined)}, rolled back at {needed:g}  {course}"
    spoke = [one for one in found["guardrails"] if one["e_value"] != 1 or one["candidate"] or one["stable"]]
    heaviest = sorted(spoke, key=lambda one: -one["weight"] * one["e_value"])[:_SHOWN]
    if heaviest:
        yield output.grid([_guardrail(one) for one in heaviest], _COLUMNS)
    yield ""
    yield f"no worse, each to reach {needed:g} in the last step"
    yield output.grid([_criterion(one) for one in found["criteria"]], ("criterion", "margin", "shown", "e_value"))
    yield ""
    yield output.grid(list(_arms(found)), ("arm", "calls", "answered", "bad events", "scores", "outcomes"))
    yield ""
    said = [{**one, "at, UTC": _moment(one["at"]), "by": one["name"]} for one in found["decisions"]]
    yield output.grid(said, ("at, UTC", "action", "by", "reason"))


_COLUMNS = ("name", "weight", "e_value", "candidate", "stable", "threshold")


def _line(found: Mapping[str, Any]) -> str:
    place = f", {_percent(found['weight'])} of the traffic" if found["state"] in ACTIVE else ""
    calls = found["exposure"]
    return (
        f"{found['app']}@{found['release']} beside {found['app']}@{found['stable']} in {found['stage']}: "
        f"{found['state'].replace('_', ' ')}{place}, {calls['candidate']:,} calls against {calls['stable']:,}"
    )


def _steps(found: Mapping[str, Any]) -> str:
    """`1 % ✓  5 % ━━━━╌╌ 40 of 100 calls  25 %`."""
    told, calls = [], found["exposure"]
    for number, share in enumerate(found["plan"]["steps"]):
        done = " ✓" if number < found["step"] else ""
        if number == found["step"]:
            share_of_calls = min(1.0, calls["in_this_step"] / calls["needed"]) if calls["needed"] else 1.0
            done = f" {_filled(share_of_calls)} {calls['in_this_step']:,} of {calls['needed']:,} calls"
        told.append(_percent(share) + done)
    return "  ".join(told)


def _guardrail(one: Mapping[str, Any]) -> dict[str, Any]:
    threshold = None if one["threshold"] is None else _number(one["threshold"])
    return {**one, "weight": _number(one["weight"]), "e_value": _number(one["e_value"]), "threshold": threshold}


def _criterion(one: Mapping[str, Any]) -> dict[str, Any]:
    shown = bar(one["e_value"], one["needed"])
    return {"criterion": one["name"], "margin": one["margin"], "shown": shown, "e_value": _number(one["e_value"])}


def _arms(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for arm, counts in found["arms"].items():
        bad = [
            f"{name} {count:,} ({_percent(count / max(1, counts['calls']))})"
            for name, count in counts["events"].items()
        ]
        means = [f"{name} {total / counts['measured'][name]:.2f}" for name, total in counts["scores"].items()]
        came = [f"{name} {_mean(one['mean'])} (of {one['count']:,})" for name, one in found["outcomes"][arm].items()]
        told = {"arm": arm, "calls": counts["calls"], "answered": counts["answered"]}
        yield {**told, "bad events": bad, "scores": means, "outcomes": came}


def sparkline(history: Sequence[float]) -> str:
    """The last points of log10 of an e-value, from 1 and below (▁) to 100 and above (█)."""
    points = list(history)[-_SPARKS:]
    return "".join(_BARS[min(len(_BARS) - 1, max(0, math.floor(point / 2 * (len(_BARS) - 1))))] for point in points)


def bar(e_value: float, needed: float) -> str:
    """How far an e-value has come from 1 to what is needed, on a log axis."""
    return _filled(math.log(max(e_value, 1.0)) / math.log(needed))


def _filled(share: float) -> str:
    done = math.floor(_WIDTH * min(1.0, share))
    return "━" * done + "╌" * (_WIDTH - done)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _moment(at: str) -> str:
    return at[:19].replace("T", " ")


def _mean(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _number(value: float) -> str:
    return f"{value:.3g}"
