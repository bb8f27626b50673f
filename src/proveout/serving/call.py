"""One request on its way through the stages: plain data that each stage extends."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from proveout.domain import (
    Citation,
    Directory,
    FinishReason,
    Message,
    ModelUse,
    Outcome,
    Parameters,
    Passage,
    Principal,
    Prompt,
    Release,
    Role,
    StageName,
    Text,
    ToolCallPiece,
    Usage,
    Verdict,
)
from proveout.engine.catalogue import Catalogue
from proveout.ledger.journal import Completion, Journal
from proveout.ledger.payloads import Payloads
from proveout.retrieval.cite import Embed, Match, Quote
from proveout.retrieval.search import Searcher
from proveout.serving.assignments import Assignments


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller wants: the model's name as given, the messages, and what overrides a release's parameters.

    `options` are fields of OpenAI's protocol that only some models take, as sent. `embed` asks for the vectors of the
    messages instead of an answer to them. `bounds_thoughts`: `max_tokens` came as `max_completion_tokens`.
    """

    model: str | None
    messages: tuple[Message, ...]
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    embed: bool = False
    bounds_thoughts: bool = False
    user: str | None = None  # whom the client asks for, in its own words
    conversation: str | None = None  # which this is a turn of, as the client names it

    @property
    def question(self) -> str:
        """The last user message: what retrieval looks for and the support check answers to."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def is_met(self) -> bool:
        """Whether it is a later turn: something was answered before."""
        return any(m.role == "assistant" for m in self.messages)

    @property
    def needs(self) -> tuple[str, ...]:
        """The fields of the request that take a model with more than text and sampling parameters."""
        turns = any(m.parts or m.tool_calls or m.role == "tool" for m in self.messages)
        return (*self.options, *(("messages",) if turns else ()))


@dataclass(slots=True)
class Progress:
    """What happened so far, in milliseconds since the call was admitted; tokens as they come."""

    admitted: float = field(default_factory=time.perf_counter)
    first_token_ms: float | None = None
    first_sentence_ms: float | None = None
    usage: Usage = Usage()
    said: list[Text | ToolCallPiece] = field(default_factory=list)  # what was delivered so far
    model: str | None = None  # the one that is answering: the first, or a fallback
    retrieved_ms: float | None = None
    withheld: list[Verdict] = field(default_factory=list)  # what is said of sentences that the caller never sees
    recorded: bool = False

    def release(self, piece: Text | ToolCallPiece) -> None:
        """Notes a piece that is about to reach the caller."""
        if self.first_sentence_ms is None:
            self.first_sentence_ms = self.elapsed_ms
        self.said.append(piece)

    @property
    def elapsed_ms(self) -> float:
        return (time.perf_counter() - self.admitted) * 1000


@dataclass(frozen=True, slots=True)
class Call:
    """One request. The fields below the line are filled by the stages, each by the stage it names."""

    request: str
    principal: Principal
    asked: Asked
    streamed: bool
    purpose: str = "request"
    replays: str | None = None  # the request that this one repeats
    holder: str | None = None  # whose data it holds, of a call that repeats another's
    progress: Progress = field(default_factory=Progress)
    # -- resolve
    release: Release | None = None
    stage: StageName | None = None
    arm: str = "stable"  # of the stage's route
    weight: float | None = None  # of that arm, 0 to 1, where one was drawn
    unit: str | None = None  # whom it was drawn for, a salted hash; None: for this request alone
    models: tuple[ModelUse, ...] = ()
    parameters: Parameters = Parameters()
    # -- retrieve
    passages: tuple[Passage, ...] = ()
    quotes: tuple[Quote, ...] = ()  # best first
    answerable: bool = True
    chance: float | None = None  # that the passages answer the question, where there was a quote
    snapshots: Mapping[str, str] = field(default_factory=dict)  # of each base, the digest of the one that was searched
    epoch: int = 0  # the version of the configuration then
    # -- compose
    prompts: tuple[Prompt, ...] = ()  # one for each of `models`

    @property
    def subject(self) -> str:
        """Whose data the call holds: the user that the client names, else the key itself."""
        if self.holder is not None:
            return self.holder
        return f"user:{self.asked.user}" if self.asked.user else f"key:{self.principal.key.id}"

    @property
    def has_knowledge(self) -> bool:
        return self.release is not None and bool(self.release.manifest.knowledge)

    @property
    def ignored(self) -> tuple[Role, ...]:
        """The roles whose messages have no part in the answer: a release's instructions are its own, and tested so."""
        given = self.release is not None and any(m.role == "system" for m in self.asked.messages)
        return ("system",) if given else ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of an answer: the last piece of every whole one."""

    finish: FinishReason
    usage: Usage
    outcome: Outcome = Outcome.ANSWERED
    citations: tuple[Citation, ...] = ()
    grounded: bool | None = None  # None: nothing to be grounded in
    quoted: bool = False
    passages: tuple[Passage, ...] = ()  # what the answer could draw on, best first
    verdicts: tuple[Verdict, ...] = ()
    served_by: str = ""  # the model as the upstream itself names it
    vectors: NDArray[np.float32] | None = None  # [messages, dimensions], where they were asked for


Piece = Text | ToolCallPiece | Answer


@dataclass(frozen=True, slots=True)
class Rooms:
    """What the stages use of the rooms to their right; put together in `edge/wiring.py`."""

    directory: Callable[[], Directory]
    catalogue: Catalogue
    searcher: Searcher
    embed: Embed
    match: Match
    journal: Journal
    payloads: Payloads
    assignments: Assignments
    captures: Callable[[str | None], bool]  # by app: whether the content of its requests is kept; None: of no app
    default: str | None  # the model for callers that name none
    observe: Callable[[Call, Completion], None]  # called once for each completion that was written


Prepare = Callable[[Call, Rooms], Awaitable[Call]]
"""A stage before the answer: takes the call, answers with the call extended."""
