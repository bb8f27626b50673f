"""OpenAI's wire format: what comes in becomes an Asked, what goes out is built from pieces."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from proveout.domain import Message, Role
from proveout.errors import InvalidInput
from proveout.serving.call import Answer, Asked, Call

MAX_MESSAGES = 1_000


class Part(msgspec.Struct, frozen=True):
    """A part of a message's content."""

    type: str
    text: str | None = None


class ChatMessage(msgspec.Struct, frozen=True):
    """One message, content as text or as text parts."""

    role: str
    content: str | list[Part] | None = None


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False


class ResponseFormat(msgspec.Struct, frozen=True):
    type: str = "text"


class ChatRequest(msgspec.Struct, frozen=True):
    """The body of `POST /v1/chat/completions`. What this server does not do is refused, never ignored."""

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
    tools: list[Any] | None = None
    response_format: ResponseFormat | None = None

    def asked(self) -> Asked:
        """Raises InvalidInput naming the field that cannot be served."""
        if (self.n or 1) != 1:
            raise InvalidInput("n: one answer per request is served; ask again for another.")
        if self.tools:
            raise InvalidInput("tools: this server does not pass tools to models; leave them out.")
        if self.response_format and self.response_format.type != "text":
            raise InvalidInput("response_format: only text is served; leave it out.")
        max_tokens = self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
        _within("temperature", self.temperature, 0, 2)
        _within("top_p", self.top_p, 0, 1)
        _within("max_tokens", max_tokens, 1, 1_000_000)
        if not 1 <= len(self.messages) <= MAX_MESSAGES:
            raise InvalidInput(f"messages: between 1 and {MAX_MESSAGES} are served.")
        return Asked(
            model=self.model,
            messages=tuple(_message(position, m) for position, m in enumerate(self.messages)),
            temperature=self.temperature,
            max_tokens=max_tokens,
            top_p=self.top_p,
            seed=self.seed,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
        )


_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


def _message(position: int, message: ChatMessage) -> Message:
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidInput(f"messages[{position}].role: {message.role!r} is not one of {', '.join(_ROLES)}.")
    content = message.content or ""
    if isinstance(content, list):
        if any(part.type != "text" or part.text is None for part in content):
            raise InvalidInput(f"messages[{position}].content: only text parts are served.")
        content = "".join(part.text or "" for part in content)
    return Message(role, content)


def _within(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise InvalidInput(f"{name}: {value} is not between {low} and {high}.")


def completion(call: Call, text: str, answer: Answer) -> dict[str, Any]:
    """The whole answer as a `chat.completion`."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish}
    return {
        **_head(call, "chat.completion"),
        "choices": [choice],
        "usage": usage(answer),
        "proveout": about(call, answer),
    }


def chunk(call: Call, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    """One `chat.completion.chunk`."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {**_head(call, "chat.completion.chunk"), "choices": [choice]}


def usage_chunk(call: Call, answer: Answer) -> dict[str, Any]:
    """The chunk that clients ask for with `stream_options.include_usage`."""
    return {**_head(call, "chat.completion.chunk"), "choices": [], "usage": usage(answer)}


def usage(answer: Answer) -> dict[str, int]:
    used = answer.usage
    return {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "total_tokens": used.prompt_tokens + used.completion_tokens,
    }


def about(call: Call, answer: Answer) -> dict[str, Any]:
    """What Proveout adds beside OpenAI's fields."""
    return {
        "request": call.request,
        "release": call.release.label if call.release else None,
        "arm": "stable" if call.stage else None,
        "citations": msgspec.to_builtins(answer.citations),
        "verdicts": msgspec.to_builtins(answer.verdicts),
        "grounded": answer.grounded,
        "quoted": answer.quoted,
    }


def event(data: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


DONE = b"data: [DONE]\n\n"


def _head(call: Call, kind: str) -> dict[str, Any]:
    model = call.asked.model or (call.release.app if call.release else call.models[0].name)
    return {"id": f"chatcmpl-{call.request}", "object": kind, "created": int(time.time()), "model": model}
