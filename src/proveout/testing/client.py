"""A client that notes what it saw of an answer: its first byte, its terminal event, how it ended.

Reads events by itself, not with the product's parser: a witness does not use the eyes of the accused.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp
import msgspec

Ending = Literal["whole", "error", "refused", "cut", "left", "silent", "confused"]


@dataclass(slots=True)
class Seen:
    """One request as its client saw it. Moments are time.monotonic().

    `ending`: `whole` (a finish, then [DONE]; or a whole body), `error` (an error event, nothing after it), `refused`
    (a status other than 200), `cut` (the connection ended without a terminal event), `left` (the client went away by
    itself), `silent` (nothing for `patience` seconds), `confused` (a [DONE] without finish, a finish and an error, or
    something after the terminal event).
    """

    tag: str
    model: str
    begun: float = field(default_factory=time.monotonic)
    request: str | None = None  # x-proveout-request
    status: int | None = None
    first_byte: float | None = None  # of the status line
    ended: float = 0.0
    ending: Ending = "cut"
    pieces: int = 0  # events with text
    text: str = ""
    finish: str | None = None
    usage: dict[str, int] | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Client:
    """A user of a gateway. `url` is the gateway's root, without /v1; `patience` is in seconds."""

    session: aiohttp.ClientSession
    url: str
    key: str
    patience: float = 30.0

    async def ask(
        self,
        model: str,
        tag: str,
        *,
        streamed: bool = True,
        leave_after: int | None = None,
        leave_at: float | None = None,
    ) -> Seen:
        """One question. Leaves after that many pieces of text, or after that many seconds, if told to."""
        seen = Seen(tag, model)
        body = {"model": model, "stream": streamed, "messages": [{"role": "user", "content": f"Say it. tag={tag}"}]}
        try:
            async with asyncio.timeout(leave_at or self.patience), self._post(body) as response:
                seen.first_byte = time.monotonic()
                seen.status, seen.request = response.status, response.headers.get("x-proveout-request")
                if response.status != 200:
                    seen.ending, seen.error = "refused", _code(await response.read())
                elif streamed:
                    await _read_stream(response, seen, leave_after)
                else:
                    _read_whole(await response.read(), seen)
                if seen.ending == "left":
                    seen.ended = time.monotonic()
                    response.close()
        except TimeoutError:
            seen.ending = "left" if leave_at else "silent"
        except (aiohttp.ClientError, OSError):
            seen.ending = "cut"
        seen.ended = seen.ended or time.monotonic()
        return seen

    async def record(self, request: str) -> dict[str, Any] | None:
        """The server's record of a request; None when it has none. Waits while the server is not able to tell (503)."""
        deadline = time.monotonic() + self.patience
        while True:
            async with self._get(f"/api/v1/requests/{request}") as response:
                if response.status != 503 or time.monotonic() > deadline:
                    return dict(await response.json()) if response.status == 200 else None
            await asyncio.sleep(0.1)

    async def newest(self, limit: int = 1000) -> list[dict[str, Any]]:
        """The server's newest records."""
        async with self._get(f"/api/v1/requests?limit={limit}") as response:
            return list((await response.json())["requests"])

    def _post(self, body: object) -> aiohttp.client._RequestContextManager:
        return self.session.post(f"{self.url}/v1/chat/completions", json=body, headers=self._headers)

    def _get(self, path: str) -> aiohttp.client._RequestContextManager:
        return self.session.get(self.url + path, headers=self._headers)

    @property
    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}


async def _read_stream(response: aiohttp.ClientResponse, seen: Seen, leave_after: int | None) -> None:
    rest, terminal = b"", False
    while received := await response.content.readany():
        *events, rest = (rest + received).split(b"\n\n")
        for event in events:
            if terminal:
                seen.ending = "confused"
                return
            terminal = _read_event(event.removeprefix(b"data: "), seen)
            if leave_after is not None and seen.pieces >= leave_after:
                seen.ending = "left"
                return
    if rest or (seen.ending == "cut" and seen.finish is not None):
        seen.ending = "confused"


def _read_event(data: bytes, seen: Seen) -> bool:
    """Whether this was a terminal event."""
    if data == b"[DONE]":
        seen.ending = "whole" if seen.finish else "confused"
        return True
    chunk = msgspec.json.decode(data)
    if "error" in chunk:
        seen.ending, seen.error = "confused" if seen.finish else "error", str(chunk["error"].get("code"))
        return True
    seen.usage = chunk.get("usage") or seen.usage
    for choice in chunk.get("choices", ()):
        if text := choice["delta"].get("content"):
            seen.pieces += 1
            seen.text += text
        seen.finish = choice.get("finish_reason") or seen.finish
    return False


def _read_whole(data: bytes, seen: Seen) -> None:
    answer = msgspec.json.decode(data)
    choice = answer["choices"][0]
    seen.text, seen.finish, seen.usage = choice["message"]["content"] or "", choice["finish_reason"], answer["usage"]
    seen.ending = "whole" if seen.finish else "confused"


def _code(data: bytes) -> str:
    """The error's code. A refusal that is not in OpenAI's shape has none."""
    try:
        return str(msgspec.json.decode(data)["error"]["code"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return ""
