"""A model's chat template: what turns a conversation into the text that the model was trained on.

Templates are Jinja programs that come with a model's files, so they run in a sandbox, as transformers renders them
(`apply_chat_template`), but without a clock: the same conversation gives the same text on any day.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from proveout.errors import InvalidInput

Turn = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CallForm:
    """How a model writes the call of a tool: `opening` (begun by `trigger`), JSON arguments, `closing`."""

    trigger: str
    opening: str
    closing: str
    parallel: bool  # whether it may write several

    def open(self, name: str) -> str:
        """The text up to the arguments."""
        return self.opening.replace("NAME", name)


HERMES = CallForm("<tool_call>", '<tool_call>\n{"name": "NAME", "arguments": ', "}\n</tool_call>", True)
LLAMA = CallForm('{"name": "', '{"name": "NAME", "parameters": ', "}", False)


class ChatTemplate:
    """`source` is the Jinja text; `bos` and `eos` are the texts of the tokens that begin and end a sequence."""

    def __init__(self, source: str, bos: str = "", eos: str = "") -> None:
        self.source = source
        self._special = {"bos_token": bos, "eos_token": eos}
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], autoescape=False
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise InvalidInput(f"The chat template cannot be read: {error}") from error

    @property
    def digest(self) -> str:
        """`sha256:…` of the source."""
        return f"sha256:{hashlib.sha256(self.source.encode()).hexdigest()}"

    @cached_property
    def calls(self) -> CallForm | None:
        """How this model writes calls of tools; None when its template has no place for them, or no known one."""
        probe = {"type": "function", "function": {"name": "probe_a_tool", "description": "", "parameters": {}}}
        try:
            if "probe_a_tool" not in self.render([{"role": "user", "content": "?"}], [probe]):
                return None
        except InvalidInput:
            return None
        if "<tool_call>" in self.source and "<function=" not in self.source:
            return HERMES
        return LLAMA if '"parameters"' in self.source and "[TOOL_CALLS]" not in self.source else None

    def render(self, turns: Sequence[Turn], tools: Sequence[Turn] = ()) -> str:
        """The text of a conversation, up to where the model goes on. Raises InvalidInput with the template's reason."""
        try:
            return self._template.render(
                messages=turns, tools=list(tools) or None, add_generation_prompt=True, **self._special
            )
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, ArithmeticError) as error:
            raise InvalidInput(f"The model's chat template does not take this conversation: {error}") from error


def _to_json(value: object, indent: int | None = None, ensure_ascii: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _refuse(reason: str) -> NoReturn:
    raise jinja2.TemplateRuntimeError(reason)
