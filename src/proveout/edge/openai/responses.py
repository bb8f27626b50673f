"""`POST /v1/responses`: OpenAI's newer protocol, without storage: a conversation is sent whole, each time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from proveout.domain import FinishReason, Message, Text, ToolCall, ToolCallPiece
from proveout.edge.http import problems
from proveout.edge.openai import wire
from proveout.edge.openai.endpoint import serve
from proveout.edge.openai.wire import CallSaid, Said
from proveout.errors import InvalidInput, ProveoutError
from proveout.serving.call import Answer, Asked, Call

_NO_STORAGE = "this server stores no responses: leave it out, and send the whole conversation as `input`."
_REFUSED: Mapping[str, str] = {
    "store": "this server stores no responses: leave it out, or say false.",
    "previous_response_id": _NO_STORAGE,
    "conversation": _NO_STORAGE,
    "background": "responses are not made in the background; leave it out.",
    "prompt": "there are no stored prompts here: send `instructions` and `input`.",
    "context_management": "the conversation is taken as it is; leave it out.",
    "image": "only text is answered; leave it out.",
    "moderation": "this server does not do it; leave it out.",
    "top_logprobs": "log probabilities are given by /v1/chat/completions, where the model has them.",
}
_INCOMPLETE: Mapping[FinishReason, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}


class MessageItem(msgspec.Struct, frozen=True):
    role: str
    content: str | list[dict[str, Any]]


class CallItem(msgspec.Struct, frozen=True):
    """A call of a function that a model asked for in an earlier turn."""

    call_id: str
    name: str
    arguments: str


class OutputItem(msgspec.Struct, frozen=True):
    """What the function said."""

    call_id: str
    output: str | list[dict[str, Any]]


_ITEMS: Mapping[str, type[MessageItem | CallItem | OutputItem]] = {
    "message": MessageItem,
    "function_call": CallItem,
    "function_call_output": OutputItem,
}


class TextSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    format: dict[str, Any] | None = None
    verbosity: str | None = None


class Reasoning(msgspec.Struct, frozen=True):
    """How much a model thinks. Its thoughts are not given on, nor are summaries of them."""

    effort: str | None = None
    summary: str | None = None


class ResponsesRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body. Unknown fields are refused, as OpenAI does, since they might have changed the answer."""

    input: str | list[dict[str, Any]]
    model: str | None = None
    instructions: str | None = None
    stream: bool | None = False
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextSettings | None = None
    reasoning: Reasoning | None = None
    include: list[str] | None = None
    truncation: str | None = None
    # -- refused
    store: Any = None
    previous_response_id: Any = None
    conversation: Any = None
    background: Any = None
    prompt: Any = None
    context_management: Any = None
    image: Any = None
    moderation: Any = None
    top_logprobs: Any = None
    # -- of no effect on the answer
    metadata: Any = None
    user: str | None = None
    max_tool_calls: Any = None  # of tools that OpenAI runs itself
    stream_options: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    access_programs: Any = None
    background_options: Any = None

    @property
    def streamed(self) -> bool:
        return bool(self.stream)

    def asked(self) -> Asked:
        """Raises InvalidInput naming the field that cannot be served."""
        wire.refuse(self, _REFUSED)
        if self.include and set(self.include) != {"reasoning.encrypted_content"}:
            raise InvalidInput("include: none of this is given; leave it out.")
        if self.truncation not in (None, "disabled"):
            raise InvalidInput("truncation: the conversation is taken as it is; leave it out.")
        wire.within("temperature", self.temperature, 0, 2)
        wire.within("top_p", self.top_p, 0, 1)
        wire.within("max_output_tokens", self.max_output_tokens, 1, 1_000_000)
        turns = _turns(self.input)
        if self.instructions:
            turns.insert(0, Message("system", self.instructions))
        if not 1 <= len(turns) <= wire.MAX_MESSAGES:
            raise InvalidInput(f"input: between 1 and {wire.MAX_MESSAGES} messages are served.")
        return Asked(
            model=self.model,
            messages=tuple(turns),
            temperature=self.temperature,
            max_tokens=self.max_output_tokens,
            top_p=self.top_p,
            options=self._options(),
            user=wire.user(self.user),
            conversation=wire.conversation(self.metadata),
        )

    def _options(self) -> dict[str, Any]:
        """What is set and not neutral, as chat completions have it."""
        options: dict[str, Any] = {}
        if self.tools:
            wire.functions(self.tools)
            options["tools"] = [_nested("function", tool) for tool in self.tools]
            if self.parallel_tool_calls is not None:
                options["parallel_tool_calls"] = self.parallel_tool_calls
            if isinstance(self.tool_choice, dict):
                wire.functions([self.tool_choice])
                options["tool_choice"] = _nested("function", self.tool_choice)
            elif self.tool_choice:
                options["tool_choice"] = self.tool_choice
        elif self.tool_choice not in (None, "none", "auto"):
            raise InvalidInput("tool_choice: there are no tools to choose from.")
        text = self.text or TextSettings()
        shape = text.format or {"type": "text"}
        if shape.get("type") == "json_schema":
            options["response_format"] = _nested("json_schema", shape)
        elif shape.get("type") == "json_object":
            options["response_format"] = shape
        elif shape.get("type") != "text":
            raise InvalidInput(f"text.format.type: {shape.get('type')!r} is not text, json_object or json_schema.")
        if text.verbosity:
            options["verbosity"] = text.verbosity
        if self.reasoning and self.reasoning.effort:
            options["reasoning_effort"] = self.reasoning.effort
        return options

    def format(self, call: Call) -> ResponsesFormat:
        return ResponsesFormat(call, self)


def _nested(kind: str, flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"type": kind, kind: {…}}`, as chat completions nest what responses have flat."""
    return {"type": kind, kind: {name: value for name, value in flat.items() if name != "type"}}


def _turns(given: str | list[dict[str, Any]]) -> list[Message]:
    """The input's items as messages; calls that follow each other are one assistant's turn."""
    if isinstance(given, str):
        return [Message("user", given)]
    turns: list[Message] = []
    for position, sent in enumerate(given):
        where = f"input[{position}]"
        kind = sent.get("type", "message")
        shape = _ITEMS.get(kind) if isinstance(kind, str) else None
        if shape is None:
            raise InvalidInput(f"{where}.type: {kind!r} is not one of {', '.join(_ITEMS)}.")
        try:
            item = msgspec.convert(sent, shape)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"{where}: {error}.") from error
        if isinstance(item, CallItem):
            call = ToolCall(item.call_id, item.name, item.arguments)
            turn = turns.pop() if turns and turns[-1].role == "assistant" else Message("assistant", "")
            turns.append(replace(turn, tool_calls=(*turn.tool_calls, call)))
        elif isinstance(item, OutputItem):
            turns.append(Message("tool", *_content(where, item.output), tool_call_id=item.call_id))
        else:
            turns.append(Message(wire.role(where, item.role), *_content(where, item.content)))
    return turns


def _content(where: str, content: str | list[dict[str, Any]]) -> tuple[str, tuple[dict[str, Any], ...]]:
    if isinstance(content, str):
        return content, ()
    return wire.read_parts(where, [_part(where, position, part) for position, part in enumerate(content)])


def _part(where: str, position: int, part: dict[str, Any]) -> dict[str, Any]:
    """A part as chat completions have it."""
    kind = part.get("type")
    if kind in ("input_text", "output_text"):
        return {"type": "text", "text": part.get("text")}
    if kind == "input_image" and part.get("image_url"):
        return {"type": "image_url", "image_url": {"url": part["image_url"], "detail": part.get("detail") or "auto"}}
    if kind == "input_file" and part.get("file_data"):
        return {"type": "file", "file": {k: v for k, v in part.items() if k in ("file_data", "filename")}}
    if kind == "refusal":
        return part
    raise InvalidInput(
        f"{where}.content[{position}]: {kind!r} is not served so; there are input_text, output_text, refusal, "
        "input_image with an image_url, input_file with file_data."
    )


class ResponsesFormat:
    """A `response`, whole and as typed events."""

    def __init__(self, call: Call, request: ResponsesRequest) -> None:
        self._call, self._request = call, request
        self._id = call.request.removeprefix("req_")
        self._created = int(time.time())
        self._said = Said()
        self._items: list[CallSaid | None] = []  # in the order of their beginning; None is the message
        self._parts: list[str] = []  # of the message: the types of its parts
        self._number = 0

    def whole(self, said: Said, answer: Answer) -> dict[str, Any]:
        self._said = said
        if said.texts or said.refusals or not said.calls:
            self._items.append(None)
            self._parts = [] if said.refusals and not said.texts else ["output_text"]
            self._parts += ["refusal"] if said.refusals else []
        self._items += said.calls.values()
        return self._finished(answer)

    def start(self) -> bytes:
        response = self._response("in_progress")
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def piece(self, piece: Text | ToolCallPiece) -> bytes:
        self._said.add(piece)
        return self._text(piece) if isinstance(piece, Text) else self._call_piece(piece)

    def end(self, answer: Answer) -> bytes:
        events = b"" if self._items else self._text(Text(""))
        status = "incomplete" if answer.finish in _INCOMPLETE else "completed"
        for index, item in enumerate(self._items):
            events += self._close(index, item, status)
        return events + self._event(f"response.{status}", response=self._finished(answer))

    def broken(self, error: ProveoutError) -> bytes:
        said = problems.body(error)["error"]
        return self._event("error", code=error.code, message=error.message, param=None, error=said)

    def _text(self, piece: Text) -> bytes:
        events = b""
        kind = "refusal" if piece.refusal else "output_text"
        if None not in self._items:
            self._items.append(None)
            item = {**self._message("in_progress"), "content": []}
            events += self._event("response.output_item.added", output_index=len(self._items) - 1, item=item)
        place: dict[str, Any] = {"item_id": f"msg_{self._id}", "output_index": self._items.index(None)}
        if kind not in self._parts:
            self._parts.append(kind)
            index, part = len(self._parts) - 1, _written(kind, Said())
            events += self._event("response.content_part.added", **place, content_index=index, part=part)
        place["content_index"] = self._parts.index(kind)
        more: dict[str, Any] = {} if piece.refusal else {"logprobs": []}
        return events + self._event(f"response.{kind}.delta", **place, delta=piece.text, **more)

    def _call_piece(self, piece: ToolCallPiece) -> bytes:
        call = self._said.calls[piece.index]
        events = b""
        if call not in self._items:
            self._items.append(call)
            item = {**self._function_call(call, "in_progress"), "arguments": ""}
            events += self._event("response.output_item.added", output_index=len(self._items) - 1, item=item)
        if piece.arguments:
            events += self._event(
                "response.function_call_arguments.delta",
                item_id=f"fc_{call.id}",
                output_index=self._items.index(call),
                delta=piece.arguments,
            )
        return events

    def _close(self, index: int, item: CallSaid | None, status: str) -> bytes:
        """The events that end an item of the output."""
        if item is not None:
            whole = self._function_call(item, status)
            events = self._event(
                "response.function_call_arguments.done",
                item_id=whole["id"],
                output_index=index,
                name=item.name,
                arguments=whole["arguments"],
            )
            return events + self._event("response.output_item.done", output_index=index, item=whole)
        whole, events = self._message(status), b""
        for position, (kind, part) in enumerate(zip(self._parts, whole["content"], strict=True)):
            place = {"item_id": whole["id"], "output_index": index, "content_index": position}
            more = {"refusal": part["refusal"]} if kind == "refusal" else {"text": part["text"], "logprobs": []}
            events += self._event(f"response.{kind}.done", **place, **more)
            events += self._event("response.content_part.done", **place, part=part)
        return events + self._event("response.output_item.done", output_index=index, item=whole)

    def _message(self, status: str) -> dict[str, Any]:
        content = [_written(kind, self._said) for kind in self._parts]
        head = {"id": f"msg_{self._id}", "type": "message", "role": "assistant"}
        return {**head, "status": status, "content": content}

    def _function_call(self, call: CallSaid, status: str) -> dict[str, Any]:
        return {
            "id": f"fc_{call.id}",
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": "".join(call.arguments),
            "status": status,
        }

    def _finished(self, answer: Answer) -> dict[str, Any]:
        status = "incomplete" if answer.finish in _INCOMPLETE else "completed"
        items = [self._message(status) if i is None else self._function_call(i, status) for i in self._items]
        response = self._response(status, items)
        if status == "incomplete":
            response["incomplete_details"] = {"reason": _INCOMPLETE[answer.finish]}
        used = answer.usage
        response["usage"] = {
            "input_tokens": used.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": used.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": used.prompt_tokens + used.completion_tokens,
        }
        response["proveout"] = wire.about(self._call, answer)
        return response

    def _response(self, status: str, output: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        asked, parameters = self._request, self._call.parameters
        return {
            "id": f"resp_{self._id}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "model": wire.model(self._call),
            "output": output or [],
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": asked.reasoning,
            "store": False,
            "temperature": parameters.temperature,
            "text": asked.text or TextSettings({"type": "text"}),
            "tool_choice": asked.tool_choice or "auto",
            "tools": asked.tools or [],
            "top_p": parameters.top_p,
            "truncation": "disabled",
            "usage": None,
            "user": asked.user,
        }

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return f"event: {kind}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"


def _written(kind: str, said: Said) -> dict[str, Any]:
    """A part of a message's content."""
    if kind == "refusal":
        return {"type": "refusal", "refusal": said.refusal}
    return {"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}


async def responses(request: Request) -> Response:
    """`POST /v1/responses`: an answer to a conversation, streamed as typed events or whole."""
    return await serve(request, ResponsesRequest)
