"""kill -9 of a model's process under load: everybody gets an answer or a status, and the next answer comes soon."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import openai

from conftest import Server

VICTIMS = ("generator", "embedder")
PATIENCE = 60.0  # seconds in which every request must have ended


def client(server: Server) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.owner_key, max_retries=0, timeout=120)


async def strike_model(server: Server, victim: str, model: str) -> float:
    """Seconds from the kill to the next whole answer. Fails for any end but an answer, 502, or 503 with Retry-After."""
    async with client(server) as api:
        asks = [asyncio.create_task(_ask(api, victim, model, long=True)) for _ in range(8)]
        await asyncio.sleep(0.5)
        os.kill(server.pid_of(f"processes.{victim}"), signal.SIGKILL)
        killed = time.monotonic()
        await asyncio.sleep(0.1)
        asks += [asyncio.create_task(_ask(api, victim, model, long=True)) for _ in range(4)]
        async with asyncio.timeout(PATIENCE):
            while not await _ask(api, victim, model, long=False):  # noqa: ASYNC110 - another process cannot set an event
                await asyncio.sleep(0.1)
            back = time.monotonic() - killed
            await asyncio.gather(*asks)
    return back


async def _ask(api: openai.AsyncOpenAI, victim: str, model: str, *, long: bool) -> bool:
    """Whether there was an answer; False for a refusal that says when to come back, or a failure that says so."""
    try:
        if victim == "embedder":
            texts = ["word " * 200] * (64 if long else 1)
            await api.embeddings.create(model="local/all-minilm-l6-v2", input=texts)
        else:
            await api.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": "Tell me a long story."}],
                max_tokens=100 if long else 1,
            )
    except openai.APIStatusError as error:
        assert error.status_code == 502 or (error.status_code == 503 and error.response.headers["retry-after"]), error
        return False
    return True
