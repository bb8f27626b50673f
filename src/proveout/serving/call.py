"""One request on its way through the stages: plain data that each stage extends."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

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
    StageName,
    Text,
    Usage,
    Verdict,
)
from proveout.engine.catalogue import Catalogue
from proveout.ledger.journal import Journal
from proveout.retrieval.cite import Embed, Quote
from proveout.retrieval.search import Searcher


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller wants: the model's name as given, the messages, and what overrides a release's parameters."""

    model: str | None
    messages: tuple[Message, ...]
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()

    @property
    def question(self) -> str:
        """The last user message: what retrieval looks for and the support check answers to."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")


@dataclass(slots=True)
class Progress:
    """What happened so far, in milliseconds since the call was admitted; tokens as they come."""

    admitted: float = field(default_factory=time.perf_counter)
    first_token_ms: float | None = None
    first_sentence_ms: float | None = None
    usage: Usage = Usage()
    recorded: bool = False

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
    progress: Progress = field(default_factory=Progress)
    # -- resolve
    release: Release | None = None
    stage: StageName | None = None
    models: tuple[ModelUse, ...] = ()
    parameters: Parameters = Parameters()
    # -- retrieve
    passages: tuple[Passage, ...] = ()
    quotes: tuple[Quote, ...] = ()  # best first
    answerable: bool = True
    # -- compose
    prompts: tuple[Prompt, ...] = ()  # one for each of `models`

    @property
    def has_knowledge(self) -> bool:
        return self.release is not None and bool(self.release.manifest.knowledge)


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


Piece = Text | Answer


@dataclass(frozen=True, slots=True)
class Rooms:
    """What the stages use of the rooms to their right; put together in `edge/wiring.py`."""

    directory: Callable[[], Directory]
    catalogue: Catalogue
    searcher: Searcher
    embed: Embed
    journal: Journal
    default: str | None  # the model for callers that name none


Prepare = Callable[[Call, Rooms], Awaitable[Call]]
"""A stage before the answer: takes the call, answers with the call extended."""
