"""The evaluation's runner beside plain clients: the same questions of the same release, as many at a time.

The clients ask over HTTP, the runner through the pipeline within the worker; rounds alternate, and no question is asked
twice, so that nobody answers from a prefix that it has seen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from bench.engine import chat, prompts, proveout
from proveout.evals.runner import CONCURRENT

ROUNDS, CASES = 3, 96
APP = """
app: explain
purpose: Explain passages.
owners: {accountable: bench@example.com}
model: {use: local/smollm2-135m-instruct, parameters: {temperature: 0, max_tokens: 64}}
prompt: {answer: answer.md}
"""


def questions(turn: int) -> list[str]:
    """Questions over passages, other ones each turn."""
    texts = [messages[0]["content"] for messages in prompts()]
    return [f"({turn}.{number}) {texts[number % len(texts)]}" for number in range(CASES)]


async def by_clients(session: aiohttp.ClientSession, url: str, asked: list[str]) -> tuple[int, float]:
    """Tokens, and the seconds that they took."""
    left, tokens = iter(asked), 0

    async def client() -> None:
        nonlocal tokens
        for question in left:
            answer = await chat(session, url, "explain", [{"role": "user", "content": question}])
            tokens += int(answer["usage"]["completion_tokens"])

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CONCURRENT)))
    return tokens, time.perf_counter() - began


async def by_runner(session: aiohttp.ClientSession, url: str, asked: list[str]) -> tuple[int, float]:
    """Tokens, and the seconds from the order to the scored end."""
    cases = [{"id": str(number), "question": text, "facts": ["a"]} for number, text in enumerate(asked)]
    body = {"dataset": "\n".join(map(json.dumps, cases)), "repeats": 1}
    found, seconds = await evaluated(session, url, "explain", body)
    summary = found["summary"]
    return round(summary["effort"]["completion_tokens"] * summary["answers"]), seconds


async def evaluated(session: aiohttp.ClientSession, url: str, app: str, body: Any) -> tuple[dict[str, Any], float]:
    """An evaluation of an app's first release that has ended, and the seconds from its order to its end."""
    began = time.perf_counter()
    async with session.post(f"{url}/api/v1/apps/{app}/releases/1/evaluations", json=body) as response:
        begun: dict[str, Any] = await response.json()
    state = "running"
    while state in ("waiting", "running"):
        await asyncio.sleep(0.1)
        async with session.get(f"{url}/api/v1/jobs/{begun['job']}") as response:
            state = (await response.json())["state"]
    seconds = time.perf_counter() - began
    async with session.get(f"{url}/api/v1/evaluations/{begun['evaluation']}") as response:
        return await response.json(), seconds


async def measure(url: str, headers: dict[str, str]) -> tuple[list[float], list[float]]:
    """Tokens a second of each round: of clients, of the runner."""
    clients, runner = [], []
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=900)) as session:
        await by_clients(session, url, questions(0)[:CONCURRENT])
        for turn in range(ROUNDS):
            tokens, seconds = await by_clients(session, url, questions(2 * turn + 1))
            clients.append(tokens / seconds)
            tokens, seconds = await by_runner(session, url, questions(2 * turn + 2))
            runner.append(tokens / seconds)
    return clients, runner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="the Markdown page to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "app").mkdir()
        (folder / "app" / "app.yaml").write_text(APP)
        (folder / "app" / "answer.md").write_text("{{ question }}")
        with proveout(folder) as (url, headers):
            told = {"PROVEOUT_URL": url, "PROVEOUT_KEY": headers["Authorization"].removeprefix("Bearer ")}
            for command in (
                ["release", "create", str(folder / "app")],
                ["release", "promote", "explain@1", "--to", "poc"],
            ):
                subprocess.run([sys.executable, "-m", "proveout", *command], check=True, env=told)
            clients, runner = asyncio.run(measure(url, headers))
    rows = zip(clients, runner, strict=True)
    page = "\n".join(
        [
            "# The evaluation's runner beside plain clients\n",
            " ".join((__doc__ or "").split()) + f" {CASES} questions over 430 tokens each, {CONCURRENT} at a time.\n",
            "| round | clients, tokens/s | runner, tokens/s | ratio |",
            "|---|---|---|---|",
            *(f"| {n} | {c:.1f} | {r:.1f} | {r / c:.2f} |" for n, (c, r) in enumerate(rows, start=1)),
        ]
    )
    print(page)
    if options.output:
        options.output.write_text(page + "\n")


if __name__ == "__main__":
    main()
