"""`POST /v1/chat/completions`, and `POST /generate` for the simplest clients."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from proveout.domain import Message, Text, ToolCallPiece
from proveout.edge.http import problems
from proveout.edge.openai import wire
from proveout.edge.openai.endpoint import serve, serve_whole
from proveout.edge.openai.wire import ChatMessage, Said, StreamOptions
from proveout.errors import InvalidInput, ProveoutError
from proveout.serving.call import Answer, Asked, Call

# Given on to models that take them; the pipeline refuses them where the model does not.
_OPTIONS = (
    "tools",
    "tool_choice",
    "response_format",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "reasoning_effort",
    "verbosity",
)
_REFUSED: Mapping[str, str] = {
    "audio": "only text is answered; leave it out.",
    "functions": "use tools instead.",
    "function_call": "use tool_choice instead.",
    "moderation": "this server does not do it; leave it out.",
    "web_search_options": "this server does not search the web; leave it out.",
}


class ChatRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body. Unknown fields are refused, as OpenAI does, since they might have changed the answer."""

    messages: list[ChatMessage]
    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    n: int | None = 1
    # -- options
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    # -- refused
    audio: Any = None
    functions: Any = None
    function_call: Any = None
    moderation: Any = None
    web_search_options: Any = None
    modalities: list[str] | None = None
    # -- of no effect on the answer
    user: str | None = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prediction: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None

    @property
    def streamed(self) -> bool:
        return bool(self.stream)

    def asked(self) -> Asked:
        """Raises InvalidInput naming the field that cannot be served."""
        if (self.n or 1) != 1:
            raise InvalidInput("n: one answer per request is served; ask again for another.")
        if self.modalities and self.modalities != ["text"]:
            raise InvalidInput("modalities: only text is answered.")
        wire.refuse(self, _REFUSED)
        max_tokens = self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
        sampling = wire.sampling(self, max_tokens)
        wire.within("presence_penalty", self.presence_penalty, -2, 2)
        wire.within("frequency_penalty", self.frequency_penalty, -2, 2)
        return Asked(
            model=self.model,
            messages=wire.messages(self.messages),
            options=self._options(),
            bounds_thoughts=self.max_completion_tokens is not None,
            conversation=wire.conversation(self.metadata),
            **sampling,
        )

    def _options(self) -> dict[str, Any]:
        """What is set and not neutral."""
        options = {name: value for name in _OPTIONS if (value := getattr(self, name))}
        shape = options.get("response_format", {}).get("type", "text")
        if shape not in ("text", "json_object", "json_schema"):
            raise InvalidInput(f"response_format.type: {shape!r} is not one of text, json_object, json_schema.")
        if shape == "text":
            options.pop("response_format", None)
        if self.tools:
            wire.functions(self.tools)
            if self.parallel_tool_calls is not None:
                options["parallel_tool_calls"] = self.parallel_tool_calls
        elif options.pop("tool_choice", None) not in (None, "none", "auto"):
            raise InvalidInput("tool_choice: there are no tools to choose from.")
        return options

    def format(self, call: Call) -> ChatFormat:
        return ChatFormat(call, with_usage=self.stream_options is not None and self.stream_options.include_usage)


class ChatFormat:
    """`chat.completion`, and `chat.completion.chunk`s."""

    def __init__(self, call: Call, *, with_usage: bool) -> None:
        self._call, self._with_usage = call, with_usage
        self._head = {"id": f"chatcmpl-{call.request}", "created": int(time.time()), "model": wire.model(call)}
        if call.streamed:
            self._head["object"] = "chat.completion.chunk"
            opened = b"data: " + msgspec.json.encode(self._head)[:-1]
            self._before_text = opened + b',"choices":[{"index":0,"delta":{"content":'

    def whole(self, said: Said, answer: Answer) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": said.text, "refusal": said.refusal or None}
        if said.calls or said.refusals:
            message["content"] = said.text or None
        if said.calls:
            message["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": "".join(c.arguments)}}
                for c in said.calls.values()
            ]
        logprobs = {"content": said.logprobs, "refusal": None} if said.logprobs else None
        choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": answer.finish}
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": wire.usage(answer),
            "proveout": wire.about(self._call, answer),
        }

    def start(self) -> bytes:
        return wire.events([self._chunk({"role": "assistant", "content": ""})])

    def piece(self, piece: Text | ToolCallPiece) -> bytes:
        if isinstance(piece, ToolCallPiece):
            return wire.events([self._chunk({"tool_calls": [_call_delta(piece)]})])
        if piece.refusal or piece.logprobs:
            delta = {"refusal" if piece.refusal else "content": piece.text}
            return wire.events([self._chunk(delta, logprobs=piece.logprobs)])
        return self._before_text + msgspec.json.encode(piece.text) + _AFTER_TEXT

    def end(self, answer: Answer) -> bytes:
        chunks = [{**self._chunk({}, answer.finish), "proveout": wire.about(self._call, answer)}]
        if self._with_usage:
            chunks.append({**self._head, "choices": [], "usage": wire.usage(answer)})
        return wire.events(chunks) + wire.DONE

    def broken(self, error: ProveoutError) -> bytes:
        return wire.events([problems.body(error)])

    def _chunk(self, delta: dict[str, Any], finish: str | None = None, logprobs: Any = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return {**self._head, "choices": [choice]}


_AFTER_TEXT = b'},"logprobs":null,"finish_reason":null}]}\n\n'


def _call_delta(piece: ToolCallPiece) -> dict[str, Any]:
    if piece.id is None:
        return {"index": piece.index, "function": {"arguments": piece.arguments}}
    function = {"name": piece.name or "", "arguments": piece.arguments}
    return {"index": piece.index, "id": piece.id, "type": "function", "function": function}


async def chat_completions(request: Request) -> Response:
    """`POST /v1/chat/completions`: an answer to messages; an app leaves out system ones and says `proveout.ignored`."""
    return await serve(request, ChatRequest)


class GenerateRequest(msgspec.Struct, frozen=True):
    """The body of `POST /generate`; `max_length` is in tokens."""

    prompt: str
    max_length: int = 256

    def asked(self) -> Asked:
        """Raises InvalidInput when the length is out of bounds."""
        wire.within("max_length", self.max_length, 1, 1_000_000)
        return Asked(None, (Message("user", self.prompt),), max_tokens=self.max_length)


async def generate(request: Request) -> Response:
    """`POST /generate`: the interface of the simplest proof-of-concept services."""
    return await serve_whole(
        request,
        GenerateRequest,
        lambda body: body.asked(),
        lambda _, said, answer: {"generated_text": said.text},
    )
