"""A provider for the story of the clients: the model's name says how it behaves."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

Bodies = list[dict[str, Any]]


@contextmanager
def provider() -> Iterator[tuple[str, Bodies]]:
    """Its base URL, and the bodies that it is sent."""
    bodies: Bodies = []
    loop = asyncio.new_event_loop()
    app = web.Application()

    async def chat(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.json())
        return await _chat(request, bodies[-1])

    async def embeddings(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.json())
        data = [{"index": n, "embedding": [float(n), 0.5]} for n, _ in enumerate(bodies[-1]["input"])]
        usage = {"prompt_tokens": 7, "total_tokens": 7}
        return web.json_response({"data": data, "model": "embed-2026", "usage": usage})

    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_post("/v1/embeddings", embeddings)
    runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def start() -> str:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        return f"http://{host}:{port}/v1"

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(start(), loop).result(10), bodies
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _chat(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    if body["model"] == "busy":
        return web.json_response({"error": {"message": "too many"}}, status=429, headers={"retry-after": "7"})
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for choice in _choices(body):
        event = {
            "model": "large-2026-02-01",
            "system_fingerprint": "fp_1",
            "choices": [{"index": 0, "delta": {}, **choice}],
        }
        await response.write(f"data: {json.dumps(event)}\n\n".encode())
    if body["model"] == "cut":
        assert request.transport is not None
        await asyncio.sleep(0.05)
        request.transport.abort()
        return response
    usage = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
    await response.write(f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n".encode())
    return response


def _choices(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"delta": {"role": "assistant", "content": ""}}
    said = [m["content"] for m in body["messages"] if m["role"] == "tool"]
    if body["model"] == "cut":
        yield {"delta": {"content": "half an ans"}}
    elif body["model"] == "filtered":
        yield {"delta": {"content": "I would"}}
        yield {"finish_reason": "content_filter"}
    elif body["model"] == "refuses":
        yield {"delta": {"refusal": "I will not."}}
        yield {"finish_reason": "stop"}
    elif said:
        yield {"delta": {"content": f"The tools say {', '.join(said)}."}}
        yield {"finish_reason": "stop"}
    elif body.get("tools"):
        name = body["tools"][0]["function"]["name"]
        for index, city in enumerate(("Leeds", "Hull")):
            call = {"index": index, "id": f"call_{index}", "type": "function"}
            yield {"delta": {"tool_calls": [{**call, "function": {"name": name, "arguments": ""}}]}}
            for part in ('{"city"', f': "{city}"}}'):
                yield {"delta": {"tool_calls": [{"index": index, "function": {"arguments": part}}]}}
        yield {"finish_reason": "tool_calls"}
    elif body.get("response_format", {}).get("type") == "json_schema":
        yield {"delta": {"content": '{"days"'}}
        yield {"delta": {"content": ": 25}"}}
        yield {"finish_reason": "stop"}
    else:
        token = {"token": "Yes", "bytes": [89], "logprob": -0.1, "top_logprobs": []}
        yield {"delta": {"content": "Yes"}, "logprobs": {"content": [token], "refusal": None}}
        yield {"delta": {"content": "."}, "finish_reason": "stop"}
