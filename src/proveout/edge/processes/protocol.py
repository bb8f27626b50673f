"""OpenAI's protocol as the embedded models honour it: what comes in, and how answers go out.

Unknown fields are refused: they might have changed the answer.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from proveout.domain import Excerpts
from proveout.engine import channel
from proveout.engine.schema import checked
from proveout.errors import InvalidInput

Positive = Annotated[int, msgspec.Meta(ge=1)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
ToolName = Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
DEFAULT_TOKENS = 1024


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a request."""


class TextPart(Strict):
    text: str
    type: Literal["text"] = "text"


class CalledFunction(Strict):
    name: str
    arguments: str


class ToolCall(Strict):
    id: str
    function: CalledFunction
    type: Literal["function"] = "function"

    def turn(self) -> dict[str, Any]:
        """As chat templates want it: the arguments as values."""
        try:
            arguments = msgspec.json.decode(self.function.arguments)
        except msgspec.DecodeError:
            arguments = self.function.arguments
        return {
            "id": self.id,
            "type": "function",
            "function": {"name": self.function.name, "arguments": arguments},
        }


class ChatMessage(Strict):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    def turn(self) -> dict[str, Any]:
        """As chat templates want it."""
        content = self.content or self.refusal or ""
        turn: dict[str, Any] = {
            "role": "system" if self.role == "developer" else self.role,
            "content": content if isinstance(content, str) else "".join(p.text for p in content),
        }
        if self.name:
            turn["name"] = self.name
        if self.tool_calls:
            turn["tool_calls"] = [call.turn() for call in self.tool_calls]
        if self.tool_call_id:
            turn["tool_call_id"] = self.tool_call_id
        return turn


class Function(Strict):
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Strict):
    function: Function
    type: Literal["function"] = "function"

    def given(self) -> dict[str, Any]:
        """As it was given, for chat templates."""
        function = {k: v for k, v in msgspec.structs.asdict(self.function).items() if v is not None}
        return {"type": "function", "function": function}


class NamedFunction(Strict):
    name: str


class NamedTool(Strict):
    function: NamedFunction
    type: Literal["function"] = "function"


class JsonSchema(Strict):
    name: str
    schema: Any = msgspec.field(default_factory=dict)
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    def schema(self) -> str | None:
        """What the answer is held to, as JSON. Raises InvalidInput for what cannot be enforced."""
        if self.type == "json_object":
            return checked({"type": "object"}, "response_format")
        if self.type == "json_schema":
            if self.json_schema is None:
                raise InvalidInput("response_format.json_schema: the schema is missing.")
            return checked(self.json_schema.schema, "response_format.json_schema.schema")
        return None


class StreamOptions(Strict):
    include_usage: bool = False


class Sampled(Strict, kw_only=True):
    """What chat and text completions have in common. Without chance, unless the request says otherwise."""

    model: str
    max_tokens: Positive | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    user: str | None = None

    @property
    def with_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def _sampling(self) -> dict[str, Any]:
        return {
            "temperature": self.temperature or 0.0,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "seed": self.seed,
            "stop": (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            "presence_penalty": self.presence_penalty or 0.0,
            "frequency_penalty": self.frequency_penalty or 0.0,
        }


class ChatRequest(Sampled, kw_only=True):
    messages: Annotated[list[ChatMessage], msgspec.Meta(min_length=1)]
    max_completion_tokens: Positive | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], msgspec.Meta(max_length=64)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None

    def frame(self) -> channel.Generate:
        """Raises InvalidInput naming the field that cannot be served."""
        if self.top_logprobs:
            raise InvalidInput("top_logprobs: the embedded runtime knows only the chosen token's; ask for `logprobs`.")
        schema = self.response_format.schema() if self.response_format else None
        tools, choice = self._tools()
        if tools and schema:
            raise InvalidInput("response_format: an answer cannot be held to a schema while tools are offered.")
        if tools and self.logprobs:
            raise InvalidInput("logprobs: there are none while tools are offered; leave one of them out.")
        return channel.Generate(
            turns=[m.turn() for m in self.messages],
            max_tokens=self.max_completion_tokens or self.max_tokens or DEFAULT_TOKENS,
            logprobs=bool(self.logprobs),
            schema=schema,
            tools=tools,
            choice=choice,
            parallel=self.parallel_tool_calls is not False,
            **self._sampling(),
        )

    def _tools(self) -> tuple[list[dict[str, Any]], str]:
        """The tools that may be called now, and the choice among them."""
        names = [tool.function.name for tool in self.tools or ()]
        if len(set(names)) < len(names):
            raise InvalidInput("tools: two functions have the same name.")
        choice = self.tool_choice or "auto"
        if isinstance(choice, NamedTool):
            if choice.function.name not in names:
                raise InvalidInput(f"tool_choice: there is no function {choice.function.name!r} in `tools`.")
        elif choice == "none":
            return [], "auto"
        elif choice == "required" and not names:
            raise InvalidInput("tool_choice: there are no tools to choose from.")
        named = choice.function.name if isinstance(choice, NamedTool) else choice
        return [tool.given() for tool in self.tools or ()], named


class CompletionRequest(Sampled, kw_only=True):
    """The prompt goes to the model as it is, without a chat template."""

    prompt: str

    def frame(self) -> channel.Generate:
        return channel.Generate(turns=self.prompt, max_tokens=self.max_tokens or DEFAULT_TOKENS, **self._sampling())


class EmbeddingRequest(Strict, kw_only=True):
    model: str
    input: str | list[str]
    encoding_format: Literal["float", "base64"] = "float"
    user: str | None = None


class MatchRequest(Strict, kw_only=True):
    """Not OpenAI's: `channel.Match`."""

    model: str
    question: str
    texts: list[Excerpts]


class ChatFormat:
    """`chat.completion`, and `chat.completion.chunk`s."""

    def __init__(self, model: str) -> None:
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, pieces: list[channel.Piece | channel.ToolPiece], done: channel.Done) -> dict[str, Any]:
        calls: dict[int, dict[str, Any]] = {}
        for piece in pieces:
            if isinstance(piece, channel.ToolPiece):
                first = {"id": piece.id, "type": "function", "function": {"name": piece.name, "arguments": ""}}
                calls.setdefault(piece.index, first)["function"]["arguments"] += piece.arguments
        text = "".join(p.text for p in pieces if isinstance(p, channel.Piece))
        message: dict[str, Any] = {"role": "assistant", "content": (text or None) if calls else text}
        if calls:
            message["tool_calls"] = list(calls.values())
        tokens = [t for p in pieces if isinstance(p, channel.Piece) for t in p.logprobs]
        choice = {"index": 0, "message": message, "finish_reason": done.reason, "logprobs": _logprobs(tokens)}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": usage(done)}

    def first(self) -> dict[str, Any] | None:
        return self._chunk({"role": "assistant", "content": ""})

    def piece(self, piece: channel.Piece | channel.ToolPiece) -> dict[str, Any]:
        if isinstance(piece, channel.Piece):
            return self._chunk({"content": piece.text}, logprobs=_logprobs(piece.logprobs))
        call: dict[str, Any] = {"index": piece.index, "function": {"arguments": piece.arguments}}
        if piece.id is not None:
            call |= {"id": piece.id, "type": "function"}
            call["function"]["name"] = piece.name
        return self._chunk({"tool_calls": [call]})

    def last(self, done: channel.Done) -> dict[str, Any]:
        return self._chunk({}, done.reason)

    def used(self, done: channel.Done) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage(done)}

    def _chunk(self, delta: Mapping[str, Any], reason: str | None = None, logprobs: Any = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": logprobs}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}


class CompletionFormat:
    """`text_completion`, whole and in pieces."""

    def __init__(self, model: str) -> None:
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, pieces: list[channel.Piece | channel.ToolPiece], done: channel.Done) -> dict[str, Any]:
        text = "".join(p.text for p in pieces if isinstance(p, channel.Piece))
        return {**self._chunk(text, done.reason), "usage": usage(done)}

    def first(self) -> dict[str, Any] | None:
        return None

    def piece(self, piece: channel.Piece | channel.ToolPiece) -> dict[str, Any]:
        return self._chunk(piece.text if isinstance(piece, channel.Piece) else "")

    def last(self, done: channel.Done) -> dict[str, Any]:
        return self._chunk("", done.reason)

    def used(self, done: channel.Done) -> dict[str, Any]:
        return {**self._head, "choices": [], "usage": usage(done)}

    def _chunk(self, text: str, reason: str | None = None) -> dict[str, Any]:
        return {**self._head, "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": reason}]}


def usage(done: channel.Done) -> dict[str, int]:
    prompt, completion = done.prompt_tokens, done.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _logprobs(tokens: list[channel.Logprob] | tuple[channel.Logprob, ...]) -> dict[str, Any] | None:
    if not tokens:
        return None
    content = [
        {
            "token": t.token.decode(errors="replace"),
            "logprob": t.logprob,
            "bytes": list(t.token),
            "top_logprobs": [],
        }
        for t in tokens
    ]
    return {"content": content, "refusal": None}
