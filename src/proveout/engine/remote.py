"""A model behind the OpenAI protocol: any provider, and the embedded engine on its Unix socket."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
from numpy.typing import NDArray

from proveout.domain import Event, Finish, FinishReason, Prompt, Text, Usage
from proveout.engine import sse
from proveout.engine.weights import EMBEDDER
from proveout.errors import InvalidInput, ProveoutError, Truncated, Unavailable, UpstreamFailed

EMBED_TEXTS = 256  # texts of one request: keeps each within a few seconds on the embedded model
LINGER = 0.05  # seconds to wait for the end of the body after [DONE]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: to connect, until the first text, and from one text to the next."""

    connect: float = 5
    first: float = 60
    between: float = 30


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


class _Embedding(msgspec.Struct):
    embedding: str | list[float]
    index: int


class _Embeddings(msgspec.Struct):
    data: list[_Embedding]


class Remote:
    """One upstream. `base_url` ends in /v1; with `socket_path` the connection goes through that socket.

    Makes no connection before it is used. Close it with `close()`, in the loop that used it.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        name: str | None = None,
        socket_path: Path | None = None,
        timeouts: Timeouts = Timeouts(),
    ) -> None:
        self._base = base_url.rstrip("/")
        self._name = name or self._base
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._socket_path = socket_path
        self._timeouts = timeouts
        self._opened: aiohttp.ClientSession | None = None

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Event, None]:
        """See `Model`. Usage is the upstream's; zeros when it reports none, since pieces are not tokens."""
        answer = _Answer(self._name)
        deadline = asyncio.get_running_loop().time() + self._timeouts.first
        async with self._failures(answer):
            async with asyncio.timeout_at(deadline):
                response = await self._post("/chat/completions", _chat(prompt))
            try:
                parser = sse.Parser()
                while not answer.done:
                    async with asyncio.timeout_at(deadline):
                        received = await response.content.readany()
                    if not received:
                        break
                    for event in parser.feed(received):
                        if text := answer.read(event):
                            yield Text(text)
                            deadline = asyncio.get_running_loop().time() + self._timeouts.between
                with suppress(TimeoutError):  # a response read to its end leaves its connection for the next
                    async with asyncio.timeout(LINGER):
                        await response.content.readany()
            finally:
                response.close()  # before its end: closes the connection, which stops the upstream
            yield answer.finish()

    async def embed(self, texts: Sequence[str], model: str = EMBEDDER) -> NDArray[np.float32]:
        """Vectors, float32 [len(texts), dimensions], in the order of `texts`.

        Raises Unavailable (away or busy), UpstreamFailed, or InvalidInput.
        """
        parts = [texts[at : at + EMBED_TEXTS] for at in range(0, len(texts), EMBED_TEXTS)]
        rows = [await self._embed(part, model) for part in parts]
        return np.concatenate(rows) if rows else np.empty((0, 384), np.float32)

    async def check(self) -> None:
        """Returns when the embedded engine's models are loaded. Raises Unavailable, saying which is not."""
        url = f"{self._base.removesuffix('/v1')}/readyz"
        async with (
            self._failures(None),
            asyncio.timeout(self._timeouts.connect),
            self._session().get(url) as response,
        ):
            states = dict(await response.json())
        missing = [name for name, state in states.items() if not state and name != "ready"]
        if missing:
            raise Unavailable(f"The {' and the '.join(missing)} is being loaded.")

    async def close(self) -> None:
        """Close the connections. A later use opens new ones."""
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    async def _embed(self, texts: Sequence[str], model: str) -> NDArray[np.float32]:
        body = {"model": model, "input": list(texts), "encoding_format": "base64"}
        async with self._failures(None):
            async with asyncio.timeout(self._timeouts.first):
                async with await self._post("/embeddings", body) as response:
                    found = msgspec.json.decode(await response.read(), type=_Embeddings)
            if len(found.data) != len(texts):
                raise UpstreamFailed(f"{self._name} sent {len(found.data)} vectors for {len(texts)} texts.")
            rows = [e.embedding for e in sorted(found.data, key=lambda e: e.index)]
            return np.stack([_row(r) for r in rows])

    async def _post(self, path: str, body: object) -> aiohttp.ClientResponse:
        """The response to a POST, its status checked."""
        headers = {**self._headers, "content-type": "application/json"}
        response = await self._session().post(
            self._base + path, data=msgspec.json.encode(body), headers=headers, allow_redirects=False
        )
        if response.status == 200:
            return response
        try:
            raise _refusal(self._name, response, await response.content.read(1 << 16))
        finally:
            response.close()

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            path = self._socket_path
            connector = aiohttp.UnixConnector(str(path), limit=0) if path else aiohttp.TCPConnector(limit=0)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeouts.connect)
            self._opened = aiohttp.ClientSession(
                connector=connector, timeout=timeout, read_bufsize=1 << 20, auto_decompress=True
            )
        return self._opened

    @asynccontextmanager
    async def _failures(self, answer: _Answer | None) -> AsyncIterator[None]:
        """Turn what a network does into our errors."""
        try:
            yield
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unavailable(f"{self._name} cannot be reached.") from error
        except TimeoutError as error:
            begun = answer is not None and answer.begun
            wait = self._timeouts.between if begun else self._timeouts.first
            kind = Truncated if begun else UpstreamFailed
            raise kind(f"{self._name} sent nothing for {wait:g} s.") from error
        except (aiohttp.ClientError, OSError, ValueError, msgspec.MsgspecError) as error:
            kind = Truncated if answer is not None and answer.begun else UpstreamFailed
            raise kind(f"{self._name} broke off: {error or type(error).__name__}") from error


class _Answer:
    """What is known of one streamed answer so far."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._reason: FinishReason | None = None
        self._usage = Usage()
        self.begun = False
        self.done = False

    def read(self, event: sse.ServerEvent) -> str:
        """The text of one event. Raises UpstreamFailed or Truncated for an error event."""
        if event.data == "[DONE]":
            self.done = True
            return ""
        chunk = msgspec.json.decode(event.data, type=_Chunk)
        if chunk.error or event.name == "error":
            raise self._failed(f"{self._name} failed: {_message(chunk.error)}")
        if chunk.usage is not None:
            self._usage = Usage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
        text = ""
        for choice in chunk.choices[:1]:
            text = choice.delta.content or ""
            if choice.finish_reason == "content_filter":
                self.begun = self.begun or bool(text)
                raise self._failed(f"{self._name} withheld the rest of the answer (content_filter).")
            if choice.finish_reason is not None:
                self._reason = "length" if choice.finish_reason == "length" else "stop"
        self.begun = self.begun or bool(text)
        return text

    def finish(self) -> Finish:
        """Raises Truncated when the upstream did not say that its answer is whole."""
        if self._reason is None:
            raise Truncated(f"{self._name} ended its stream without saying that the answer is whole.")
        return Finish(self._reason, self._usage)

    def _failed(self, message: str) -> UpstreamFailed:
        return Truncated(message) if self.begun else UpstreamFailed(message)


def _chat(prompt: Prompt) -> dict[str, object]:
    p = prompt.parameters
    body: dict[str, object] = {
        "model": prompt.model,
        "messages": [{"role": m.role, "content": m.content} for m in prompt.messages],
        "temperature": p.temperature,
        "top_p": p.top_p,
        "max_tokens": p.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if p.seed is not None:
        body["seed"] = p.seed
    if p.stop:
        body["stop"] = list(p.stop)
    return body


def _refusal(name: str, response: aiohttp.ClientResponse, body: bytes) -> ProveoutError:
    """The error for a status other than 200."""
    try:
        said = _message(msgspec.json.decode(body, type=_Chunk).error)
    except msgspec.MsgspecError:
        said = body[:200].decode(errors="replace")
    message = f"{name} answered {response.status}: {said}"
    if response.status in (429, 503):
        after = response.headers.get("retry-after", "")
        return Unavailable(message, retry_after=int(after) if after.isdecimal() else 2)
    return InvalidInput(message) if response.status in (400, 413, 422) else UpstreamFailed(message)


def _message(error: object) -> str:
    """The words of an OpenAI error object, or of what stands in its place."""
    message = error.get("message") if isinstance(error, dict) else error
    return str(message)[:500] if message else "no reason given"


def _row(embedding: str | list[float]) -> NDArray[np.float32]:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4").astype(np.float32)
    return np.array(embedding, np.float32)
