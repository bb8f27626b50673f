"""`POST /v1/completions`: OpenAI's older protocol. The prompt is asked as one user message."""

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
from proveout.edge.openai.endpoint import serve
from proveout.edge.openai.wire import Said, StreamOptions
from proveout.errors import InvalidInput, ProveoutError
from proveout.serving.call import Answer, Asked, Call

_OPTIONS = ("presence_penalty", "frequency_penalty", "logit_bias")
_REFUSED: Mapping[str, str] = {
    "echo": "the prompt is not given back; leave it out.",
    "suffix": "text is not filled in between; leave it out.",
    "logprobs": "log probabilities are given by /v1/chat/completions, where the model has them.",
}


class CompletionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body. `prompt` is a text, or a list of one."""

    prompt: str | list[Any]
    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    n: int | None = 1
    best_of: int | None = 1
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    echo: Any = None
    suffix: Any = None
    logprobs: Any = None
    user: str | None = None

    @property
    def streamed(self) -> bool:
        return bool(self.stream)

    def asked(self) -> Asked:
        """Raises InvalidInput naming the field that cannot be served."""
        if (self.n or 1) != 1 or (self.best_of or 1) != 1:
            raise InvalidInput("n, best_of: one answer per request is served; ask again for another.")
        wire.refuse(self, _REFUSED)
        prompts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        if len(prompts) != 1 or not isinstance(prompts[0], str):
            raise InvalidInput("prompt: one text is served, neither several nor tokens.")
        return Asked(
            model=self.model,
            messages=(Message("user", prompts[0]),),
            options={name: value for name in _OPTIONS if (value := getattr(self, name))},
            **wire.sampling(self, self.max_tokens),
        )

    def format(self, call: Call) -> CompletionFormat:
        return CompletionFormat(call, with_usage=self.stream_options is not None and self.stream_options.include_usage)


class CompletionFormat:
    """`text_completion`, whole and in pieces. There are no tools here, so there are no calls of them."""

    def __init__(self, call: Call, *, with_usage: bool) -> None:
        self._call, self._with_usage = call, with_usage
        self._head = {
            "id": f"cmpl-{call.request}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": wire.model(call),
        }

    def whole(self, said: Said, answer: Answer) -> dict[str, Any]:
        chunk = self._chunk(said.text or said.refusal, answer.finish)
        return {**chunk, "usage": wire.usage(answer), "proveout": wire.about(self._call, answer)}

    def start(self) -> bytes:
        return b""

    def piece(self, piece: Text | ToolCallPiece) -> bytes:
        return wire.events([self._chunk(piece.text)]) if isinstance(piece, Text) else b""

    def end(self, answer: Answer) -> bytes:
        chunks = [{**self._chunk("", answer.finish), "proveout": wire.about(self._call, answer)}]
        if self._with_usage:
            chunks.append({**self._head, "choices": [], "usage": wire.usage(answer)})
        return wire.events(chunks) + wire.DONE

    def broken(self, error: ProveoutError) -> bytes:
        return wire.events([problems.body(error)])

    def _chunk(self, text: str, finish: str | None = None) -> dict[str, Any]:
        return {**self._head, "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish}]}


async def completions(request: Request) -> Response:
    """`POST /v1/completions`: an answer to one prompt, streamed or whole."""
    return await serve(request, CompletionRequest)
