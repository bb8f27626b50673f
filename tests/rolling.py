"""Rollouts over HTTP, for stories and for soaks: releases that differ, and clients that ask until it has ended."""

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

from conftest import Server

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
