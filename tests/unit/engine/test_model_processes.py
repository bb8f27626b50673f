"""The three processes as they run, with the real weights, on temporary sockets."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from proveout import settings
from proveout.domain import Event, Excerpts, Finish, Message, Parameters, Prompt, Text, ToolCallPiece
from proveout.engine import weights
from proveout.engine.minilm import Encoder
from proveout.engine.remote import Remote
from proveout.errors import InvalidInput, Truncated, Unavailable

TEMPLATE = """
{%- if tools %}<|im_start|>system
Call a function: write <tool_call>{"name": ..., "arguments": ...}</tool_call>. The functions:
{%- for tool in tools %}
{{ tool.function | tojson }}
{%- endfor %}<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}
{%- for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>
{% endfor %}<|im_start|>assistant
"""


class Engine:
    """A small supervisor: it keeps the listening sockets, so that processes can come and go."""

    def __init__(self, folder: Path, data: Path) -> None:
        (folder / "template.jinja").write_text(TEMPLATE)
        (folder / "proveout.yaml").write_text(f"models: {{{weights.GENERATOR}: {{chat_template: template.jinja}}}}")
        self._environment = settings.for_child({settings.DATA: data, settings.CONFIG: folder / "proveout.yaml"})
        self.socket = folder / "engine.sock"
        paths = {name: folder / f"{name}.sock" for name in ("generator", "embedder", "engine")}
        self._listeners = {name: self._listen(path) for name, path in paths.items()}
        self._arguments: dict[str, list[object]] = {
            "generator": ["--model", weights.GENERATOR],
            "embedder": ["--model", weights.EMBEDDER],
            "engine": [
                *("--chat", weights.GENERATOR, paths["generator"]),
                *("--embed", weights.EMBEDDER, paths["embedder"]),
            ],
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in paths:
            self.start(name)

    def start(self, name: str) -> None:
        number = self._listeners[name].fileno()
        command = [sys.executable, "-m", f"proveout.edge.processes.{name}", "--socket-fd", str(number)]
        command += map(str, self._arguments[name])
        self.processes[name] = subprocess.Popen(command, pass_fds=[number], env=self._environment)

    def kill(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait()

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(10)
        for listener in self._listeners.values():
            listener.close()

    @staticmethod
    def _listen(path: Path) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(128)
        return listener


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Engine]:
    assert pytestconfig.cache is not None
    started = Engine(tmp_path_factory.mktemp("engine"), pytestconfig.cache.mkdir("models"))
    try:
        asyncio.run(ready(started))
        yield started
    finally:
        started.stop()


@asynccontextmanager
async def session(engine: Engine) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession("http://engine", connector=aiohttp.UnixConnector(str(engine.socket))) as http:
        yield http


async def state(engine: Engine) -> tuple[int, dict[str, bool]]:
    async with session(engine) as http, http.get("/readyz") as response:
        return response.status, await response.json()


async def ready(engine: Engine) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if (await state(engine))[0] == 200:
                return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.1)
    raise AssertionError(f"not ready: {engine.processes}")


@asynccontextmanager
async def local(engine: Engine) -> AsyncIterator[Remote]:
    remote = Remote("http://engine/v1", socket_path=engine.socket)
    try:
        yield remote
    finally:
        await remote.close()


def prompt(text: str, max_tokens: int = 40, stop: tuple[str, ...] = (), temperature: float = 0.0) -> Prompt:
    parameters = Parameters(temperature, max_tokens, stop=stop, seed=5 if temperature else None)
    return Prompt(weights.GENERATOR, (Message("user", text),), parameters)


LONG = prompt("Write a very long story about a ship and its crew.", 2000)


async def answer(remote: Remote, asked: Prompt) -> tuple[str, Finish]:
    events: list[Event] = [event async for event in remote.generate(asked)]
    assert isinstance(events[-1], Finish)
    return "".join(e.text for e in events[:-1] if isinstance(e, Text)), events[-1]


def test_an_answer_streams_and_two_run_at_once(engine: Engine) -> None:
    async def scenario() -> None:
        async with local(engine) as remote:
            text, finish = await answer(remote, prompt("What is the capital of France?"))
            assert "Paris" in text
            assert finish.reason == "stop" and finish.usage.prompt_tokens > 10
            assert 0 < finish.usage.completion_tokens < 40

            async with aclosing(remote.generate(LONG)) as story:
                assert isinstance(await anext(story), Text)
                # The story is far from its end: this answer overtakes it.
                assert "Paris" in (await answer(remote, prompt("What is the capital of France?")))[0]
                assert isinstance(await anext(story), Text)

    asyncio.run(scenario())


def test_parameters_are_honoured(engine: Engine) -> None:
    async def scenario() -> None:
        async with local(engine) as remote:
            _, short = await answer(remote, prompt("Tell me a story.", max_tokens=5))
            assert short.reason == "length" and short.usage.completion_tokens == 5
            text, stopped = await answer(remote, prompt("What is the capital of France?", stop=("Paris",)))
            assert text.strip() and "Pari" not in text and stopped.reason == "stop"
            drawn = [(await answer(remote, prompt("Tell me a story.", 16, temperature=1.0)))[0] for _ in "12"]
            assert drawn[0] == drawn[1] != (await answer(remote, prompt("Tell me a story.", 16)))[0]
            for text in ("word " * 9000, "\N{GOTHIC LETTER AHSA}" * 4000):  # the letter is several tokens
                with pytest.raises(InvalidInput, match="8192"):
                    await answer(remote, prompt(text))

    asyncio.run(scenario())


def test_a_message_cannot_end_its_own_turn(engine: Engine) -> None:
    async def scenario() -> None:
        async with local(engine) as remote:
            plain = (await answer(remote, prompt("a im_end b", 1)))[1].usage.prompt_tokens
            _, finish = await answer(remote, prompt("a <|im_end|> b", 1))
            assert finish.usage.prompt_tokens > plain  # control tokens would be one token each

    asyncio.run(scenario())


def test_leaving_frees_the_generator(engine: Engine) -> None:
    async def scenario() -> float:
        async with local(engine) as remote:
            stories = [remote.generate(LONG) for _ in range(16)]
            await asyncio.gather(*map(anext, stories))
            for story in stories:
                await story.aclose()
            start = time.monotonic()
            await answer(remote, prompt("Hello", 4))
            return time.monotonic() - start

    # 16 stories of 2,000 tokens would take a minute; the seventeenth answer would wait for one to end.
    assert asyncio.run(scenario()) < 3


def test_leaving_before_the_answer_frees_the_generator_too(engine: Engine) -> None:
    async def scenario() -> float:
        body = {
            "model": weights.GENERATOR,
            "max_tokens": 2000,
            "messages": [{"role": "user", "content": "A story"}],
        }
        async with session(engine) as http, local(engine) as remote:
            asks = [asyncio.create_task(http.post("/v1/chat/completions", json=body)) for _ in range(16)]
            await asyncio.sleep(0.5)
            for ask in asks:
                ask.cancel()
            await asyncio.gather(*asks, return_exceptions=True)
            start = time.monotonic()
            await answer(remote, prompt("Hello", 4))
            return time.monotonic() - start

    assert asyncio.run(scenario()) < 3


def test_a_full_queue_refuses_and_says_when_to_come_back(engine: Engine) -> None:
    async def scenario() -> None:
        async with local(engine) as remote:
            asks = [asyncio.create_task(answer(remote, LONG)) for _ in range(16 + 64 + 1)]
            done, _ = await asyncio.wait(asks, return_when=asyncio.FIRST_COMPLETED, timeout=10)
            for ask in asks:
                ask.cancel()
            ended = await asyncio.gather(*asks, return_exceptions=True)
            refused = [e for e in ended if isinstance(e, Unavailable)]
            assert len(done) == len(refused) == 1
            assert refused[0].retry_after == 2 and "64" in refused[0].message
            await asyncio.sleep(refused[0].retry_after)
            await answer(remote, prompt("Hello", 1))

    asyncio.run(scenario())


def test_matches_are_the_encoders_and_few(engine: Engine) -> None:
    question, said = "How long is annual leave?", "Holiday is 25 days a year. It is long."
    texts = [Excerpts(said, 0, ((0, 26), (27, 38))), Excerpts("Annual leave is long.", 0, ((0, 21),))]

    async def scenario() -> None:
        async with local(engine) as remote:
            found = await remote.match(question, texts)
            with pytest.raises(InvalidInput, match="Send 1 to 16 texts"):
                await remote.match(question, texts * 9)
        expected = Encoder(weights.embedder().folder).matches(question, texts)
        assert found.shape == expected.shape == (3, 4)
        assert np.abs(found - expected).max() < 0.02

    asyncio.run(scenario())


def test_embeddings_are_the_encoders(engine: Engine) -> None:
    texts = [f"{'word ' * (n * 7 % 50)} number {n}" for n in range(40)]

    async def scenario() -> None:
        async with local(engine) as remote:
            many, one = await asyncio.gather(remote.embed(texts), remote.embed(texts[3:4]))
        expected = Encoder(weights.embedder().folder).encode(texts)
        assert (many * expected).sum(1).min() > 0.999
        assert float(np.dot(one[0], expected[3])) > 0.999

    asyncio.run(scenario())


def test_a_query_overtakes_a_long_batch_and_leaving_drops_the_batch(engine: Engine) -> None:
    async def scenario() -> None:
        async with local(engine) as remote:
            for _ in range(2):
                batch = asyncio.create_task(remote.embed([f"{n} " + "word " * 200 for n in range(200)]))
                await asyncio.sleep(0.2)
                await remote.embed(["a query"])
                assert not batch.done()
                batch.cancel()
                await asyncio.wait((batch,))
            start = time.monotonic()
            await remote.embed(["one", "two"])
            assert time.monotonic() - start < 1  # behind the two batches it would take 5 s

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/chat/completions", {"model": "other", "messages": [{"role": "user", "content": "x"}]}, 404),
        ("/v1/chat/completions", {"model": weights.GENERATOR, "messages": []}, 400),
        ("/v1/embeddings", {"model": weights.EMBEDDER, "input": []}, 400),
    ],
)
def test_errors_have_openais_shape(engine: Engine, path: str, body: dict[str, object], status: int) -> None:
    async def scenario() -> None:
        async with session(engine) as http, http.post(path, json=body) as response:
            assert response.status == status
            error = (await response.json())["error"]
            assert error["message"] and error["type"] == "invalid_request_error"

    asyncio.run(scenario())


def test_content_may_come_in_parts_and_unstreamed(engine: Engine) -> None:
    async def scenario() -> None:
        parts = [{"type": "text", "text": "What is the capital "}, {"type": "text", "text": "of France?"}]
        body = {
            "model": weights.GENERATOR,
            "temperature": 0,
            "messages": [{"role": "user", "content": parts}],
        }
        async with session(engine) as http, http.post("/v1/chat/completions", json=body) as response:
            answered = await response.json()
        assert "Paris" in answered["choices"][0]["message"]["content"]
        assert answered["usage"]["total_tokens"] > 20

    asyncio.run(scenario())


CITY = {"type": "object", "properties": {"city": {"enum": ["Leeds", "York"]}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "The weather.", "parameters": CITY}}
CLOCK = {"type": "function", "function": {"name": "get_time"}}


async def post(engine: Engine, path: str = "/v1/chat/completions", **fields: Any) -> tuple[int, dict[str, Any]]:
    question = {"messages": [{"role": "user", "content": "What is the weather in Leeds?"}]}
    body = {"model": weights.GENERATOR, **(question if "chat" in path else {}), **fields}
    async with session(engine) as http, http.post(path, json=body) as response:
        return response.status, await response.json()


def test_calls_of_tools_fit_their_schemas_and_stream_alike(engine: Engine) -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}

    async def scenario() -> None:
        status, body = await post(engine, tools=[CLOCK, WEATHER], tool_choice=named)
        choice = body["choices"][0]
        assert status == 200 and choice["finish_reason"] == "tool_calls"
        (call,) = choice["message"]["tool_calls"]
        assert call["id"].startswith("call_") and call["function"]["name"] == "get_weather"
        assert json.loads(call["function"]["arguments"]) == {"city": "Leeds"}
        assert choice["message"]["content"] is None

        async with local(engine) as remote:
            options = {"tools": [CLOCK, WEATHER], "tool_choice": named}
            events = [e async for e in remote.generate(replace(prompt("The weather in Leeds?"), options=options))]
        first, *more, finish = events
        assert isinstance(first, ToolCallPiece) and first.id and first.name == "get_weather"
        assert isinstance(finish, Finish) and finish.reason == "tool_calls" and len(more) > 2
        assert json.loads("".join(p.arguments for p in more if isinstance(p, ToolCallPiece))) == {"city": "Leeds"}

        # What the tool said goes back into the conversation; without tools offered, an answer is text.
        turns = [
            {"role": "user", "content": "What is the weather in Leeds?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": "Sunny"},
        ]
        _, body = await post(engine, messages=turns, tools=[WEATHER], tool_choice="none", max_tokens=10)
        assert "tool_calls" not in body["choices"][0]["message"]
        assert body["usage"]["prompt_tokens"] > 30

    asyncio.run(scenario())


def test_answers_are_held_to_a_schema(engine: Engine) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}, "people": {"type": "integer"}}}
    schema |= {"required": ["city", "people"]}

    async def scenario() -> None:
        for given in (
            {"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}},
            {"type": "json_object"},
        ):
            status, body = await post(engine, response_format=given, max_tokens=200)
            assert status == 200
            [choice] = body["choices"]
            if "json_schema" not in given and choice["finish_reason"] == "length":
                # How long a free object gets is the model's choice, and so the processor's: this one is cut short.
                assert choice["message"]["content"].startswith("{")
                continue
            made = json.loads(choice["message"]["content"])
            assert isinstance(made, dict)
            if "json_schema" in given:
                assert set(made) == {"city", "people"} and isinstance(made["people"], int)

    asyncio.run(scenario())


def test_log_probabilities_are_of_the_tokens_of_the_text(engine: Engine) -> None:
    async def scenario() -> None:
        status, body = await post(engine, logprobs=True, max_tokens=20)
        choice = body["choices"][0]
        tokens = choice["logprobs"]["content"]
        assert status == 200 and b"".join(bytes(t["bytes"]) for t in tokens).decode() == choice["message"]["content"]
        assert all(t["logprob"] <= 0 and t["top_logprobs"] == [] for t in tokens)
        assert any(t["logprob"] < 0 for t in tokens)

    asyncio.run(scenario())


def test_text_completions_go_on_without_a_chat_template(engine: Engine) -> None:
    async def scenario() -> None:
        body = (await post(engine, "/v1/completions", prompt="The capital of France is", max_tokens=5))[1]
        assert "Paris" in body["choices"][0]["text"] and body["usage"]["prompt_tokens"] == 5

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"top_logprobs": 3, "logprobs": True}, "top_logprobs"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"n": 2}, "n"),
        ({"response_format": {"type": "json_schema"}}, "json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}},
            "schema.type",
        ),
        ({"tools": [WEATHER, WEATHER]}, "same name"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "'x'"),
        ({"tool_choice": "required"}, "no tools"),
        ({"tools": [WEATHER], "response_format": {"type": "json_object"}}, "schema"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "image_url"),
        ({"messages": [{"role": "user", "content": "word " * 9000}]}, "8192 tokens"),
        ({"messages": [{"role": "user", "content": "word " * 9000}], "stream": True}, "8192 tokens"),
        ({"temperature": 3}, "temperature"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(engine: Engine, fields: dict[str, Any], says: str) -> None:
    status, body = asyncio.run(post(engine, **fields))
    assert status == 400 and body["error"]["type"] == "invalid_request_error" and says in body["error"]["message"]


def test_models_and_metrics_are_told(engine: Engine) -> None:
    async def scenario() -> None:
        async with session(engine) as http:
            async with http.get("/v1/models") as response:
                names = [m["id"] for m in (await response.json())["data"]]
            assert names == [weights.GENERATOR, weights.EMBEDDER]
            async with http.get("/metrics") as response:
                families = {f.name: f for f in text_string_to_metric_families(await response.text())}  # type: ignore[no-untyped-call]
        (requests,) = families["proveout_engine_requests"].samples
        assert requests.labels["model"] == weights.GENERATOR and requests.value > 0
        assert 0 <= families["proveout_engine_cache"].samples[0].value <= 1

    asyncio.run(scenario())


def test_a_killed_generator_breaks_its_answers_and_comes_back(engine: Engine) -> None:
    async def scenario() -> None:
        async with local(engine) as remote:
            story = remote.generate(LONG)
            assert isinstance(await anext(story), Text)
            os.kill(engine.processes["generator"].pid, signal.SIGKILL)
            with pytest.raises(Truncated):
                async for event in story:
                    assert not isinstance(event, Finish)
            away, unready = await asyncio.gather(
                answer(remote, prompt("Hello")), remote.check(), return_exceptions=True
            )
            assert isinstance(away, Unavailable) and away.retry_after == 2
            assert isinstance(unready, Unavailable) and weights.GENERATOR in unready.message
            assert weights.EMBEDDER not in unready.message
            assert (await remote.embed(["still here"])).shape == (1, 384)

            engine.kill("generator")
            engine.start("generator")
            await ready(engine)
            await remote.check()
            assert "Paris" in (await answer(remote, prompt("What is the capital of France?")))[0]

    asyncio.run(scenario())
