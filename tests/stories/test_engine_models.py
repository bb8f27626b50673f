"""A model of one's own, by path, deterministic: used like every other, pinned by its release, back after kills."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from conftest import HELPDESK, Server, start_server
from model_kills import VICTIMS, client, strike_model
from proveout.engine import weights
from proveout.engine.template import ChatTemplate

TEMPLATE = """
{%- if tools %}<|im_start|>system
Write <tool_call>{"name": ..., "arguments": ...}</tool_call>. The functions:
{%- for tool in tools %}
{{ tool.function | tojson }}
{%- endfor %}<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}<|im_start|>assistant
"""
APP = """
schema: 1
app: mine
purpose: Answers.
owners: {accountable: a@example.org}
model: {use: local/mine}
"""
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Leeds", "York"]}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("mine")
    (folder / "own.jinja").write_text(TEMPLATE)
    (folder / "own.gguf").symlink_to(weights.generator().files[0])
    (folder / "proveout.yaml").write_text(
        "models:\n  mine: {path: own.gguf, chat_template: own.jinja, mode: deterministic, memory: 700 MiB}\n"
        "engine: {memory: 2 GiB}\n"
    )
    (folder / "app").mkdir()
    (folder / "app" / "app.yaml").write_text(APP)
    running = start_server(folder / "data", str(folder / "app"), "--config", str(folder / "proveout.yaml"))
    yield running
    assert running.stop() == 0


async def say(api: openai.AsyncOpenAI, text: str, **options: Any) -> Any:
    return await api.chat.completions.create(
        model="local/mine", messages=[{"role": "user", "content": text}], temperature=0, **options
    )


def test_it_is_listed_and_its_release_pins_weights_mode_and_template(here: Server) -> None:
    async def listed() -> dict[str, Any]:
        async with client(here) as api:
            return {m.id: m.model_dump().get("proveout") async for m in await api.models.list()}

    models = asyncio.run(listed())
    assert "local/smollm2-135m-instruct" not in models  # another model takes its place
    shown = json.loads(here.cli("release", "show", "mine@1", "--json").stdout)["manifest"]["model"][0]["use"]
    assert shown == models["local/mine"]
    assert shown["mode"] == "deterministic" and shown["template"] == ChatTemplate(TEMPLATE).digest
    assert shown["digest"].startswith("sha256:")


def test_answers_are_the_same_alone_and_in_a_batch(here: Server) -> None:
    words = " ".join(p.read_text() for p in sorted((HELPDESK / "knowledge").rglob("*.md"))).split()
    questions = [f"Explain what the text says.\n\n{' '.join(words[n * 300 :][:300])}" for n in range(5)]

    async def scenario() -> None:
        async with client(here) as api:

            async def answer(number: int, wait: float = 0) -> tuple[str, list[float]]:
                await asyncio.sleep(wait)
                said = await say(api, questions[number], max_tokens=12 + number, logprobs=True)
                return said.choices[0].message.content, [t.logprob for t in said.choices[0].logprobs.content]

            together = await asyncio.gather(*(answer(n, wait=0.1 * (n % 3)) for n in range(5)))
            for number, (text, logprobs) in enumerate(together):
                alone, found = await answer(number)
                assert alone == text
                # Answers this short can be equal by luck; where the numbers are, long ones are too.
                assert found == pytest.approx(logprobs, abs=1e-4)

    asyncio.run(scenario())


def test_it_calls_tools_through_the_gateway_streamed_and_whole(here: Server) -> None:
    async def scenario() -> None:
        async with client(here) as api:
            options: dict[str, Any] = {"tools": [TOOL], "tool_choice": "required", "max_tokens": 60}
            whole = (await say(api, "What is the weather in Leeds?", **options)).choices[0]
            called = whole.message.tool_calls[0].function
            assert whole.finish_reason == "tool_calls" and json.loads(called.arguments) == {"city": "Leeds"}
            name, arguments = "", ""
            async for chunk in await say(api, "What is the weather in Leeds?", stream=True, **options):
                for call in (chunk.choices and chunk.choices[0].delta.tool_calls) or ():
                    name, arguments = name or call.function.name, arguments + (call.function.arguments or "")
            assert (name, arguments) == (called.name, called.arguments)

    asyncio.run(scenario())


def test_a_model_without_a_place_for_tools_refuses_them(server: Server) -> None:
    async def scenario() -> None:
        async with client(server) as api:
            for stream in (False, True):
                with pytest.raises(openai.BadRequestError, match="tools"):
                    await api.chat.completions.create(
                        model="local/smollm2-135m-instruct",
                        messages=[{"role": "user", "content": "What is the weather?"}],
                        tools=[TOOL],
                        stream=stream,
                    )
            shape: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"pattern": "a"}}}
            with pytest.raises(openai.BadRequestError, match="pattern"):
                await api.chat.completions.create(
                    model="local/smollm2-135m-instruct",
                    messages=[{"role": "user", "content": "Hi"}],
                    response_format=shape,
                )

    asyncio.run(scenario())


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_killed_model_process_is_back_and_nobody_waits_in_silence(here: Server, victim: str) -> None:
    asyncio.run(strike_model(here, victim, "local/mine"))


def test_what_cannot_be_served_stops_the_start_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "proveout.yaml").write_text("models: {mine: {path: model.pt}}")
    (tmp_path / "model.pt").touch()
    command = [sys.executable, "-m", "proveout", "up", "--data", "data", "--port", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "models.mine.path" in done.stderr and "can run code" in done.stderr
