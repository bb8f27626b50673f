"""A model behind the OpenAI protocol: any provider, and the embedded engine on its Unix socket."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

import aiohttp
import msgspec
import numpy as np
from numpy.typing import NDArray

from proveout.domain import Event, Excerpts, Finish, FinishReason, Message, Prompt, Text, Timeouts, ToolCallPiece, Usage
from proveout.engine import sse
from proveout.engine.weights import EMBEDDER
from proveout.errors import InvalidInput, ProveoutError, Truncated, Unavailable, UpstreamFailed

EMBED_TEXTS = 256  # texts of one request: keeps each within a few seconds on the embedded model
METRICS_SECONDS = 2.0  # whoever collects metrics waits for the page, and the engine's lines are not all of it
LINGER = 0.05  # seconds to wait for the end of the body after [DONE]


# What upstreams call the ends of whole answers. Any other end is none (`error`, `abort`, …).
_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    index: int = 0
    id: str | None = None
    function: _Function = msgspec.field(default_factory=_Function)


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    reasoning_content: Any = None  # not given on, but a sign of life
    reasoning: Any = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    error: Any = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class _Embedding(msgspec.Struct):
    embedding: str | list[float]
    index: int


class _Embeddings(msgspec.Struct):
    data: list[_Embedding]
    model: str | None = None
    usage: _Usage = msgspec.field(default_factory=_Usage)


class _Matches(msgspec.Struct):
    matches: list[list[float]]


class Remote:
    """One upstream. `base_url` ends in /v1; with `socket_path` the connection goes through that socket. Models in
    `reasoning` are told the bound of their answer as `max_completion_tokens`, since they refuse `max_tokens`.

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
        reasoning: Collection[str] = (),
    ) -> None:
        self._base = base_url.rstrip("/")
        self._name = name or self._base
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._socket_path = socket_path
        self._timeouts = timeouts
        self._reasoning = frozenset(reasoning)
        self._opened: aiohttp.ClientSession | None = None

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Event, None]:
        """See `Model`. Usage is the upstream's; zeros when it reports none, since pieces are not tokens."""
        answer = _Answer(self._name, _Deadline(self._timeouts))
        async with self._failures(answer):
            async with asyncio.timeout_at(answer.deadline.at):
                response = await self._post("/chat/completions", self._body(prompt))
            try:
                parser = sse.Parser()
                while not answer.done:
                    async with asyncio.timeout_at(answer.deadline.at):
                        received = await _received(response)
                    if not received:
                        break
                    for event in parser.feed(received):
                        for piece in answer.read(event):
                            yield piece
                            answer.deadline.extend()
                # A response read to its end leaves its connection for the next; after [DONE] nothing can be lost.
                with suppress(TimeoutError, aiohttp.ClientError, OSError):
                    async with asyncio.timeout(LINGER):
                        await _received(response)
            finally:
                response.close()  # before its end: closes the connection, which stops the upstream
            yield answer.finish(ended=answer.done or _is_framed(response))

    async def embed(self, texts: Sequence[str], model: str = EMBEDDER) -> NDArray[np.float32]:
        """Vectors, float32 [len(texts), dimensions], in the order of `texts`.

        Raises Unavailable (away or busy), UpstreamFailed, or InvalidInput.
        """
        rows, _ = await self.vectors(texts, model, {})
        return rows

    async def match(self, question: str, texts: Sequence[Excerpts], model: str = EMBEDDER) -> NDArray[np.float32]:
        """How near each excerpt is to a question and to each content word of it: cosines [excerpts, 1 + words]. Of our
        engine alone.

        Raises as `embed` does.
        """
        body = {"model": model, "question": question, "texts": list(texts)}
        async with (
            self._failures(None),
            asyncio.timeout(self._timeouts.first),
            await self._post("/matches", body) as response,
        ):
            found = msgspec.json.decode(await response.read(), type=_Matches)
        return np.array(found.matches, np.float32).reshape(sum(len(t.spans) for t in texts), -1)

    async def vectors(
        self, texts: Sequence[str], model: str, options: Mapping[str, object]
    ) -> tuple[NDArray[np.float32], Finish]:
        """As `embed`, with the upstream's usage; `options` are fields of OpenAI's request (`dimensions`), as sent."""
        if not texts:
            return np.empty((0, 384), np.float32), Finish("stop", Usage())
        parts = [texts[at : at + EMBED_TEXTS] for at in range(0, len(texts), EMBED_TEXTS)]
        found = [await self._embed(part, model, options) for part in parts]
        tokens = sum(answer.usage.prompt_tokens for _, answer in found)
        rows = np.concatenate([rows for rows, _ in found])
        return rows, Finish("stop", Usage(tokens), found[0][1].model or "")

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
            raise Unavailable(f"The model {' and the model '.join(missing)} is being loaded.")

    async def metrics(self) -> str:
        """The embedded engine's lines of OpenMetrics, without their end mark. Raises Unavailable or UpstreamFailed."""
        url = f"{self._base.removesuffix('/v1')}/metrics"
        async with (
            self._failures(None),
            asyncio.timeout(METRICS_SECONDS),
            self._session().get(url) as response,
        ):
            response.raise_for_status()
            return (await response.text()).removesuffix("# EOF\n")

    async def close(self) -> None:
        """Close the connections. A later use opens new ones."""
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    async def _embed(
        self, texts: Sequence[str], model: str, options: Mapping[str, object]
    ) -> tuple[NDArray[np.float32], _Embeddings]:
        body = {"model": model, "input": list(texts), "encoding_format": "base64", **options}
        async with self._failures(None):
            async with asyncio.timeout(self._timeouts.first):
                async with await self._post("/embeddings", body) as response:
                    found = msgspec.json.decode(await response.read(), type=_Embeddings)
            if len(found.data) != len(texts):
                raise UpstreamFailed(f"{self._name} sent {len(found.data)} vectors for {len(texts)} texts.")
            rows = [e.embedding for e in sorted(found.data, key=lambda e: e.index)]
            return np.stack([_row(r) for r in rows]), found

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

    def _body(self, prompt: Prompt) -> dict[str, object]:
        named = prompt.bounds_thoughts or prompt.model in self._reasoning
        return _chat(prompt, "max_completion_tokens" if named else "max_tokens")

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            path = self._socket_path
            connector = aiohttp.UnixConnector(str(path), limit=0) if path else aiohttp.TCPConnector(limit=0)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeouts.connect)
            self._opened = aiohttp.ClientSession(
                connector=connector,
                timeout=timeout,
                read_bufsize=1 << 20,
                cookie_jar=aiohttp.DummyCookieJar(),  # one caller's cookies are not another's
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
            kind = Truncated if answer is not None and answer.begun else UpstreamFailed
            why = answer.deadline.why if answer else f"sent nothing for {self._timeouts.first:g} s"
            raise kind(f"{self._name} {why}.") from error
        except (aiohttp.ClientError, OSError, ValueError, msgspec.MsgspecError) as error:
            kind = Truncated if answer is not None and answer.begun else UpstreamFailed
            raise kind(f"{self._name} broke off: {error or type(error).__name__}") from error


class _Deadline:
    """When patience with an answer ends (`at`, in the loop's time), and what to say then."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._end = asyncio.get_running_loop().time() + timeouts.total
        self._move(timeouts.first)

    def extend(self) -> None:
        """A token has come."""
        self._move(self._timeouts.between)

    def _move(self, wait: float) -> None:
        self._wait = wait
        self.at = min(asyncio.get_running_loop().time() + wait, self._end)

    @property
    def why(self) -> str:
        whole = self.at == self._end
        return f"did not end within {self._timeouts.total:g} s" if whole else f"sent nothing for {self._wait:g} s"


class _Answer:
    """What is known of one streamed answer so far."""

    def __init__(self, name: str, deadline: _Deadline) -> None:
        self._name = name
        self._reason: FinishReason | None = None
        self._usage = Usage()
        self._model = self._fingerprint = ""
        self._calls: set[int] = set()
        self.deadline = deadline
        self.begun = False
        self.done = False

    def read(self, event: sse.ServerEvent) -> Iterator[Text | ToolCallPiece]:
        """The pieces in one event. Raises UpstreamFailed or Truncated for an error event."""
        if event.data == "[DONE]":
            self.done = True
            return
        chunk = _decode_chunk(event.data)
        if chunk.error or event.name == "error":
            raise self._failed(f"{self._name} failed: {_message(chunk.error)}")
        self._model = chunk.model or self._model
        self._fingerprint = chunk.system_fingerprint or self._fingerprint
        if chunk.usage is not None:
            self._usage = Usage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
        if not chunk.choices:
            return
        choice = chunk.choices[0]
        delta = choice.delta
        if delta.content or choice.logprobs:
            self.begun = True
            yield Text(delta.content or "", False, choice.logprobs)
        if delta.refusal:
            self.begun = True
            yield Text(delta.refusal, refusal=True)
        if delta.tool_calls:
            self.begun = True
            for call in delta.tool_calls:
                yield self._tool_call(call)
        if delta.reasoning_content or delta.reasoning:
            self.deadline.extend()
        if choice.finish_reason:
            self._end(choice.finish_reason)

    def finish(self, ended: bool) -> Finish:
        """Raises Truncated when the upstream did not say that its answer is whole, or its stream was cut off."""
        if self._reason is None or not ended:
            raise Truncated(f"{self._name} ended its stream without saying that the answer is whole.")
        return Finish(self._reason, self._usage, f"{self._model} {self._fingerprint}".strip())

    def _tool_call(self, call: _ToolCall) -> ToolCallPiece:
        arguments = call.function.arguments or ""
        if call.index in self._calls:  # some upstreams repeat id and name, which clients would join
            return ToolCallPiece(call.index, arguments)
        self._calls.add(call.index)
        return ToolCallPiece(call.index, arguments, call.id or f"call_{token_hex(12)}", call.function.name)

    def _end(self, reason: str) -> None:
        if reason not in _REASONS:
            raise self._failed(f"{self._name} broke off its answer ({reason[:100]}).")
        self._reason = _REASONS[reason]

    def _failed(self, message: str) -> UpstreamFailed:
        return Truncated(message) if self.begun else UpstreamFailed(message)


async def _received(response: aiohttp.ClientResponse) -> bytes:
    """What came of the body since the last look; nothing at its end."""
    try:
        return await response.content.readany()
    except RuntimeError as error:  # so aiohttp says that a connection was lost amid rubbish, between two looks
        raise aiohttp.ClientPayloadError("the connection was lost") from error


def _is_framed(response: aiohttp.ClientResponse) -> bool:
    """Whether HTTP itself tells the end of this body from a cut (RFC 9112, section 8): then [DONE] may be missing."""
    return "content-length" in response.headers or "chunked" in response.headers.get("transfer-encoding", "").lower()


def _chat(prompt: Prompt, bound: str) -> dict[str, object]:
    """The request's body; `bound` is the field for the most tokens that the answer may have."""
    p = prompt.parameters
    body: dict[str, object] = {
        "model": prompt.model,
        "messages": [_turn(m) for m in prompt.messages],
        bound: p.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        **prompt.options,
    }
    # Nothing that nobody asked for: some models refuse a temperature, whatever it is.
    given = {"temperature": p.temperature, "top_p": p.top_p, "seed": p.seed}
    body |= {name: value for name, value in given.items() if value is not None}
    if p.stop:
        body["stop"] = list(p.stop)
    return body


def _turn(message: Message) -> dict[str, object]:
    turn: dict[str, object] = {"role": message.role, "content": message.parts or message.content}
    if message.name:
        turn["name"] = message.name
    if message.tool_calls:
        turn["content"] = turn["content"] or None
        turn["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        turn["tool_call_id"] = message.tool_call_id
    return turn


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
