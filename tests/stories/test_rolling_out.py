"""A release that answers worse is rolled back by itself, a sound one is promoted, and the record says why."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from conftest import Scripted, Server

APP = """\
app: kiosk
purpose: Answer questions on the kiosk.
owners: {accountable: someone@example.com}
model: {use: echo/honest}
knowledge: [{name: kiosk, source: notes, min_score: 0}]
rollout:
  steps: [30%, 50%]
  minimum: {calls: 10}
  seconds_per_step: 0
  margins: {bad_events: 0.4, latency: 0.4}
"""
NOTE = "# Hours\n\nThe kiosk opens at nine in the morning.\n\n# Wares\n\nThe kiosk sells newspapers and bread rolls.\n"
ALIVE = ("running", "paused", "frozen")


async def ask_until_it_ends(server: Server, app: str, most: float) -> tuple[Counter[tuple[int, str]], dict[str, Any]]:
    """Asks four at a time until the rollout has ended, and 1 s longer; answers with how it went."""
    seen: Counter[tuple[int, str]] = Counter()
    arms: dict[str, str] = {}
    path = f"{server.url}/api/v1/apps/{app}/stages/poc/rollout"
    state: dict[str, Any] = {"state": "running"}
    began = ended = time.monotonic()
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {server.owner_key}"}) as session:

        async def ask(who: int) -> None:
            number = 0
            while (state["state"] in ALIVE and time.monotonic() < began + most) or time.monotonic() < ended + 1:
                number += 1
                question = f"When does the kiosk open in the morning, visitor {who}, day {number}?"
                body = {
                    "model": app,
                    "messages": [{"role": "user", "content": question}],
                    "stream": number % 2 == 0,
                }
                async with session.post(server.url + "/v1/chat/completions", json=body) as answer:
                    text = await answer.text()
                    assert answer.status == 200 and (number % 2 or text.rstrip().endswith("data: [DONE]")), text
                    seen[answer.status, answer.headers["x-proveout-release"]] += 1
                    if number % 2:
                        arms[answer.headers["x-proveout-release"]] = json.loads(text)["proveout"]["arm"]

        async def watch() -> None:
            nonlocal ended
            while state["state"] in ALIVE and time.monotonic() < began + most:
                await asyncio.sleep(0.2)
                async with session.get(path) as answer:
                    state.update(await answer.json())
            ended = time.monotonic()

        await asyncio.gather(watch(), *(ask(who) for who in range(4)))
    return seen, {**state, "arms_told": arms}


def call(server: Server, path: str, body: object = None, key: str | None = None) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key or server.owner_key}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{server.url}/api/v1{path}", data, headers)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def release_all(server: Server, app: str, folder: Callable[..., Path], text: str, models: list[str]) -> None:
    """Makes a release with each model, and the first the stable one."""
    for model in models:
        made = folder({"app.yaml": text.replace("honest", model), "notes/hours.md": NOTE}, f"{app}-{model}")
        assert call(server, f"/apps/{app}/releases", {"path": str(made)})[0] == 201
    assert call(server, f"/apps/{app}/promotions", {"release": 1, "stage": "poc"})[0] == 200


def test_a_worse_release_is_rolled_back(scripted: Scripted, app_folder: Callable[..., Path]) -> None:
    server, rollout = scripted.server, "/apps/kiosk/stages/poc/rollout"
    release_all(server, "kiosk", app_folder, APP, ["honest", "liar"])
    assert call(server, rollout)[0] == 404  # there was none
    assert server.cli("rollout", "start", "kiosk@2").returncode == 0
    status, said = call(server, rollout, {"action": "start", "release": 2})
    assert status == 409 and "is running" in said["error"]["message"]

    seen, told = asyncio.run(ask_until_it_ends(server, "kiosk", 40))
    assert told["state"] == "rolled_back", told["guardrails"]
    assert told["arms_told"] == {"kiosk@1": "stable", "kiosk@2": "candidate"}
    last = told["decisions"][0]
    assert last["by"] == "system" and last["reason"].startswith("unsupported: ")
    assert last["facts"]["combined"] >= 100 and last["facts"]["arms"]["candidate"]["events"]["unsupported"] > 3
    assert {status for status, _ in seen} == {200}
    shown = server.cli("rollout", "status", "kiosk")
    assert shown.returncode == 0 and "rolled_back" in shown.stdout and "unsupported: " in shown.stdout
    assert server.cli("audit", "verify").returncode == 0
    headers = {"Authorization": f"Bearer {server.owner_key}", "Accept": "text/html"}
    with urllib.request.urlopen(urllib.request.Request(f"{server.url}/operations", headers=headers)) as answer:
        page = answer.read().decode()
    assert 'id="rollouts"' in page and "kiosk@2" in page and "rolled back" in page and last["reason"][:40] in page


def test_a_sound_release_is_promoted(scripted: Scripted, app_folder: Callable[..., Path]) -> None:
    server = scripted.server
    text = APP.replace("kiosk", "booth").replace("knowledge: [{name: booth, source: notes, min_score: 0}]\n", "")
    release_all(server, "booth", app_folder, text, ["honest", "candid"])
    assert call(server, "/apps/booth/stages/poc/rollout", {"action": "start", "release": 2})[0] == 200
    seen, told = asyncio.run(ask_until_it_ends(server, "booth", 40))
    assert [one["action"] for one in told["decisions"]] == ["promoted", "step", "start"], (seen, told["waiting"])
    assert {status for status, _ in seen} == {200}
    back = json.loads(server.cli("rollback", "booth", "--json").stdout)
    assert (back["stage"], back["release"]) == ("poc", 1)
    planned = server.cli("rollout", "simulate", "booth@2", "--runs", "2", "--requests", "1000", "--json")
    told = {one["regression"]: one for one in json.loads(planned.stdout)["regressions"]}
    assert told["errors + 50%"]["ends"] == ["rolled_back 2"] and told["none"]["ends"] == ["promoted 2"]


def test_feedback_is_kept_with_its_request(scripted: Scripted) -> None:
    server = scripted.server
    body = {"model": "echo", "messages": [{"role": "user", "content": "Good morning!"}]}
    headers = {"Authorization": f"Bearer {server.owner_key}", "Content-Type": "application/json"}
    asked = urllib.request.Request(f"{server.url}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(asked) as answer:
        request = answer.headers["x-proveout-request"]
    given = {"request": request, "thumb": "down", "comment": "Too short.", "outcome": {"solved": False, "minutes": 3}}
    assert call(server, "/feedback", given)[0] == 201
    told = call(server, f"/feedback/{request}")[1]
    assert (told["score"], told["comment"], told["outcome"]) == (0, "Too short.", {"solved": 0, "minutes": 3})
    assert call(server, "/feedback", {"request": request, "score": 0.75})[0] == 201  # the last word stands
    assert call(server, f"/feedback/{request}")[1]["score"] == 0.75
    for wrong, status in (
        ({"request": "req_unknown", "score": 1}, 404),
        ({"request": request}, 400),
        ({"request": request, "score": 2}, 400),
        ({"request": request, "score": 1, "thumb": "up"}, 400),
    ):
        assert call(server, "/feedback", wrong)[0] == status
    stranger = call(server, "/keys", {"name": "a stranger"})[1]["key"]
    assert call(server, "/feedback", {"request": request, "score": 1}, stranger)[0] == 404
