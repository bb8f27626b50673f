import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web

from proveout.domain import Event, Finish, Message, Parameters, Prompt, Text, Timeouts, ToolCall, ToolCallPiece, Usage
from proveout.engine.remote import Remote
from proveout.errors import InvalidInput, ProveoutError, Truncated, Unavailable, UpstreamFailed

ASK = Prompt("org/m", (Message("system", "s"), Message("user", "Grüße")), Parameters(0.5, 9, 0.9, 7, ("\n",)))
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PATIENT = Timeouts()


def chunk(**choice: object) -> str:
    return "data: " + json.dumps({"choices": [{"index": 0, **choice}]}) + "\n\n"


ROLE = chunk(delta={"role": "assistant", "content": ""}, finish_reason=None)
HALLO = chunk(delta={"content": "Hal"}) + chunk(delta={"content": "lö"})
STOP = chunk(delta={}, finish_reason="stop")
USAGE = 'data: {"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":2,"total_tokens":6}}\n\n'
DONE = "data: [DONE]\n\n"


def streaming(*parts: str | float, cut: bool = False) -> Handler:
    """A handler that writes texts and sleeps seconds; `cut` drops the connection instead of ending."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for part in parts:
            if isinstance(part, str):
                await response.write(part.encode())
            else:
                await asyncio.sleep(part)
        if cut:
            assert request.transport is not None
            request.transport.abort()
        return response

    return handler


def answering(status: int, body: str, **headers: str) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return handler


@asynccontextmanager
async def upstream(handler: Handler, timeouts: Timeouts = PATIENT, key: str = "k") -> AsyncIterator[Remote]:
    app = web.Application()
    app.router.add_post("/v1/{path:.*}", handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    remote = Remote(f"http://{host}:{port}/v1", key, name="acme", timeouts=timeouts, reasoning=["thinker"])
    try:
        yield remote
    finally:
        await remote.close()
        await runner.cleanup()


async def collect(remote: Remote, into: list[Event]) -> None:
    async with aclosing(remote.generate(ASK)) as events:
        async for event in events:
            into.append(event)


def ask(handler: Handler, timeouts: Timeouts = PATIENT) -> tuple[list[Event], ProveoutError | None]:
    """The events, and the error that ended them."""

    async def scenario() -> tuple[list[Event], ProveoutError | None]:
        events: list[Event] = []
        async with upstream(handler, timeouts) as remote:
            try:
                await collect(remote, events)
            except ProveoutError as error:
                return events, error
        return events, None

    return asyncio.run(scenario())


def test_an_answer_and_the_request_that_asked_for_it() -> None:
    seen: dict[str, object] = {}

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.update(await request.json(), path=request.path, key=request.headers["authorization"])
        return await streaming(": hello\n\n", ROLE, HALLO, STOP, USAGE, DONE)(request)

    events, error = ask(handler)
    assert error is None
    assert events == [Text("Hal"), Text("lö"), Finish("stop", Usage(4, 2))]
    assert seen == {
        "path": "/v1/chat/completions",
        "key": "Bearer k",
        "model": "org/m",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "Grüße"}],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 9,
        "seed": 7,
        "stop": ["\n"],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize(
    ("model", "bounds_thoughts", "field"),
    [
        ("m", False, "max_tokens"),
        ("m", True, "max_completion_tokens"),
        ("thinker", False, "max_completion_tokens"),
    ],
)
def test_nothing_goes_upstream_that_nobody_asked_for_but_a_bound(model: str, bounds_thoughts: bool, field: str) -> None:
    """Reasoning models refuse a temperature, whatever it is, and know the bound by another name."""
    seen: dict[str, object] = {}
    prompt = Prompt(model, (Message("user", "?"),), Parameters(max_tokens=9), bounds_thoughts=bounds_thoughts)

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.update(await request.json())
        return await streaming(HALLO, STOP, DONE)(request)

    async def scenario() -> None:
        async with upstream(handler) as remote:
            async for _ in remote.generate(prompt):
                pass

    asyncio.run(scenario())
    assert seen == {
        "model": model,
        "messages": [{"role": "user", "content": "?"}],
        field: 9,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_usage_that_is_not_reported_is_not_invented() -> None:
    assert ask(streaming(HALLO, chunk(delta={}, finish_reason="length"), DONE))[0][-1] == Finish("length", Usage())


def test_usage_in_the_last_chunk_is_read_too() -> None:
    last = 'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}\n\n'
    assert ask(streaming(HALLO, last, DONE))[0][-1] == Finish("stop", Usage(1, 0))


@pytest.mark.parametrize("parts", [(ROLE, HALLO), (HALLO, DONE), (ROLE,), ()])
def test_an_end_without_a_reason_is_truncated(parts: tuple[str, ...]) -> None:
    events, error = ask(streaming(*parts))
    assert type(error) is Truncated
    assert not any(isinstance(e, Finish) for e in events)


def test_a_cut_connection_is_truncated_after_text_and_failed_before() -> None:
    events, error = ask(streaming(HALLO, 0.05, cut=True))
    assert type(error) is Truncated and events == [Text("Hal"), Text("lö")]
    assert type(ask(streaming(ROLE, 0.05, cut=True))[1]) is UpstreamFailed


@pytest.mark.parametrize(
    "event", ['data: {"error":{"message":"boom"}}\n\n', 'event: error\ndata: {"error":"boom"}\n\n']
)
def test_error_events(event: str) -> None:
    _, error = ask(streaming(ROLE, event))
    assert type(error) is UpstreamFailed and "boom" in error.message
    events, error = ask(streaming(HALLO, event))
    assert type(error) is Truncated and len(events) == 2


@pytest.mark.parametrize(
    ("said", "reason"),
    [("content_filter", "content_filter"), ("tool_calls", "tool_calls"), ("model_length", "length"), ("eos", "stop")],
)
def test_reasons_are_kept(said: str, reason: str) -> None:
    events, error = ask(streaming(HALLO, chunk(delta={}, finish_reason=said), DONE))
    assert error is None and isinstance(events[-1], Finish) and events[-1].reason == reason


@pytest.mark.parametrize("said", ["error", "abort", "insufficient_system_resource"])
def test_reasons_that_are_no_ends(said: str) -> None:
    events, error = ask(streaming(HALLO, chunk(delta={}, finish_reason=said), DONE))
    assert type(error) is Truncated and len(events) == 2 and said in error.message


def test_the_upstreams_own_name_of_the_model_is_kept() -> None:
    named = 'data: {"model":"m-2026","system_fingerprint":"fp_1","choices":[{"delta":{"content":"x"}}]}\n\n'
    assert ask(streaming(named, STOP, DONE))[0][-1] == Finish("stop", Usage(), "m-2026 fp_1")


def tool(index: int, arguments: str, **more: object) -> str:
    function = {"name": "f", "arguments": arguments} if more else {"arguments": arguments}
    return chunk(delta={"tool_calls": [{"index": index, "function": function, **more}]})


def test_tool_calls_come_in_pieces_and_their_names_once() -> None:
    parts = (tool(0, "", id="a"), tool(0, '{"x":', id="a"), tool(0, "1}"), tool(1, "{}", id="b"))
    events, error = ask(streaming(*parts, chunk(delta={}, finish_reason="tool_calls"), DONE))
    assert error is None
    assert events == [
        ToolCallPiece(0, "", "a", "f"),
        ToolCallPiece(0, '{"x":'),
        ToolCallPiece(0, "1}"),
        ToolCallPiece(1, "{}", "b", "f"),
        Finish("tool_calls", Usage()),
    ]
    assert type(ask(streaming(parts[0], parts[1], 0.05, cut=True))[1]) is Truncated


def test_refusals_and_log_probabilities() -> None:
    logprobs = {"content": [{"token": "x", "logprob": -1.0}]}
    parts = (chunk(delta={"refusal": "No."}), chunk(delta={"content": "x"}, logprobs=logprobs))
    events, _ = ask(streaming(*parts, STOP, DONE))
    assert events[:2] == [Text("No.", refusal=True), Text("x", logprobs=logprobs)]


def test_what_a_request_with_tools_looks_like_upstream() -> None:
    seen: dict[str, object] = {}
    image = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
    prompt = Prompt(
        "m",
        (
            Message("user", "", ({"type": "text", "text": "?"}, image), name="ann"),
            Message("assistant", "", tool_calls=(ToolCall("a", "f", "{}"),)),
            Message("tool", "rain", tool_call_id="a"),
        ),
        Parameters(),
        {"tools": [{"type": "function"}], "logit_bias": {"1": 2}},
    )

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.update(await request.json())
        return await streaming(HALLO, STOP, DONE)(request)

    async def scenario() -> None:
        async with upstream(handler) as remote:
            async for _ in remote.generate(prompt):
                pass

    asyncio.run(scenario())
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert seen["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "?"}, image], "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "rain", "tool_call_id": "a"},
    ]
    assert seen["tools"] == [{"type": "function"}] and seen["logit_bias"] == {"1": 2}


def test_rubbish_is_an_upstream_failure() -> None:
    assert type(ask(streaming("data: {not json\n\n"))[1]) is UpstreamFailed
    assert type(ask(streaming(HALLO, 'data: {"choices": 5}\n\n'))[1]) is Truncated


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidInput),
        (401, UpstreamFailed),
        (404, UpstreamFailed),
        (500, UpstreamFailed),
        (302, UpstreamFailed),
    ],
)
def test_statuses(status: int, kind: type[ProveoutError]) -> None:
    events, error = ask(answering(status, '{"error": {"message": "because"}}', location="http://127.0.0.1:1/"))
    assert type(error) is kind and events == []
    assert error.message == f"acme answered {status}: because"


@pytest.mark.parametrize(("after", "seconds"), [("17", 17), ("Wed, 21 Oct 2026 07:28:00 GMT", 2)])
def test_busy_upstreams_say_when_to_come_back(after: str, seconds: int) -> None:
    for status in (429, 503):
        _, error = ask(answering(status, "slow down", retry_after=after))
        assert type(error) is Unavailable
        assert error.retry_after == seconds and "slow down" in error.message


def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    async def scenario(remote: Remote) -> None:
        try:
            with pytest.raises(Unavailable, match="cannot be reached"):
                await collect(remote, [])
        finally:
            await remote.close()

    asyncio.run(scenario(Remote("http://127.0.0.1:9/v1")))
    asyncio.run(scenario(Remote("http://engine/v1", socket_path=tmp_path / "none.sock")))


def test_silence_before_and_between_texts() -> None:
    quick = Timeouts(first=0.2, between=0.2)
    assert type(ask(streaming(ROLE, 1.0, HALLO, STOP), quick)[1]) is UpstreamFailed
    assert type(ask(streaming(ROLE, *(": still here\n\n", 0.1) * 5, HALLO, STOP), quick)[1]) is UpstreamFailed
    events, error = ask(streaming(HALLO, 1.0, STOP), quick)
    assert type(error) is Truncated and len(events) == 2
    assert ask(streaming(HALLO, 0.15, HALLO, 0.15, HALLO, STOP, DONE), quick)[1] is None


def test_the_whole_answer_has_its_time_too() -> None:
    events, error = ask(streaming(*(HALLO, 0.1) * 10, STOP), Timeouts(total=0.35))
    assert type(error) is Truncated and 2 <= len(events) <= 8
    assert error.message == "acme did not end within 0.35 s."
    _, error = ask(streaming(1.0, HALLO), Timeouts(total=0.2))
    assert type(error) is UpstreamFailed and "0.2 s" in error.message


def test_thinking_is_a_sign_of_life_and_not_an_answer() -> None:
    thought = chunk(delta={"reasoning_content": "hm"})
    events, error = ask(streaming(*(thought, 0.1) * 4, HALLO, STOP, DONE), Timeouts(first=0.2, between=0.2))
    assert error is None and events[:2] == [Text("Hal"), Text("lö")]


def test_a_slow_reader_is_no_timeout_of_the_upstream() -> None:
    async def scenario() -> None:
        handler = streaming(HALLO, 0.3, HALLO, STOP, DONE)
        async with upstream(handler, Timeouts(first=0.4, between=0.2)) as remote:
            async for _ in remote.generate(ASK):
                await asyncio.sleep(0.25)

    asyncio.run(scenario())


def test_closing_the_iterator_stops_the_upstream_at_once() -> None:
    async def scenario() -> float:
        stopped = asyncio.Event()

        async def handler(request: web.Request) -> web.StreamResponse:
            try:
                return await streaming(HALLO, 60.0)(request)
            finally:
                stopped.set()

        async with upstream(handler) as remote:
            events = remote.generate(ASK)
            assert await anext(events) == Text("Hal")
            start = asyncio.get_running_loop().time()
            await events.aclose()
            await asyncio.wait_for(stopped.wait(), 5)
            return asyncio.get_running_loop().time() - start

    assert asyncio.run(scenario()) < 0.5


def test_cancelling_the_reader_stops_the_upstream_also_before_the_first_text() -> None:
    async def scenario() -> None:
        started, stopped = asyncio.Event(), asyncio.Event()

        async def handler(request: web.Request) -> web.StreamResponse:
            started.set()
            try:
                await asyncio.sleep(60)
            finally:
                stopped.set()
            return web.Response()

        async with upstream(handler) as remote:
            task = asyncio.create_task(collect(remote, []))
            await asyncio.wait_for(started.wait(), 5)
            task.cancel()
            await asyncio.wait_for(stopped.wait(), 5)
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(scenario())


def test_a_whole_answer_leaves_its_connection_for_the_next() -> None:
    async def scenario() -> None:
        peers = set()

        async def handler(request: web.Request) -> web.StreamResponse:
            assert request.transport is not None
            peers.add(request.transport.get_extra_info("peername"))
            return await streaming(HALLO, STOP, DONE)(request)

        async with upstream(handler) as remote:
            for _ in range(3):
                await collect(remote, [])
        assert len(peers) == 1

    asyncio.run(scenario())


def test_embeddings_keep_their_order_over_many_requests_and_both_encodings() -> None:
    sizes: list[int] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        sizes.append(len(body["input"]))
        data = []
        for index, text in enumerate(body["input"]):
            row = np.array([int(text), 1], "<f4")
            encoded = base64.b64encode(row.tobytes()).decode() if len(sizes) % 2 else row.tolist()
            data.append({"index": index, "embedding": encoded})
        return web.json_response({"data": data[::-1], "model": body["model"]})

    async def scenario() -> None:
        async with upstream(handler) as remote:
            rows = await remote.embed([str(n) for n in range(600)])
            assert rows.dtype == np.float32
            assert rows.tolist() == [[n, 1] for n in range(600)]
            assert (await remote.embed([])).shape == (0, 384)

    asyncio.run(scenario())
    assert sizes == [256, 256, 88]


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (answering(200, '{"data": []}'), UpstreamFailed),
        (answering(200, "<html>"), UpstreamFailed),
        (answering(200, '{"data": [{"index": 0, "embedding": "!"}]}'), UpstreamFailed),
        (answering(503, "{}"), Unavailable),
    ],
)
def test_embeddings_that_fail(handler: Handler, kind: type[ProveoutError]) -> None:
    async def scenario() -> None:
        async with upstream(handler) as remote:
            with pytest.raises(kind) as raised:
                await remote.embed(["a"])
            assert type(raised.value) is kind

    asyncio.run(scenario())
