"""What OpenAI's endpoints share on the wire: messages that come in, and what an answer is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol

import msgspec

from proveout.domain import Message, Role, Text, ToolCall, ToolCallPiece
from proveout.errors import InvalidInput
from proveout.serving.call import Answer, Call

MAX_MESSAGES = 1_000
_EXACT = 2**53 - 1  # larger integers are no JSON numbers that everybody reads alike: the log could not hold them
DONE = b"data: [DONE]\n\n"

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_PARTS = ("image_url", "input_audio", "file")  # besides text


class Function(msgspec.Struct, frozen=True):
    name: str
    arguments: str


class ToolCallOfMessage(msgspec.Struct, frozen=True):
    """A call that an assistant asked for in an earlier turn."""

    id: str
    function: Function
    type: Literal["function"] = "function"


class ChatMessage(msgspec.Struct, frozen=True):
    """One message; content as text or as parts."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    refusal: str | None = None
    name: str | None = None
    tool_calls: list[ToolCallOfMessage] | None = None
    tool_call_id: str | None = None


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False
    include_obfuscation: bool = False  # padding against eavesdroppers who measure lengths: not done


def messages(given: list[ChatMessage]) -> tuple[Message, ...]:
    """Raises InvalidInput naming the place of the first mistake."""
    if not 1 <= len(given) <= MAX_MESSAGES:
        raise InvalidInput(f"messages: between 1 and {MAX_MESSAGES} are served.")
    return tuple(_message(f"messages[{position}]", m) for position, m in enumerate(given))


def _message(where: str, message: ChatMessage) -> Message:
    who = role(where, message.role)
    if who == "tool" and not message.tool_call_id:
        raise InvalidInput(f"{where}.tool_call_id: say which call this is the answer to.")
    content, parts = message.content or message.refusal or "", tuple[dict[str, Any], ...]()
    if isinstance(content, list):
        content, parts = read_parts(where, content)
    calls = tuple(ToolCall(c.id, c.function.name, c.function.arguments) for c in message.tool_calls or ())
    return Message(who, content, parts, message.name, calls, message.tool_call_id)


def role(where: str, name: str) -> Role:
    """Raises InvalidInput for a role that there is not."""
    if name not in _ROLES:
        raise InvalidInput(f"{where}.role: {name!r} is not one of {', '.join(_ROLES)}.")
    return _ROLES[name]


def read_parts(where: str, parts: list[dict[str, Any]]) -> tuple[str, tuple[dict[str, Any], ...]]:
    """The text of a content's parts, and the parts themselves if there is more than text."""
    text = []
    for position, part in enumerate(parts):
        kind = part.get("type")
        if kind in ("text", "refusal"):
            if not isinstance(part.get(kind), str):
                raise InvalidInput(f"{where}.content[{position}].{kind}: a string is missing.")
            text.append(part[kind])
        elif kind not in _PARTS:
            raise InvalidInput(f"{where}.content[{position}].type: {kind!r} is not one of text, {', '.join(_PARTS)}.")
    return "".join(text), tuple(parts) if len(text) < len(parts) else ()


def within(name: str, value: float | None, low: float, high: float) -> None:
    """Raises InvalidInput when a number that was given is out of bounds."""
    if value is not None and not low <= value <= high:
        raise InvalidInput(f"{name}: {value} is not between {low} and {high}.")


class Sampled(Protocol):
    """A body with OpenAI's sampling fields."""

    @property
    def temperature(self) -> float | None: ...
    @property
    def top_p(self) -> float | None: ...
    @property
    def seed(self) -> int | None: ...
    @property
    def stop(self) -> str | list[str] | None: ...

    @property
    def user(self) -> str | None: ...


def sampling(body: Sampled, max_tokens: int | None) -> dict[str, Any]:
    """The fields of Asked that say how to sample. Raises InvalidInput for what is out of bounds."""
    within("temperature", body.temperature, 0, 2)
    within("top_p", body.top_p, 0, 1)
    within("max_tokens", max_tokens, 1, 1_000_000)
    within("seed", body.seed, -_EXACT, _EXACT)
    return {
        "temperature": body.temperature,
        "max_tokens": max_tokens,
        "top_p": body.top_p,
        "seed": body.seed,
        "stop": (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
        "user": user(body.user),
    }


def user(name: str | None) -> str | None:
    """Whom the client asks for. Raises InvalidInput when that is longer than 1,000 characters."""
    if name is not None and len(name) > 1_000:
        raise InvalidInput("user: at most 1,000 characters name a user.")
    return name or None


def conversation(metadata: Any) -> str | None:
    """Which conversation a request is a turn of: `metadata.conversation`. Raises InvalidInput for what names none."""
    name = metadata.get("conversation") if isinstance(metadata, dict) else None
    if name is not None and (not isinstance(name, str) or len(name) > 1_000):
        raise InvalidInput("metadata.conversation: a text of at most 1,000 characters names a conversation.")
    return name or None


def refuse(body: object, reasons: Mapping[str, str]) -> None:
    """Raises InvalidInput when a field is set that this server does not do: it is never just dropped."""
    for name, why in reasons.items():
        if getattr(body, name):
            raise InvalidInput(f"{name}: {why}")


def functions(tools: list[dict[str, Any]]) -> None:
    """Raises InvalidInput for a tool that is not a function."""
    for position, tool in enumerate(tools):
        if tool.get("type") != "function":
            raise InvalidInput(f"tools[{position}].type: only tools of the type 'function' are served.")


class CallSaid:
    """A tool call as far as it has come."""

    def __init__(self, first: ToolCallPiece) -> None:
        self.id, self.name = first.id or f"call_{first.index}", first.name or ""
        self.arguments: list[str] = []


class Said:
    """What an answer has come to so far."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.refusals: list[str] = []
        self.calls: dict[int, CallSaid] = {}
        self.logprobs: list[Any] = []

    def add(self, piece: Text | ToolCallPiece) -> None:
        if isinstance(piece, Text):
            (self.refusals if piece.refusal else self.texts).append(piece.text)
            if piece.logprobs:
                self.logprobs += piece.logprobs.get("content") or ()
        else:
            if piece.index not in self.calls:
                self.calls[piece.index] = CallSaid(piece)
            self.calls[piece.index].arguments.append(piece.arguments)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def refusal(self) -> str:
        return "".join(self.refusals)


def model(call: Call) -> str:
    """The model's name as the caller gave it, or of what stood in for none."""
    return call.asked.model or (call.release.app if call.release else call.models[0].name)


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
        "arm": call.arm if call.stage else None,
        "citations": msgspec.to_builtins(answer.citations),
        "verdicts": msgspec.to_builtins(answer.verdicts),
        "grounded": answer.grounded,
        "quoted": answer.quoted,
        "ignored": call.ignored,
    }


def events(data: Iterable[Mapping[str, Any]]) -> bytes:
    """Server-sent events without names."""
    return b"".join(b"data: " + msgspec.json.encode(one) + b"\n\n" for one in data)
