"""Calls of tools in a model's text: the grammar that they are held to, and their way out of the stream.

A call can begin at any point of an answer; from its trigger on, the grammar lets through nothing but one of the
offered tools with arguments that fit its schema. So reading needs no guessing.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import openvino_genai as genai

from proveout.engine.channel import Piece, ToolPiece
from proveout.engine.detokenise import overlap
from proveout.engine.schema import checked
from proveout.engine.template import CallForm
from proveout.errors import InvalidInput


def grammar(tools: Sequence[Mapping[str, Any]], form: CallForm, choice: str, parallel: bool) -> Any:
    """OpenVINO's configuration. `choice` is `auto`, `required`, or the name of the tool to call."""
    schema = genai.StructuredOutputConfig.JSONSchema
    named = {t["function"]["name"]: _parameters(n, t["function"]) for n, t in enumerate(tools)}
    if choice not in ("auto", "required"):
        named = {choice: named[choice]}
    tags = [
        genai.StructuredOutputConfig.Tag(form.open(name), schema(parameters), form.closing)
        for name, parameters in named.items()
    ]
    once = not (parallel and form.parallel) or choice in named
    config = genai.StructuredOutputConfig()
    config.structural_tags_config = genai.StructuredOutputConfig.TriggeredTags(
        [form.trigger], tags, choice != "auto", once
    )
    return config


def _parameters(position: int, function: Mapping[str, Any]) -> str:
    """The schema of a tool's arguments. One that cannot be enforced is so only where `strict` did not ask for it."""
    anything = {"type": "object"}
    try:
        return checked({**anything, **(function.get("parameters") or {})}, f"tools[{position}].function.parameters")
    except InvalidInput:
        if function.get("strict"):
            raise
        return checked(anything, "parameters")


class CallReader:
    """Takes an answer's text piece by piece and gives out text and calls. `called` counts the whole calls."""

    def __init__(self, form: CallForm) -> None:
        self._form = form
        self._lead, self._middle = form.opening.split("NAME")
        self._buffer = ""
        self._index = -1
        self._depth = 0  # of open braces within arguments
        self._quoted = self._escaped = False
        self._state = "text"
        self.called = 0

    def push(self, text: str) -> Iterator[Piece | ToolPiece]:
        """What this text settles."""
        self._buffer += text
        steps = {"text": self._text, "name": self._name, "arguments": self._arguments, "closing": self._closing}
        while True:
            before = self._state
            yield from steps[before]()
            if self._state == before:
                return

    def end(self) -> Iterator[Piece | ToolPiece]:
        """What was held back, when no more text comes."""
        if self._state == "text" and self._buffer and not (self.called and self._buffer.isspace()):
            yield Piece(self._buffer)
        self._buffer = ""

    def _text(self) -> Iterator[Piece | ToolPiece]:
        """Space before a call belongs to neither, so it waits for what follows."""
        at = self._buffer.find(self._form.trigger)
        if at >= 0:
            said, self._buffer = self._buffer[:at].rstrip(), self._buffer[at:]
            self._state = "name"
        else:
            at = len(self._buffer) - overlap(self._buffer, self._form.trigger)
            said = self._buffer[:at].rstrip()
            self._buffer = self._buffer[len(said) :]
        if said:
            yield Piece(said)

    def _name(self) -> Iterator[Piece | ToolPiece]:
        at = self._buffer.find(self._middle, len(self._lead))
        if at < 0:
            return
        name, self._buffer = self._buffer[len(self._lead) : at], self._buffer[at + len(self._middle) :]
        self._index += 1
        self._state = "arguments"
        yield ToolPiece(self._index, "", f"call_{secrets.token_hex(12)}", name)

    def _arguments(self) -> Iterator[Piece | ToolPiece]:
        end = next((at for at, sign in enumerate(self._buffer, 1) if self._closes(sign)), None)
        piece, self._buffer = self._buffer[:end], self._buffer[end:] if end else ""
        if end:
            self._state = "closing"
        if piece:
            yield ToolPiece(self._index, piece)

    def _closes(self, sign: str) -> bool:
        """Whether the arguments, an object, end with this sign."""
        if self._quoted:
            self._quoted = self._escaped or sign != '"'
            self._escaped = sign == "\\" and not self._escaped
        elif sign == '"':
            self._quoted = True
        elif sign in "{}":
            self._depth += 1 if sign == "{" else -1
            return self._depth == 0
        return False

    def _closing(self) -> Iterator[Piece | ToolPiece]:
        if len(self._buffer) >= len(self._form.closing):
            self._buffer = self._buffer[len(self._form.closing) :]
            self._state = "text"
            self.called += 1
        yield from ()
